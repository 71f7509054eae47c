//! The row and the columns of every query that returns carts.

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sqlx::types::Json;

use super::{Cart, CartStatus, RecoveredBy};
use crate::money::Currency;

/// JSON as its stored text. (Postgres cuts column names, which hold the type, at 63 bytes.)
pub(crate) type RawJson = Json<Box<RawValue>>;

/// A row of [`select_carts`].
pub(crate) struct CartRow {
    pub(crate) id: String,
    pub(crate) external_id: Option<String>,
    pub(crate) customer_email: String,
    pub(crate) customer_name: Option<String>,
    pub(crate) items: RawJson,
    pub(crate) adjustments: RawJson,
    pub(crate) total_minor: i64,
    pub(crate) currency: Currency,
    pub(crate) status: CartStatus,
    pub(crate) recovered_by: Option<RecoveredBy>,
    pub(crate) paid_minor: Option<i64>,
    pub(crate) refunded_minor: Option<i64>,
    pub(crate) locale: Option<String>,
    pub(crate) accepts_marketing: Option<bool>,
    pub(crate) metadata: RawJson,
    pub(crate) abandoned_at: DateTime<Utc>,
    pub(crate) recovered_at: Option<DateTime<Utc>>,
    pub(crate) expired_at: Option<DateTime<Utc>>,
    pub(crate) payment_link: Option<String>,
    pub(crate) payment_link_expires_at: Option<DateTime<Utc>>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
}

/// Selects [`CartRow`]s. The second argument is the rest of the statement after `from`. It provides
/// the tables `carts` and `link`, with the columns `url` and `session_expires_at`.
macro_rules! select_carts {
    ($conn:expr, [$($from:tt)+], $($argument:expr),+ $(,)?) => {
        sqlx::query_as!(
            $crate::carts::row::CartRow,
            r#"
            select carts.id as "id!", carts.external_id as "external_id?", carts.customer_email as "customer_email!",
                   carts.customer_name as "customer_name?", carts.items as "items!: crate::carts::row::RawJson",
                   carts.adjustments as "adjustments!: crate::carts::row::RawJson",
                   carts.total_minor as "total_minor!", carts.currency as "currency!: crate::money::Currency",
                   carts.status as "status!: crate::carts::CartStatus",
                   case when carts.status = 'recovered' then case carts.status_reason
                       when 'payment' then 'payment' when 'import' then 'import' else 'manual' end
                   end as "recovered_by?: crate::carts::RecoveredBy",
                   carts.paid_minor as "paid_minor?", carts.refunded_minor as "refunded_minor?", carts.locale as "locale?",
                   carts.accepts_marketing as "accepts_marketing?",
                   carts.metadata as "metadata!: crate::carts::row::RawJson",
                   carts.abandoned_at as "abandoned_at!", carts.recovered_at as "recovered_at?", carts.expired_at as "expired_at?",
                   link.url as "payment_link?", link.session_expires_at as "payment_link_expires_at?",
                   carts.created_at as "created_at!", carts.updated_at as "updated_at!"
            from "#
                + $($from)+,
            $($argument),+
        )
        .fetch_all($conn)
        .await
    };
}
pub(crate) use select_carts;

/// Selects carts with the payment links that work at `$1`. The second argument provides the table
/// `carts`, the third is the rest of the statement.
macro_rules! select_linked_carts {
    ($conn:expr, [$($carts:tt)+], $rest:tt, $($argument:expr),+ $(,)?) => {
        $crate::carts::row::select_carts!(
            $conn,
            [$($carts)+
                + r#"
            left join lateral (
                select url, session_expires_at from payment_links
                where cart_id = carts.id and status = 'open' and session_expires_at > $1 and carts.status = 'abandoned'
                limit 1
            ) link on true
            "# + $rest],
            $($argument),+
        )
    };
}
pub(crate) use select_linked_carts;

impl From<CartRow> for Cart {
    fn from(row: CartRow) -> Self {
        let amount = |minor| row.currency.amount(minor);
        Self {
            id: row.id,
            external_id: row.external_id,
            customer_email: row.customer_email,
            customer_name: row.customer_name,
            items: row.items.0,
            adjustments: row.adjustments.0,
            total_value: amount(row.total_minor),
            currency: row.currency,
            status: row.status,
            recovered_by: row.recovered_by,
            paid_value: row.paid_minor.map(amount),
            refunded_value: row.refunded_minor.map(amount),
            locale: row.locale,
            accepts_marketing: row.accepts_marketing,
            metadata: row.metadata.0,
            abandoned_at: row.abandoned_at,
            recovered_at: row.recovered_at,
            expired_at: row.expired_at,
            payment_link: row.payment_link,
            payment_link_expires_at: row.payment_link_expires_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}
