//! The search for a lost session. Its progress is stored, so that each attempt continues the last.

use chrono::{DateTime, Utc};

use crate::db::Connection;

/// A search through Stripe's list of sessions, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// When reading the list began. Sessions created later may be missing.
    pub began_at: DateTime<Utc>,
    /// Id of the last session that was read; `None` if the end of the list was reached.
    pub after: Option<String>,
}

/// The stored search for this request's session; `None` if none was started.
pub async fn search(conn: &mut Connection, cart_id: &str, version: i32) -> sqlx::Result<Option<Search>> {
    let row = sqlx::query!(
        "select search_began_at, search_after from payment_links where cart_id = $1 and version = $2",
        cart_id,
        version,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.and_then(|row| Some(Search { began_at: row.search_began_at?, after: row.search_after })))
}

/// Stores the progress of a search; `None` restarts it. `updated_at` stays, because it bounds the
/// search.
pub async fn save_search(
    conn: &mut Connection,
    cart_id: &str,
    version: i32,
    search: Option<&Search>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update payment_links set search_began_at = $3, search_after = $4 where cart_id = $1 and version = $2",
        cart_id,
        version,
        search.map(|search| search.began_at),
        search.and_then(|search| search.after.as_deref()),
    )
    .execute(conn)
    .await?;
    Ok(())
}
