//! A cart, and every statement that lists its columns.

use std::borrow::Borrow;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::types::Json;
use utoipa::ToSchema;

use super::{
    CartStatus, RecoveredBy,
    items::{Adjustment, Item},
};
use crate::{
    db::Connection,
    money::{Amount, Currency},
};

/// A cart as the API returns it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({
    "id": "cart_01m84zjdhtftc9p973qfnt3nn0", "externalId": "order-1001", "customerEmail": "ada@example.com",
    "customerName": "Ada Lovelace", "items": [{"name": "Teapot", "quantity": 2, "price": 49.99, "sku": "TP-1"}],
    "adjustments": [{"name": "Discount", "amount": -10.00}, {"name": "Shipping", "amount": 4.90}],
    "totalValue": 94.88, "currency": "eur", "status": "abandoned", "recoveredBy": null, "paidValue": null,
    "refundedValue": null, "locale": "de-AT", "acceptsMarketing": null, "metadata": {},
    "abandonedAt": "2026-03-01T12:00:00Z", "recoveredAt": null, "expiredAt": null, "paymentLink": null,
    "paymentLinkExpiresAt": null, "createdAt": "2026-03-01T12:00:00.125Z", "updatedAt": "2026-03-01T12:00:00.125Z",
}))]
pub struct Cart {
    /// The cart's id.
    #[schema(pattern = "^cart_[A-Za-z0-9_-]{1,100}$", example = "cart_01m84zjdhtftc9p973qfnt3nn0")]
    pub id: String,
    /// The shop's own id of the cart; null if the shop gave none.
    #[schema(required)]
    pub external_id: Option<String>,
    /// The shopper's e-mail address.
    #[schema(example = "ada@example.com")]
    pub customer_email: String,
    /// The shopper's name; null if it is not known.
    #[schema(required, example = "Ada Lovelace")]
    pub customer_name: Option<String>,
    /// The lines, as they were stored.
    #[schema(value_type = Vec<Item>)]
    pub items: Box<RawValue>,
    /// Shipping, taxes and discounts, as they were stored.
    #[schema(value_type = Vec<Adjustment>)]
    pub adjustments: Box<RawValue>,
    /// The sum of the lines and adjustments, computed by the server.
    pub total_value: Amount,
    /// The currency of all amounts.
    pub currency: Currency,
    /// The cart's current status.
    pub status: CartStatus,
    /// How the cart was recovered; null if it was not.
    #[schema(required)]
    pub recovered_by: Option<RecoveredBy>,
    /// The payment that recovered the cart; null if none did, or if it was in another currency, which
    /// the cart had before.
    #[schema(required)]
    pub paid_value: Option<Amount>,
    /// Refunds and lost disputes of the payment that recovered the cart; null if there are none. After a
    /// partial refund, a lost dispute about the whole payment makes it more than `paidValue`.
    #[schema(required)]
    pub refunded_value: Option<Amount>,
    /// The shopper's language, a BCP 47 tag; null if it is not known.
    #[schema(required, example = "de-AT")]
    pub locale: Option<String>,
    /// Whether the shopper agreed to receive marketing; null if that is not known.
    #[schema(required)]
    pub accepts_marketing: Option<bool>,
    /// The shop's own data.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub metadata: Box<RawValue>,
    /// When the shopper left the cart.
    pub abandoned_at: DateTime<Utc>,
    /// When the cart was recovered; null if it was not.
    #[schema(required)]
    pub recovered_at: Option<DateTime<Utc>>,
    /// When the cart expired; null if it did not.
    #[schema(required)]
    pub expired_at: Option<DateTime<Utc>>,
    /// The address of the open Checkout Session; null if there is none.
    #[schema(required, format = "uri")]
    pub payment_link: Option<String>,
    /// When `paymentLink` stops working; null if there is no link.
    #[schema(required)]
    pub payment_link_expires_at: Option<DateTime<Utc>>,
    /// When the cart was created here.
    pub created_at: DateTime<Utc>,
    /// When the cart last changed.
    pub updated_at: DateTime<Utc>,
}

impl Cart {
    /// The shopper's name, or the e-mail address if the name is not known.
    pub fn customer(&self) -> &str {
        self.customer_name.as_deref().unwrap_or(&self.customer_email)
    }
}

/// Where carts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A request for each cart.
    Api,
    /// An import.
    Import,
}

/// JSON as its stored text. (Postgres cuts column names, which hold the type, at 63 bytes.)
pub(crate) type RawJson = Json<Box<RawValue>>;

