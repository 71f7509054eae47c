//! Webhooks that failed verification, so that a wrong secret is seen before money goes unnoticed.

use chrono::{DateTime, NaiveDate, Utc};

use crate::db::Connection;

/// So many, and when the last one came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// How many.
    pub count: i64,
    /// The newest.
    pub last_at: DateTime<Utc>,
}

/// Adds to the day of `refused.last_at`.
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

/// Those since the beginning of `day`; `None`: all webhooks were good.
pub async fn since(conn: &mut Connection, day: NaiveDate) -> sqlx::Result<Option<Refused>> {
    let row = sqlx::query!(
        "select sum(count)::bigint as count, max(last_at) as last_at from refused_webhooks where day >= $1",
        day
    )
    .fetch_one(conn)
    .await?;
    Ok(row.count.zip(row.last_at).map(|(count, last_at)| Refused { count, last_at }))
}
