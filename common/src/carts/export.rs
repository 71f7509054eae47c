//! Exports carts in batches, oldest first.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    new::Item,
    row::{CartRow, select_carts},
};
use crate::{
    carts::CartStatus,
    db::Connection,
    money::{Amount, Currency},
};

/// An exported cart: the fields of an import, and those that this store adds.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExportedCart {
    /// The cart's id.
    pub id: String,
    /// The client's own id of the cart; null if it gave none.
    #[schema(required)]
    pub external_id: Option<String>,
    /// The shopper's e-mail address.
    pub customer_email: String,
    /// The shopper's name.
    pub customer_name: String,
    /// The items, as they were stored.
    #[schema(value_type = Vec<Item>)]
    pub items: Box<RawValue>,
    /// The total, computed by the server.
    pub total_value: Amount,
    /// The currency of `total_value` and of every price.
    pub currency: Currency,
    /// The cart's current status.
    pub status: CartStatus,
    /// When the shopper left the cart.
    pub abandoned_at: DateTime<Utc>,
    /// When the cart was recovered; null if it was not.
    #[schema(required)]
    pub recovered_at: Option<DateTime<Utc>>,
    /// When the cart expired; null if it did not.
    #[schema(required)]
    pub expired_at: Option<DateTime<Utc>>,
    /// When the cart was created here.
    pub created_at: DateTime<Utc>,
    /// When the cart last changed.
    pub updated_at: DateTime<Utc>,
}

impl From<CartRow> for ExportedCart {
    fn from(row: CartRow) -> Self {
        Self {
            id: row.id,
            external_id: row.external_id,
            customer_email: row.customer_email,
            customer_name: row.customer_name,
            items: row.items.0,
            total_value: row.currency.amount(row.total_minor),
            currency: row.currency,
            status: row.status,
            abandoned_at: row.abandoned_at,
            recovered_at: row.recovered_at,
            expired_at: row.expired_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// The position of an export, and its filters.
#[derive(Debug, Clone)]
pub struct Position {
    status: Option<CartStatus>,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
    /// The id of the last exported cart, of those created at `from`; `None` at the start.
    after_id: Option<String>,
}

impl Position {
    /// The start of an export of the carts with this status, created at `from` or later and before
    /// `to`. A `None` does not restrict it.
    pub fn start(status: Option<CartStatus>, from: Option<DateTime<Utc>>, to: Option<DateTime<Utc>>) -> Self {
        Self { status, from, to, after_id: None }
    }

    /// Moves the position behind `cart`.
    pub fn advance(&mut self, cart: &ExportedCart) {
        self.from = Some(cart.created_at);
        self.after_id = Some(cart.id.clone());
    }
}

/// Expands to one statement for each status, because each status has its own index. Each statement
/// starts where the previous batch ended, so every batch costs the same.
macro_rules! batch_of {
    ($conn:expr, $position:expr, $limit:expr, $carts:tt) => {
        select_carts!(
            $conn,
            ["(" + $carts
                + r#") carts, (values (null::text, null::timestamptz)) link (url, session_expires_at)
            where (created_at, id) > (coalesce($1::timestamptz, '-infinity'), coalesce($2::text, ''))
              and created_at < coalesce($3::timestamptz, 'infinity')
            order by created_at, id
            limit $4
            "#],
            $position.from,
            $position.after_id,
            $position.to,
            $limit,
        )
    };
}

/// At most `limit` carts after `position`, oldest first.
pub async fn batch(conn: &mut Connection, position: &Position, limit: i64) -> sqlx::Result<Vec<ExportedCart>> {
    let rows = match position.status {
        // The oldest of each status, merged.
        None => batch_of!(
            conn,
            position,
            limit,
            r#"
                (select * from carts
                 where status = 'abandoned'
                   and (created_at, id) > (coalesce($1::timestamptz, '-infinity'), coalesce($2::text, ''))
                   and created_at < coalesce($3::timestamptz, 'infinity')
                 order by created_at, id limit $4)
                union all
                (select * from carts
                 where status = 'recovered'
                   and (created_at, id) > (coalesce($1::timestamptz, '-infinity'), coalesce($2::text, ''))
                   and created_at < coalesce($3::timestamptz, 'infinity')
                 order by created_at, id limit $4)
                union all
                (select * from carts
                 where status = 'expired'
                   and (created_at, id) > (coalesce($1::timestamptz, '-infinity'), coalesce($2::text, ''))
                   and created_at < coalesce($3::timestamptz, 'infinity')
                 order by created_at, id limit $4)
            "#
        ),
        Some(CartStatus::Abandoned) => {
            batch_of!(conn, position, limit, "select * from carts where status = 'abandoned'")
        }
        Some(CartStatus::Recovered) => {
            batch_of!(conn, position, limit, "select * from carts where status = 'recovered'")
        }
        Some(CartStatus::Expired) => {
            batch_of!(conn, position, limit, "select * from carts where status = 'expired'")
        }
    };
    Ok(rows?.into_iter().map(ExportedCart::from).collect())
}
