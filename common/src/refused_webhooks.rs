//! Counts webhooks that failed verification, so that a wrong secret is noticed before payments are
//! missed.

use chrono::{DateTime, NaiveDate, Utc};

use crate::db::Connection;

/// The number of refused webhooks in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// The number of webhooks.
    pub count: i64,
    /// When the newest one was received.
    pub last_at: DateTime<Utc>,
}

/// Adds the count to the day of `refused.last_at`.
pub async fn add(conn: &mut Connection, refused: Refused) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        insert into refused_webhooks (day, count, last_at) values ($1, $2, $3)
        on conflict (day) do update set count = refused_webhooks.count + excluded.count,
            last_at = greatest(refused_webhooks.last_at, excluded.last_at)
        "#,
        refused.last_at.date_naive(),
        refused.count,
        refused.last_at,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The refused webhooks since the beginning of `day`; `None` if there were none.
pub async fn since(conn: &mut Connection, day: NaiveDate) -> sqlx::Result<Option<Refused>> {
    let row = sqlx::query!(
        "select sum(count)::bigint as count, max(last_at) as last_at from refused_webhooks where day >= $1",
        day
    )
    .fetch_one(conn)
    .await?;
    Ok(row.count.zip(row.last_at).map(|(count, last_at)| Refused { count, last_at }))
}
