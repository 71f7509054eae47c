//! Putting jobs into the queue, in the caller's transaction.

use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    connection::Connection,
    fetch::interval,
    job::{Job, JobId},
    telemetry,
};

/// The channel that wakes workers; the payload is the queue's name.
pub(crate) const CHANNEL: &str = "jobs";

/// When a job runs and what it stands for.
#[derive(Debug, Clone, Copy, Default)]
pub struct EnqueueOptions {
    /// Not before this moment; `None` means now.
    pub run_at: Option<DateTime<Utc>>,
    /// … and so much later, by Postgres' clock.
    pub delay: Duration,
    /// The tick of a schedule it stands for.
    pub slot: Option<DateTime<Utc>>,
    /// Wakes nobody: the caller does so with [`wake`] once the transaction has
    /// committed. Postgres lets transactions that notify commit one after the
    /// other, each with a wait for the disk of its own, so where many hurry that is faster.
    pub quiet: bool,
}

/// Wakes the workers of `J`'s queue: for after a transaction that enqueued quietly.
pub async fn wake<J: Job>(conn: &mut Connection) -> sqlx::Result<()> {
    // A transaction that only notifies does not wait for the disk.
    sqlx::query!("select pg_notify($1, $2)", CHANNEL, J::QUEUE).execute(conn).await?;
    Ok(())
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

/// A job, and where whoever asked for it stands in its trace (see [`telemetry::current_context`]).
pub type Traced<J> = (J, Option<String>);

/// Queues jobs that were asked for by different callers; answers the id of each,
/// `None` where a job with the same unique key is queued already.
pub async fn enqueue_each<J: Job>(
    conn: &mut Connection,
    jobs: &[Traced<J>],
    options: EnqueueOptions,
) -> sqlx::Result<Vec<Option<JobId>>> {
    let (ids, traces): (Vec<Uuid>, Vec<Option<String>>) =
        jobs.iter().map(|(_, trace)| (Uuid::now_v7(), trace.clone())).unzip();
    let added = insert(conn, &ids, jobs.iter().map(|(job, _)| job), &traces, options).await?;
    Ok(ids.into_iter().map(|id| added.contains(&id).then_some(id)).collect())
}

async fn insert_all<J: Job>(conn: &mut Connection, jobs: &[J], options: EnqueueOptions) -> sqlx::Result<Vec<JobId>> {
    let ids: Vec<Uuid> = jobs.iter().map(|_| Uuid::now_v7()).collect();
    let traces = vec![telemetry::current_context(); jobs.len()];
    insert(conn, &ids, jobs.iter(), &traces, options).await
}

async fn insert<'j, J: Job + 'j>(
    conn: &mut Connection,
    ids: &[Uuid],
    jobs: impl Iterator<Item = &'j J> + Clone,
    traces: &[Option<String>],
    options: EnqueueOptions,
) -> sqlx::Result<Vec<JobId>> {
    let payloads = jobs
        .clone()
        .map(serde_json::to_value)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    let unique_keys: Vec<Option<String>> = jobs.map(Job::unique_key).collect();
    // NOTIFY serialises commits, so it is sent once a statement, and not at all
    // where a job that became ready within the last second has not been taken
    // yet: whoever was woken for that one looks again before it goes to sleep.
    sqlx::query_scalar!(
        r#"
        with added as (
            insert into jobs (id, queue, kind, payload, max_attempts, run_at, slot, unique_key, trace_context)
            select new.id, $1, $2, new.payload, $3, coalesce($4, now()) + $10, $5, new.unique_key, new.trace
            from unnest($6::uuid[], $7::jsonb[], $8::text[], $11::text[]) as new (id, payload, unique_key, trace)
            on conflict (unique_key) where unique_key is not null and state in ('pending', 'running') do nothing
            returning id
        ), poked as (
            select pg_notify($9, $1)
            where not $12 and exists (select from added)
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
        ids,
        &payloads,
        &unique_keys as &[Option<String>],
        CHANNEL,
        interval(options.delay),
        traces as &[Option<String>],
        options.quiet,
    )
    .fetch_all(conn)
    .await
}
