//! Actions of operators on jobs and queues.

use std::collections::HashSet;

use serde::Serialize;

use super::inspect::{self, JobFilter, JobState, JobSummary};
use crate::{db::Connection, job::JobId, sql::CHANNEL};

/// Maximum number of dead jobs that one statement retries.
const RETRY_BATCH: usize = 1_000;
/// The last error of jobs that an operator cancelled.
pub const CANCELLED: &str = "cancelled by an operator";
/// The constraint that allows one unfinished job per unique key.
const UNIQUE_KEY: &str = "jobs_unique_key";

/// Result of an action on one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActionOutcome {
    /// The action succeeded; holds the job after it.
    Done(JobSummary),
    /// The job does not exist, or was deleted.
    NotFound,
    /// The job's state does not allow the action.
    WrongState(JobState),
    /// An unfinished job has the same unique key.
    AlreadyQueued,
}

/// Makes a dead job ready, with its attempts reset to 0.
pub async fn retry(conn: &mut Connection, id: JobId) -> sqlx::Result<ActionOutcome> {
    let retried = sqlx::query_scalar!(
        r#"
        update jobs set state = 'pending', attempts = 0, interruptions = 0, run_at = now(), finished_at = null
        where id = $1 and state = 'dead'
        returning queue
        "#,
        id,
    )
    .fetch_optional(&mut *conn)
    .await;
    let queue = match retried {
        Err(error) if is_taken(&error) => return Ok(ActionOutcome::AlreadyQueued),
        other => other?,
    };
    let is_retried = queue.is_some();
    if let Some(queue) = queue {
        conn.notify(CHANNEL, queue);
    }
    outcome(conn, id, is_retried).await
}

/// Makes an unfinished job dead. If it is running, its worker drops it at the next lease renewal.
pub async fn cancel(conn: &mut Connection, id: JobId) -> sqlx::Result<ActionOutcome> {
    let cancelled = sqlx::query!(
        r#"
        update jobs
        set state = 'dead', finished_at = now(), lease_token = null, lease_until = null, last_error = $2,
            attempt_log = case when state = 'running' then attempt_log || jsonb_build_object(
                'attempt', attempts, 'startedAt', started_at, 'endedAt', now(), 'worker', worker, 'error', $2::text)
                else attempt_log end
        where id = $1 and state in ('pending', 'running')
        "#,
        id,
        CANCELLED,
    )
    .execute(&mut *conn)
    .await?
    .rows_affected();
    outcome(conn, id, cancelled == 1).await
}

async fn outcome(conn: &mut Connection, id: JobId, happened: bool) -> sqlx::Result<ActionOutcome> {
    Ok(match inspect::find(conn, id).await? {
        Some(job) if happened => ActionOutcome::Done(job),
        Some(job) => ActionOutcome::WrongState(job.state),
        None => ActionOutcome::NotFound,
    })
}

fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.constraint() == Some(UNIQUE_KEY))
}

/// Result of retrying many jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetriedMany {
    /// Number of dead jobs that match the filter.
    pub matched: usize,
    /// Number of jobs made ready; 0 in a dry run.
    pub retried: usize,
    /// Number of jobs left dead because an identical job is already queued; 0 in a dry run.
    #[schema(example = 0)]
    pub already_queued: usize,
}

/// Retries all dead jobs that match `filter`, except for its state; a dry run only counts them.
/// `conn` must be in a transaction.
pub async fn retry_dead(conn: &mut Connection, filter: &JobFilter, dry_run: bool) -> sqlx::Result<RetriedMany> {
    let dead = sqlx::query!(
        r#"
        select id, queue, unique_key from jobs
        where state = 'dead' and ($1::text is null or queue = $1) and ($2::text is null or kind = $2)
          and ($3::text is null or strpos(lower(last_error), lower($3)) > 0) and ($4::text is null or subject = $4)
        order by id desc
        "#,
        filter.queue,
        filter.kind,
        filter.error,
        filter.subject,
    )
    .fetch_all(&mut *conn)
    .await?;
    let matched = dead.len();
    if dry_run {
        return Ok(RetriedMany { matched, retried: 0, already_queued: 0 });
    }
    // Of several jobs with the same unique key, only the newest is retried.
    let mut keys = HashSet::new();
    let (mut chosen, mut queues): (Vec<JobId>, HashSet<String>) = (Vec::new(), HashSet::new());
    for job in dead {
        if job.unique_key.is_none_or(|key| keys.insert(key)) {
            chosen.push(job.id);
            queues.insert(job.queue);
        }
    }
    let mut retried = 0;
    for batch in chosen.chunks(RETRY_BATCH) {
        retried += retry_batch(&mut *conn, batch).await?;
    }
    for queue in queues {
        conn.notify(CHANNEL, queue);
    }
    Ok(RetriedMany { matched, retried, already_queued: matched - retried })
}