/// Selects [`Cart`]s, with the payment links that work at `$1`. The second argument provides the table
/// `carts`, the third is the rest of the statement.
macro_rules! select_carts {
    ($conn:expr, [$($carts:tt)+], $rest:tt, $($argument:expr),+ $(,)?) => {
        sqlx::query!(
            r#"
            select carts.id as "id!", carts.external_id, carts.customer_email as "customer_email!", carts.customer_name,
                   carts.items as "items!: crate::carts::cart::RawJson",
                   carts.adjustments as "adjustments!: crate::carts::cart::RawJson",
                   carts.total_minor as "total_minor!", carts.currency as "currency!: crate::money::Currency",
                   carts.status as "status!: crate::carts::CartStatus",
                   case when carts.status = 'recovered' then case carts.status_reason
                       when 'payment' then 'payment' when 'import' then 'import' else 'manual' end
                   end as "recovered_by: crate::carts::RecoveredBy",
                   carts.paid_minor, carts.refunded_minor, carts.locale, carts.accepts_marketing,
                   carts.metadata as "metadata!: crate::carts::cart::RawJson",
                   carts.abandoned_at as "abandoned_at!", carts.recovered_at, carts.expired_at,
                   link.url as "payment_link?", link.session_expires_at as "payment_link_expires_at?",
                   carts.created_at as "created_at!", carts.updated_at as "updated_at!"
            from "#
                + $($carts)+
                + r#"
            left join lateral (
                -- The newest one, by the primary key: an index of open links keeps an entry of each paid one beside a
                -- backup, and Postgres takes it for the shorter way.
                select url, session_expires_at, status from payment_links
                where cart_id = carts.id
                order by version desc
                limit 1
            ) link on link.status = 'open' and link.session_expires_at > $1 and carts.status = 'abandoned'
            "# + $rest,
            $($argument),+
        )
        .map(|row| {
            let amount = |minor| row.currency.amount(minor);
            $crate::carts::Cart {
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
        })
        .fetch_all($conn)
        .await
    };
}
pub(crate) use select_carts;

/// Stores carts in one statement, each with the name of its API key; returns how many. Carts whose id
/// or external id is stored already are left as they are.
///
/// The same statement adds the carts of requests to the audit log: an entry for each key. An import
/// has an entry of its own.
pub async fn insert(
    conn: &mut Connection,
    carts: &[impl Borrow<Cart>],
    keys: &[&str],
    source: Source,
) -> sqlx::Result<u64> {
    fn column<'a, T>(carts: &'a [impl Borrow<Cart>], value: impl Fn(&'a Cart) -> T) -> Vec<T> {
        carts.iter().map(|cart| value(cart.borrow())).collect()
    }
    // The columns of `new` are the first ones of `carts` here, in the same order.
    let stored = sqlx::query_scalar!(
        r#"
        with stored as (
            insert into carts (status, created_at, id, external_id, customer_email, customer_name, items, adjustments,
                               total_minor, currency, locale, accepts_marketing, metadata, abandoned_at, recovered_at,
                               expired_at, created_key, updated_at, imported, status_changed_at, status_reason)
            select new.*, created_at, $1, case when status <> 'abandoned' then created_at end,
                   case when status <> 'abandoned' then 'import' end
            from unnest($2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[]::json[],
                        $9::text[]::json[], $10::bigint[], $11::text[], $12::text[], $13::boolean[], $14::text[]::json[],
                        $15::timestamptz[], $16::timestamptz[], $17::timestamptz[], $18::text[])
                as new (status, created_at)
            on conflict do nothing
            returning id, created_at, created_key
        ), noted as (
            insert into audit_log (at, id, key, action, subject, count)
            select max(created_at), gen_random_uuid(), created_key, 'cart.created', array_agg(id), count(*)
            from stored where not $1 group by created_key
        )
        select count(*) as "count!" from stored
        "#,
        source == Source::Import,
        &column(carts, |cart| cart.status.as_str()) as &[&str],
        &column(carts, |cart| cart.created_at),
        &column(carts, |cart| cart.id.as_str()) as &[&str],
        &column(carts, |cart| cart.external_id.as_deref()) as &[Option<&str>],
        &column(carts, |cart| cart.customer_email.as_str()) as &[&str],
        &column(carts, |cart| cart.customer_name.as_deref()) as &[Option<&str>],
        &column(carts, |cart| cart.items.get()) as &[&str],
        &column(carts, |cart| cart.adjustments.get()) as &[&str],
        &column(carts, |cart| cart.total_value.minor()),
        &column(carts, |cart| cart.currency.code()) as &[&str],
        &column(carts, |cart| cart.locale.as_deref()) as &[Option<&str>],
        &column(carts, |cart| cart.accepts_marketing) as &[Option<bool>],
        &column(carts, |cart| cart.metadata.get()) as &[&str],
        &column(carts, |cart| cart.abandoned_at),
        &column(carts, |cart| cart.recovered_at) as &[Option<DateTime<Utc>>],
        &column(carts, |cart| cart.expired_at) as &[Option<DateTime<Utc>>],
        keys as &[&str],
    )
    .fetch_one(conn)
    .await?;
    Ok(stored.unsigned_abs())
}

/// Replaces what clients may change of the cart `id` with the contents of `cart`.
///
/// # Errors
/// A unique violation of `carts_external_id` if another cart has the external id.
pub(super) async fn update(conn: &mut Connection, id: &str, cart: &Cart, now: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update carts set external_id = $3, customer_email = $4, customer_name = $5, items = $6::text::json,
                         adjustments = $7::text::json, total_minor = $8, currency = $9, locale = $10, accepts_marketing = $11,
                         metadata = $12::text::json, anonymized_at = null, updated_at = $2
        where id = $1
        "#,
        id,
        now,
        cart.external_id,
        cart.customer_email,
        cart.customer_name,
        cart.items.get(),
        cart.adjustments.get(),
        cart.total_value.minor(),
        cart.currency.code(),
        cart.locale,
        cart.accepts_marketing,
        cart.metadata.get(),
    )
    .execute(conn)
    .await?;
    Ok(())
}
