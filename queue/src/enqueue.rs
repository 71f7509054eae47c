//! Inserts jobs in the caller's transaction.

use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    db::Connection,
    job::{Job, JobId},
    sql::{CHANNEL, interval},
    telemetry,
};

/// When a job runs, and which occurrence of a schedule it belongs to.
#[derive(Debug, Clone, Copy, Default)]
pub struct EnqueueOptions {
    /// Earliest start; `None`, or a time in the past, means now.
    pub run_at: Option<DateTime<Utc>>,
    /// Added to `run_at`.
    pub delay: Duration,
    /// The time of the schedule's occurrence; `None` for jobs without a schedule.
    pub slot: Option<DateTime<Utc>>,
}

/// Queues `job` to run as soon as the caller's transaction has committed.
///
/// Returns `None` if an unfinished job has the same unique key.
pub async fn enqueue<J: Job>(conn: &mut Connection, job: &J) -> sqlx::Result<Option<JobId>> {
    enqueue_with(conn, job, EnqueueOptions::default()).await
}

/// Queues `job` to run later, or for an occurrence of a schedule.
///
/// Returns `None` if an unfinished job has the same unique key.
pub async fn enqueue_with<J: Job>(
    conn: &mut Connection,
    job: &J,
    options: EnqueueOptions,
) -> sqlx::Result<Option<JobId>> {
    let traces = [telemetry::current_context()];
    insert_all(conn, std::slice::from_ref(job), &traces, options).await.map(|ids| ids.first().copied())
}

/// Queues many jobs of one kind in one statement. Returns the ids of the inserted jobs; jobs whose
/// unique key an unfinished job has are skipped.
pub async fn enqueue_many<J: Job>(conn: &mut Connection, jobs: &[J]) -> sqlx::Result<Vec<JobId>> {
    let traces = vec![telemetry::current_context(); jobs.len()];
    insert_all(conn, jobs, &traces, EnqueueOptions::default()).await
}

/// Like [`enqueue_many`], for jobs of different requests: each continues the trace at its place
/// ([`telemetry::current_context`]).
pub async fn enqueue_traced<J: Job>(
    conn: &mut Connection,
    jobs: &[J],
    traces: &[Option<String>],
    options: EnqueueOptions,
) -> sqlx::Result<Vec<JobId>> {
    insert_all(conn, jobs, traces, options).await
}

async fn insert_all<J: Job>(
    conn: &mut Connection,
    jobs: &[J],
    traces: &[Option<String>],
    options: EnqueueOptions,
) -> sqlx::Result<Vec<JobId>> {
    let ids: Vec<Uuid> = jobs.iter().map(|_| Uuid::now_v7()).collect();
    let payloads = jobs
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    let unique_keys: Vec<Option<String>> = jobs.iter().map(Job::unique_key).collect();
    let subjects: Vec<Option<String>> = jobs.iter().map(Job::subject).collect();
    let added = sqlx::query_scalar!(
        r#"
        insert into jobs (id, queue, kind, payload, max_attempts, run_at, slot, unique_key, trace_context, subject)
        select new.id, $1, $2, new.payload, $3, greatest($4, now()) + $9, $5, new.unique_key, new.trace_context, new.subject
        from unnest($6::uuid[], $7::jsonb[], $8::text[], $10::text[], $11::text[])
            as new (id, payload, unique_key, trace_context, subject)
        on conflict (unique_key) where unique_key is not null and state in ('pending', 'running') do nothing
        returning id
        "#,
        J::QUEUE,
        J::KIND,
        J::MAX_ATTEMPTS,
        options.run_at,
        options.slot,
        &ids,
        &payloads,
        &unique_keys as &[Option<String>],
        interval(options.delay),
        traces as &[Option<String>],
        &subjects as &[Option<String>],
    )
    .fetch_all(&mut *conn)
    .await?;
    if !added.is_empty() {
        conn.notify(CHANNEL, J::QUEUE);
    }
    Ok(added)
}
