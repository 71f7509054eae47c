//! Deletes finished jobs after their retention, in small batches.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use super::state::Shared;
use crate::sql;

const EVERY: Duration = Duration::from_secs(60);
/// Maximum number of done jobs, and of dead ones, that one statement deletes.
const BATCH: i64 = 1_000;

pub(crate) async fn run(shared: Arc<Shared>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.stopping.cancelled() => return,
        }
        while !shared.stopping.is_cancelled() {
            match delete_batch(&shared).await {
                Ok(deleted) if deleted >= BATCH.unsigned_abs() => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::debug!(%error, "could not delete finished jobs");
                    break;
                }
            }
        }
    }
}

async fn delete_batch(shared: &Shared) -> sqlx::Result<u64> {
    let mut conn = shared.database.acquire().await?;
    let result = sqlx::query!(
        r#"
        delete from jobs where id = any (
            array(select id from jobs
                  where state = 'done' and finished_at < now() - $1::interval
                  order by finished_at limit $3 for update skip locked)
            || array(select id from jobs
                     where state = 'dead' and finished_at < now() - $2::interval
                     order by finished_at limit $3 for update skip locked))
        "#,
        sql::interval(shared.config.retention.done),
        sql::interval(shared.config.retention.dead),
        BATCH,
    )
    .execute(&mut conn)
    .await?;
    conn.commit().await?;
    Ok(result.rows_affected())
}
