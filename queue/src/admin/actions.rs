//! What operators do to jobs and queues.

use std::collections::HashSet;

use serde::Serialize;

use super::inspect::{self, JobFilter, JobState, JobSummary};
use crate::{db::Connection, job::JobId, sql::CHANNEL};

/// How many dead jobs one statement brings back.
const RETRY_BATCH: usize = 1_000;
const CANCELLED: &str = "cancelled by an operator";
/// The constraint that a job meets whose unique key another unfinished one has.
const UNIQUE_KEY: &str = "jobs_unique_key";

/// What became of a lever that was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActionOutcome {
    /// It is done; this is the job now.
    Done(JobSummary),
    /// There is no such job (any more).
    NotFound,
    /// The job's state does not allow it.
    WrongState(JobState),
    /// The same job is queued already.
    AlreadyQueued,
}

/// dead → ready, with all its attempts before it again.
pub async fn retry(conn: &mut Connection, id: JobId) -> sqlx::Result<ActionOutcome> {
    let retried = sqlx::query_scalar!(
        r#"
        update jobs set state = 'pending', attempts = 0, run_at = now(), finished_at = null
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
    if let Some(queue) = &queue {
        wake(&mut *conn, queue).await?;
    }
    outcome(conn, id, queue.is_some()).await
}

/// Anything unfinished → dead. What runs is dropped by its worker at its next renewal.
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

/// Which dead jobs to bring back.
#[derive(Debug, Clone, Default)]
pub struct DeadFilter {
    /// Of this queue.
    pub queue: String,
    /// Only of this kind.
    pub kind: Option<String>,
    /// Only those whose last error has this in it.
    pub error: Option<String>,
}

/// What bringing back many did, or would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetriedMany {
    /// Dead jobs that the filter fits.
    pub matched: usize,
    /// Those that are ready now; none in a dry run.
    pub retried: usize,
    /// Those left dead, because the same job is queued already.
    pub already_queued: usize,
}

/// Brings back all dead jobs that `filter` fits; in a dry run it only counts them. Within a transaction.
pub async fn retry_dead(conn: &mut Connection, filter: &DeadFilter, dry_run: bool) -> sqlx::Result<RetriedMany> {
    let dead = sqlx::query!(
        r#"
        select id, unique_key from jobs
        where state = 'dead' and queue = $1 and ($2::text is null or kind = $2)
          and ($3::text is null or strpos(lower(last_error), lower($3)) > 0)
        order by id desc
        "#,
        filter.queue,
        filter.kind,
        filter.error,
    )
    .fetch_all(&mut *conn)
    .await?;
    let matched = dead.len();
    if dry_run {
        return Ok(RetriedMany { matched, retried: 0, already_queued: 0 });
    }
    // Of several with one key the newest comes back.
    let mut keys = HashSet::new();
    let chosen: Vec<JobId> = dead
        .into_iter()
        .filter(|job| job.unique_key.clone().is_none_or(|key| keys.insert(key)))
        .map(|job| job.id)
        .collect();
    let mut retried = 0;
    for batch in chosen.chunks(RETRY_BATCH) {
        retried += retry_batch(&mut *conn, batch).await?;
    }
    wake(conn, &filter.queue).await?;
    Ok(RetriedMany { matched, retried, already_queued: matched - retried })
}

/// Answers how many came back. A job that is queued under the same key in this
/// very moment spoils the statement; the next one sees it.
async fn retry_batch(conn: &mut Connection, batch: &[JobId]) -> sqlx::Result<usize> {
    loop {
        sqlx::raw_sql("savepoint batch").execute(&mut *conn).await?;
        let updated = sqlx::query!(
            r#"
            update jobs set state = 'pending', attempts = 0, run_at = now(), finished_at = null
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

/// What cancelling many did, or would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelledMany {
    /// Unfinished jobs that the filter fits.
    pub matched: i64,
    /// Those that are dead now; none in a dry run.
    pub cancelled: i64,
}

/// Cancels all unfinished jobs that `filter` fits, as [`cancel`] does one; in a dry run it only
/// counts them, up to [`inspect::COUNT_LIMIT`]. A filter for a state that is finished fits none.
pub async fn cancel_many(conn: &mut Connection, filter: &JobFilter, dry_run: bool) -> sqlx::Result<CancelledMany> {
    let unfinished = [JobState::Scheduled, JobState::Ready, JobState::Retrying, JobState::Running];
    let states: Vec<JobState> =
        unfinished.into_iter().filter(|state| filter.state.is_none_or(|s| s == *state)).collect();
    if dry_run {
        let mut matched = 0;
        for state in states {
            matched += inspect::count(conn, &JobFilter { queue: filter.queue.clone(), state: Some(state) }).await?;
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
          and case when state = 'running' then 'running' when run_at <= now() then 'ready'
                   when attempts > 0 then 'retrying' else 'scheduled' end = any ($2)
        "#,
        filter.queue,
        &states as &[&str],
        CANCELLED,
    )
    .execute(conn)
    .await?
    .rows_affected();
    let cancelled = i64::try_from(cancelled).unwrap_or(i64::MAX);
    Ok(CancelledMany { matched: cancelled, cancelled })
}

/// From now on no worker takes a job of this queue; what runs goes on.
pub async fn pause(conn: &mut Connection, queue: &str) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        insert into queues (name, paused_at) values ($1, now())
        on conflict (name) do update set paused_at = coalesce(queues.paused_at, now())
        "#,
        queue,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Workers take its jobs again.
pub async fn resume(conn: &mut Connection, queue: &str) -> sqlx::Result<()> {
    sqlx::query!("update queues set paused_at = null where name = $1", queue).execute(&mut *conn).await?;
    wake(conn, queue).await
}

async fn wake(conn: &mut Connection, queue: &str) -> sqlx::Result<()> {
    sqlx::query!("select pg_notify($1, $2)", CHANNEL, queue).execute(conn).await?;
    Ok(())
}
