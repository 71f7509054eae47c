//! All carts, oldest first, a batch at a time.

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

/// A cart as it leaves: what an import takes, and what this store knows of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExportedCart {
    /// Its name here.
    pub id: String,
    /// Its name at the client.
    #[schema(required)]
    pub external_id: Option<String>,
    /// Where the shopper can be reached.
    pub customer_email: String,
    /// The shopper.
    pub customer_name: String,
    /// What is in it, as it was stored.
    #[schema(value_type = Vec<Item>)]
    pub items: Box<RawValue>,
    /// The server's own sum.
    pub total_value: Amount,
    /// Of `total_value` and every price.
    pub currency: Currency,
    /// What became of it.
    pub status: CartStatus,
    /// When the shopper left it.
    pub abandoned_at: DateTime<Utc>,
    /// When it was paid.
    #[schema(required)]
    pub recovered_at: Option<DateTime<Utc>>,
    /// When it grew too old.
    #[schema(required)]
    pub expired_at: Option<DateTime<Utc>>,
    /// When it was stored here.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// Which carts, and from where on.
#[derive(Debug, Clone)]
pub struct Position {
    status: Option<CartStatus>,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
    /// The one that was exported last, of those created at `from`.
    after_id: Option<String>,
}

impl Position {
    /// Before the first cart with this status, created at `from` or later, and before `to`.
    pub fn start(status: Option<CartStatus>, from: Option<DateTime<Utc>>, to: Option<DateTime<Utc>>) -> Self {
        Self { status, from, to, after_id: None }
    }

    /// Goes on after `cart`.
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

/// One statement for each status, each with an index of its own, which is read
/// from where the last batch ended: a batch costs the same wherever it is.
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

/// At most `limit` carts from `position` on, oldest first.
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
