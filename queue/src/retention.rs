//! Deleting finished jobs, a little at a time.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use crate::{database::Database, fetch, runtime::Shared};

const EVERY: Duration = Duration::from_secs(60);
const BATCH: i64 = 1_000;

/// How long finished jobs are kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Those that ended well.
    pub done: Duration,
    /// Those that somebody may want to look at.
    pub dead: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self { done: DAY, dead: 30 * DAY }
    }
}

pub(crate) async fn run(shared: Arc<Shared>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.stopping.cancelled() => return,
        }
        for (state, age) in [("done", shared.config.retention.done), ("dead", shared.config.retention.dead)] {
            while !shared.stopping.is_cancelled() {
                match delete_batch(&shared.database, state, age).await {
                    Ok(deleted) if deleted == BATCH.unsigned_abs() => {}
                    Ok(_) => break,
                    Err(error) => {
                        tracing::debug!(%error, "could not delete finished jobs");
                        break;
                    }
                }
            }
        }
    }
}

async fn delete_batch(database: &Database, state: &str, age: Duration) -> sqlx::Result<u64> {
    let mut conn = database.acquire().await?;
    let result = sqlx::query!(
        r#"
        delete from jobs where id = any (array(
            select id from jobs
            where state = $1 and state in ('done', 'dead') and finished_at < now() - $2::interval
            order by finished_at
            limit $3
            for update skip locked))
        "#,
        state,
        fetch::interval(age),
        BATCH,
    )
    .execute(&mut conn)
    .await?;
    conn.commit().await?;
    Ok(result.rows_affected())
}
