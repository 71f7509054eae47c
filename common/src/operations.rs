//! Operators' actions. Most are the queue's functions, re-exported so that the api does not depend on
//! the queue.

use chrono::{DateTime, Utc};

pub use queue::{
    ActionOutcome, COUNT_LIMIT, CancelledMany, DEAD_LIMIT, DiscardedJob, FailedAttempt, JobFilter, JobState,
    JobSummary, QueueHealth, QueueSummary, RetriedMany, RunByHand, ScheduleStatus, Throughput, WorkerStatus, cancel,
    cancel_many, change_token, count, count_by_state, find, history, list, pause, queue_health, queues, resume, retry,
    retry_dead, run_schedule, schedules, throughput, workers,
};

use crate::{db::Connection, payment_links};

/// Deletes a done or dead job, and gives up the payment link that waited for it. `None` if there is no
/// such job. `conn` must be in a transaction.
pub async fn discard(
    conn: &mut Connection,
    id: queue::JobId,
    now: DateTime<Utc>,
) -> sqlx::Result<Option<DiscardedJob>> {
    let discarded = queue::discard(conn, id).await?;
    payment_links::give_up_links_of(conn, discarded.as_slice(), now).await?;
    Ok(discarded)
}

/// The maximum number of jobs that [`discard_dead`] deletes at once.
const DISCARD_BATCH: i64 = 1_000;

/// Like [`discard`], for at most 1,000 dead jobs that match `filter`, except for its state. Returns
/// their number; 0 if none is left.
pub async fn discard_dead(conn: &mut Connection, filter: &JobFilter, now: DateTime<Utc>) -> sqlx::Result<usize> {
    let discarded = queue::discard_dead(conn, filter, DISCARD_BATCH).await?;
    payment_links::give_up_links_of(conn, &discarded, now).await?;
    Ok(discarded.len())
}
