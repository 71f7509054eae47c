//! How far the search for a lost session has come: kept, so that an attempt goes on where the last one ended.

use chrono::{DateTime, Utc};

use crate::db::Connection;

/// A search through Stripe's list of sessions, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// When the list was read from its beginning: sessions made later are not in it.
    pub began_at: DateTime<Utc>,
    /// The last session that was read; `None`: the list was read to its end.
    pub after: Option<String>,
}

/// The search for the session of this request, if one was begun.
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

/// Keeps the progress of a search; `None` begins it anew. (`updated_at` stays: it limits what is searched.)
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