/// Returns the number of retried jobs. Runs the statement again if a job with the same unique key
/// is queued concurrently.
async fn retry_batch(conn: &mut Connection, batch: &[JobId]) -> sqlx::Result<usize> {
    loop {
        sqlx::raw_sql("savepoint batch").execute(&mut *conn).await?;
        let updated = sqlx::query!(
            r#"
            update jobs set state = 'pending', attempts = 0, interruptions = 0, run_at = now(), finished_at = null
            where id = any ($1) and state = 'dead'
              and not exists (
                select from jobs other
                where other.unique_key = jobs.unique_key and other.state in ('pending', 'running'))
            "#,
            batch,
        )
        .execute(&mut *conn)
        .await;
        match updated {
            Err(error) if is_taken(&error) => {
                sqlx::raw_sql("rollback to savepoint batch").execute(&mut *conn).await?;
            }
            other => return Ok(usize::try_from(other?.rows_affected()).unwrap_or(usize::MAX)),
        }
    }
}

/// Result of cancelling many jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({"matched": 12, "cancelled": 12}))]
pub struct CancelledMany {
    /// Number of unfinished jobs that match the filter; a dry run stops counting at 100,000 for each state.
    pub matched: i64,
    /// Number of cancelled jobs; 0 in a dry run.
    pub cancelled: i64,
}

/// Cancels all unfinished jobs that match `filter`, like [`cancel`]. A dry run only counts them, at
/// most [`inspect::COUNT_LIMIT`] per state. A filter for a finished state matches none.
pub async fn cancel_many(conn: &mut Connection, filter: &JobFilter, dry_run: bool) -> sqlx::Result<CancelledMany> {
    let unfinished = [JobState::Scheduled, JobState::Ready, JobState::Retrying, JobState::Running];
    let states: Vec<JobState> =
        unfinished.into_iter().filter(|state| filter.state.is_none_or(|s| s == *state)).collect();
    if dry_run {
        let mut matched = 0;
        for state in states {
            matched += inspect::count(conn, &JobFilter { state: Some(state), ..filter.clone() }).await?;
        }
        return Ok(CancelledMany { matched, cancelled: 0 });
    }
    let states: Vec<&str> = states.into_iter().map(JobState::as_str).collect();
    let cancelled = sqlx::query!(
        r#"
        update jobs
        set state = 'dead', finished_at = now(), lease_token = null, lease_until = null, last_error = $3,
            attempt_log = case when state = 'running' then attempt_log || jsonb_build_object(
                'attempt', attempts, 'startedAt', started_at, 'endedAt', now(), 'worker', worker, 'error', $3::text)
                else attempt_log end
        where state in ('pending', 'running') and ($1::text is null or queue = $1)
          and ($4::text is null or kind = $4) and ($5::text is null or strpos(lower(last_error), lower($5)) > 0)
          and ($6::text is null or subject = $6)
          and case when state = 'running' then 'running' when run_at <= now() then 'ready'
                   when attempts > 0 then 'retrying' else 'scheduled' end = any ($2)
        "#,
        filter.queue,
        &states as &[&str],
        CANCELLED,
        filter.kind,
        filter.error,
        filter.subject,
    )
    .execute(conn)
    .await?
    .rows_affected();
    let cancelled = i64::try_from(cancelled).unwrap_or(i64::MAX);
    Ok(CancelledMany { matched: cancelled, cancelled })
}

/// A finished job that was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscardedJob {
    /// Id of the job.
    pub id: JobId,
    /// Id of what the job was about; `None` if it was about nothing in particular.
    pub subject: Option<String>,
    /// Its most recent error; `None` if there was none.
    pub last_error: Option<String>,
}

/// Deletes a done or dead job before its retention ends. `None` if there is no such job.
pub async fn discard(conn: &mut Connection, id: JobId) -> sqlx::Result<Option<DiscardedJob>> {
    sqlx::query_as!(
        DiscardedJob,
        "delete from jobs where id = $1 and state in ('done', 'dead') returning id, subject, last_error",
        id,
    )
    .fetch_optional(conn)
    .await
}

/// Deletes at most `limit` dead jobs that match `filter`, except for its state.
pub async fn discard_dead(conn: &mut Connection, filter: &JobFilter, limit: i64) -> sqlx::Result<Vec<DiscardedJob>> {
    sqlx::query_as!(
        DiscardedJob,
        r#"
        delete from jobs
        where state = 'dead' and id = any (array(
            select id from jobs
            where state = 'dead' and ($1::text is null or queue = $1) and ($2::text is null or kind = $2)
              and ($3::text is null or strpos(lower(last_error), lower($3)) > 0) and ($4::text is null or subject = $4)
            limit $5
            for update skip locked))
        returning id, subject, last_error
        "#,
        filter.queue,
        filter.kind,
        filter.error,
        filter.subject,
        limit,
    )
    .fetch_all(conn)
    .await
}

/// Pauses a queue: workers take no more jobs from it. Running jobs continue. `false` if it was paused
/// before.
pub async fn pause(conn: &mut Connection, queue: &str) -> sqlx::Result<bool> {
    let paused = sqlx::query!(
        r#"
        insert into queues (name, paused_at) values ($1, now())
        on conflict (name) do update set paused_at = now() where queues.paused_at is null
        "#,
        queue,
    )
    .execute(conn)
    .await?;
    Ok(paused.rows_affected() == 1)
}

/// Resumes a paused queue. `false` if it was not paused.
pub async fn resume(conn: &mut Connection, queue: &str) -> sqlx::Result<bool> {
    let resumed = sqlx::query!("update queues set paused_at = null where name = $1 and paused_at is not null", queue)
        .execute(&mut *conn)
        .await?;
    conn.notify(CHANNEL, queue);
    Ok(resumed.rows_affected() == 1)
}
