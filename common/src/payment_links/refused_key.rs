//! Jobs that wait because Stripe does not accept the key.

use crate::db::Connection;

/// The beginning of the error of a call that Stripe refused because of the key: it is unknown or
/// revoked (401), or lacks a right (403).
pub const KEY_REFUSED: &str = "Stripe does not accept STRIPE_SECRET_KEY";
/// The maximum number of waiting jobs to look at.
const LIMIT: i64 = 1_000;

/// The jobs that wait for a key that Stripe accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedKey {
    /// Their number, at most 1,000.
    pub jobs: i64,
    /// The error of one, which begins with [`KEY_REFUSED`] and states what to do.
    pub error: String,
}

/// The jobs that wait because Stripe does not accept the key; `None` if there are none. Reads at most
/// 1,000 jobs, those that run last.
pub async fn refused_key(conn: &mut Connection) -> sqlx::Result<Option<RefusedKey>> {
    let row = sqlx::query!(
        r#"
        select count(*) as "jobs!", max(last_error) as error
        from (select last_error from jobs
              where queue = 'payment-links' and state = 'pending' order by run_at desc, id desc limit $2) waiting
        where starts_with(last_error, $1)
        "#,
        KEY_REFUSED,
        LIMIT,
    )
    .fetch_one(conn)
    .await?;
    Ok(row.error.map(|error| RefusedKey { jobs: row.jobs, error }))
}
