//! Giving up carts that are too old.

use chrono::{DateTime, Utc};

use crate::db::Connection;
use crate::payment_links;

/// Expires up to `limit` carts that were abandoned before `cutoff`, oldest
/// first, and closes their sessions. Several workers share the work.
///
/// Spared: carts whose recovery link is still good, and those whose payment is under way.
/// Answers how many were looked at and how many expired.
pub async fn expire_older_than(
    conn: &mut Connection,
    cutoff: DateTime<Utc>,
    limit: i64,
    now: DateTime<Utc>,
) -> sqlx::Result<Expired> {
    let locked = sqlx::query_scalar!(
        r#"
        select id from carts
        where status = 'abandoned' and abandoned_at < $1
          and not exists (select from recovery_links where cart_id = carts.id and expires_at > $3)
          and not exists (select from payment_links where cart_id = carts.id and status = 'processing')
        order by abandoned_at
        limit $2
        for no key update skip locked
        "#,
        cutoff,
        limit,
        now,
    )
    .fetch_all(&mut *conn)
    .await?;
    // Asked again under the lock, by a statement with a snapshot of its own: a
    // link may have been asked for between the first look and the lock.
    let expired = sqlx::query_scalar!(
        r#"
        update carts set status = 'expired', expired_at = $3, updated_at = $3
        where id = any ($1) and status = 'abandoned' and abandoned_at < $2
          and not exists (select from recovery_links where cart_id = carts.id and expires_at > $3)
          and not exists (select from payment_links where cart_id = carts.id and status = 'processing')
        returning id
        "#,
        &locked,
        cutoff,
        now,
    )
    .fetch_all(&mut *conn)
    .await?;
    payment_links::close_all(conn, &expired, now).await?;
    Ok(Expired { looked_at: locked.len(), expired: expired.len() })
}

/// What one batch of expiry did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// Carts that seemed due.
    pub looked_at: usize,
    /// Carts that were.
    pub expired: usize,
}
