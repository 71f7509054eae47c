//! Exports carts in batches, oldest first.

use chrono::{DateTime, Utc};

use super::cart::select_carts;
use crate::{
    carts::{Cart, CartStatus},
    db::Connection,
};

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
    pub fn advance(&mut self, cart: &Cart) {
        self.from = Some(cart.created_at);
        self.after_id = Some(cart.id.clone());
    }
}

/// Expands to one statement for each status, because each status has its own index. Each statement
/// starts where the previous batch ended, so every batch costs the same.
macro_rules! batch_of {
    ($conn:expr, $position:expr, $limit:expr, $now:expr, $carts:tt) => {
        select_carts!(
            $conn,
            ["(" + $carts + ") carts"],
            r#"
            where (created_at, id) > (coalesce($2::timestamptz, '-infinity'), coalesce($3::text, ''))
              and created_at < coalesce($4::timestamptz, 'infinity')
            order by created_at, id
            limit $5
            "#,
            $now,
            $position.from,
            $position.after_id,
            $position.to,
            $limit,
        )
    };
}

/// At most `limit` carts after `position`, oldest first, with the payment links that work at `now`.
pub async fn batch(
    conn: &mut Connection,
    position: &Position,
    limit: i64,
    now: DateTime<Utc>,
) -> sqlx::Result<Vec<Cart>> {
    match position.status {
        // The oldest of each status, merged.
        None => batch_of!(
            conn,
            position,
            limit,
            now,
            r#"
                (select * from carts
                 where status = 'abandoned'
                   and (created_at, id) > (coalesce($2::timestamptz, '-infinity'), coalesce($3::text, ''))
                   and created_at < coalesce($4::timestamptz, 'infinity')
                 order by created_at, id limit $5)
                union all
                (select * from carts
                 where status = 'recovered'
                   and (created_at, id) > (coalesce($2::timestamptz, '-infinity'), coalesce($3::text, ''))
                   and created_at < coalesce($4::timestamptz, 'infinity')
                 order by created_at, id limit $5)
                union all
                (select * from carts
                 where status = 'expired'
                   and (created_at, id) > (coalesce($2::timestamptz, '-infinity'), coalesce($3::text, ''))
                   and created_at < coalesce($4::timestamptz, 'infinity')
                 order by created_at, id limit $5)
            "#
        ),
        Some(CartStatus::Abandoned) => {
            batch_of!(conn, position, limit, now, "select * from carts where status = 'abandoned'")
        }
        Some(CartStatus::Recovered) => {
            batch_of!(conn, position, limit, now, "select * from carts where status = 'recovered'")
        }
        Some(CartStatus::Expired) => {
            batch_of!(conn, position, limit, now, "select * from carts where status = 'expired'")
        }
    }
}
