//! Putting jobs into the queue, in the caller's transaction.

use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    db::Connection,
    job::{Job, JobId},
    sql::{CHANNEL, interval},
    telemetry,
};

/// When a job runs and what it stands for.
#[derive(Debug, Clone, Copy, Default)]
pub struct EnqueueOptions {
    /// Not before this moment; `None` means now.
    pub run_at: Option<DateTime<Utc>>,
    /// … and so much later, by Postgres' clock.
    pub delay: Duration,
    /// The tick of a schedule it stands for.
    pub slot: Option<DateTime<Utc>>,
}

/// Queues `job`, to run as soon as the caller's transaction has committed.
///
/// `None`: a job with the same unique key is queued already.
pub async fn enqueue<J: Job>(conn: &mut Connection, job: &J) -> sqlx::Result<Option<JobId>> {
    enqueue_with(conn, job, EnqueueOptions::default()).await
}

/// Queues `job` for later, or for a slot.
///
/// `None`: a job with the same unique key is queued already.
pub async fn enqueue_with<J: Job>(
    conn: &mut Connection,
    job: &J,
    options: EnqueueOptions,
) -> sqlx::Result<Option<JobId>> {
    insert_all(conn, std::slice::from_ref(job), options).await.map(|ids| ids.first().copied())
}

/// Queues many jobs of a kind in one statement; answers the ids of those that were not queued already.
pub async fn enqueue_many<J: Job>(conn: &mut Connection, jobs: &[J]) -> sqlx::Result<Vec<JobId>> {
    insert_all(conn, jobs, EnqueueOptions::default()).await
}

async fn insert_all<J: Job>(conn: &mut Connection, jobs: &[J], options: EnqueueOptions) -> sqlx::Result<Vec<JobId>> {
    let ids: Vec<Uuid> = jobs.iter().map(|_| Uuid::now_v7()).collect();
    let payloads = jobs
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    let unique_keys: Vec<Option<String>> = jobs.iter().map(Job::unique_key).collect();
    // NOTIFY serialises commits, so it is sent once a statement, and not at all
    // where a job that became ready within the last second has not been taken
    // yet: whoever was woken for that one looks again before it goes to sleep.
    sqlx::query_scalar!(
        r#"
        with added as (
            insert into jobs (id, queue, kind, payload, max_attempts, run_at, slot, unique_key, trace_context)
            select new.id, $1, $2, new.payload, $3, coalesce($4, now()) + $10, $5, new.unique_key, $11
            from unnest($6::uuid[], $7::jsonb[], $8::text[]) as new (id, payload, unique_key)
            on conflict (unique_key) where unique_key is not null and state in ('pending', 'running') do nothing
            returning id
        ), poked as (
            select pg_notify($9, $1)
            where exists (select from added)
              and not exists (
                select from jobs
                where queue = $1 and state = 'pending' and run_at between now() - interval '1 second' and now())
        )
        select added.id from added, (select count(*) from poked) poke
        "#,
        J::QUEUE,
        J::KIND,
        J::MAX_ATTEMPTS,
        options.run_at,
        options.slot,
        &ids,
        &payloads,
        &unique_keys as &[Option<String>],
        CHANNEL,
        interval(options.delay),
        telemetry::current_context(),
    )
    .fetch_all(conn)
    .await
}
