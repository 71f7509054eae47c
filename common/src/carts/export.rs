//! Exports carts in batches, oldest first.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::types::Json;
use utoipa::ToSchema;

use super::new::Item;
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

/// A row as it is read.
struct Row {
    id: String,
    external_id: Option<String>,
    customer_email: String,
    customer_name: String,
    items: Json<Box<RawValue>>,
    total_minor: i64,
    currency: String,
    status: String,
    abandoned_at: DateTime<Utc>,
    recovered_at: Option<DateTime<Utc>>,
    expired_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<Row> for ExportedCart {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> sqlx::Result<Self> {
        let currency: Currency = row.currency.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        Ok(Self {
            id: row.id,
            external_id: row.external_id,
            customer_email: row.customer_email,
            customer_name: row.customer_name,
            items: row.items.0,
            total_value: currency.amount(row.total_minor),
            currency,
            status: row.status.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
            abandoned_at: row.abandoned_at,
            recovered_at: row.recovered_at,
            expired_at: row.expired_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// Expands to one statement for each status, because each status has its own index. Each statement
/// starts where the previous batch ended, so every batch costs the same.
macro_rules! batch_of {
    ($conn:expr, $position:expr, $limit:expr, $carts:tt) => {
        sqlx::query_as!(
            Row,
            r#"
            select id as "id!", external_id as "external_id?", customer_email as "customer_email!",
                   customer_name as "customer_name!", items as "items!: Json<Box<RawValue>>",
                   total_minor as "total_minor!", currency as "currency!", status as "status!",
                   abandoned_at as "abandoned_at!", recovered_at as "recovered_at?", expired_at as "expired_at?",
                   created_at as "created_at!", updated_at as "updated_at!"
            from "#
                + $carts
                + r#" and (created_at, id) > (coalesce($1::timestamptz, '-infinity'), coalesce($2::text, ''))
              and created_at < coalesce($3::timestamptz, 'infinity')
            order by created_at, id
            limit $4
            "#,
            $position.from,
            $position.after_id,
            $position.to,
            $limit,
        )
        .fetch_all($conn)
        .await
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
            r#"(
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
            ) carts where true"#
        ),
        Some(CartStatus::Abandoned) => batch_of!(conn, position, limit, "carts where status = 'abandoned'"),
        Some(CartStatus::Recovered) => batch_of!(conn, position, limit, "carts where status = 'recovered'"),
        Some(CartStatus::Expired) => batch_of!(conn, position, limit, "carts where status = 'expired'"),
    };
    rows?.into_iter().map(ExportedCart::try_from).collect()
}
