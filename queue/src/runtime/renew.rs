//! Renews the leases of this process, and returns jobs of lost workers to the queue.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

use super::{lease::Held, state::Shared};
use crate::{db::timeout::with_timeout, job::JobId, sql};

/// Interval between checks for expired leases.
const REAP_EVERY: Duration = Duration::from_secs(1);
/// Maximum number of jobs that one statement returns to the queue.
const REAP_BATCH: i64 = 500;
/// A job that was running each time when so many workers were lost is taken for the cause, and is
/// dead.
const MAX_INTERRUPTIONS: i32 = 10;
/// The error of an attempt whose lease expired.
const WORKER_LOST: &str = "interrupted: the worker that ran it was lost";

/// Renews all held leases in one statement, on its own timer. Drops the runs of leases that this
/// process no longer has, or that expired because renewing failed.
pub(crate) async fn renew(shared: Arc<Shared>) {
    let mut ticks = interval(shared.config.renew_every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.closing.cancelled() => return,
        }
        let held = shared.held();
        if held.is_empty() {
            continue;
        }
        let until = Instant::now() + shared.config.lease;
        // Without a timeout, an unresponsive Postgres would delay the detection of expired leases.
        let renewal = tokio::time::timeout(shared.config.renew_every, renew_once(&shared, &held)).await;
        match renewal.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
            Ok(ours) => {
                shared.renewed(&ours, until);
                let ours: HashSet<JobId> = ours.into_iter().collect();
                for held in held.iter().filter(|held| !ours.contains(&held.lease.id)) {
                    shared.lose(&held.lease);
                }
            }
            Err(error) => {
                tracing::warn!(%error, jobs = held.len(), "could not renew leases");
                for held in held.iter().filter(|held| held.until <= Instant::now()) {
                    shared.lose(&held.lease);
                }
            }
        }
    }
}

/// Returns the ids of the jobs in `held` whose lease this process still has. A locked row is not
/// renewed: its outcome is being written or it is being taken, and the next round sees the result.
async fn renew_once(shared: &Shared, held: &[Held]) -> sqlx::Result<Vec<JobId>> {
    let ids: Vec<Uuid> = held.iter().map(|held| held.lease.id).collect();
    let tokens: Vec<Uuid> = held.iter().map(|held| held.lease.token).collect();
    let mut conn = shared.database.acquire().await?;
    let ours = sqlx::query_scalar!(
        r#"
        with ours as (
            select jobs.id from unnest($1::uuid[], $2::uuid[]) as held (id, token)
            join jobs on jobs.id = held.id and jobs.lease_token = held.token
        ), free as (
            select jobs.id from jobs where id = any (array(select id from ours)) order by id for update skip locked
        ), renewed as (
            update jobs set lease_until = now() + $3 where id = any (array(select id from free)) and lease_token = any ($2)
        )
        select id from ours
        "#,
        &ids,
        &tokens,
        sql::interval(shared.config.lease),
    )
    .fetch_all(&mut conn)
    .await?;
    conn.commit().await?;
    Ok(ours)
}

/// Makes jobs with an expired lease ready again, or dead after [`MAX_INTERRUPTIONS`]. The attempt
/// does not count.
pub(crate) async fn reap(shared: Arc<Shared>) {
    let mut ticks = interval(REAP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.stopping.cancelled() => return,
        }
        match with_timeout(shared.config.renew_every, reap_once(&shared)).await {
            Ok(0) => {}
            Ok(jobs) => {
                tracing::warn!(jobs, "took back jobs of a lost worker");
                shared.jobs.notify_one();
            }
            // The fetcher logs the same failure as a warning.
            Err(error) => tracing::debug!(%error, "could not look for lost workers"),
        }
    }
}

async fn reap_once(shared: &Shared) -> sqlx::Result<u64> {
    let mut conn = shared.database.acquire().await?;
    let result = sqlx::query!(
        r#"
        with lost as materialized (
            select id from jobs
            where state = 'running' and lease_until < now()
            order by id
            limit $1
            for update skip locked
        )
        update jobs
        set state = case when interruptions + 1 >= $3 then 'dead' else 'pending' end,
            finished_at = case when interruptions + 1 >= $3 then now() end,
            attempts = attempts - 1, interruptions = interruptions + 1,
            run_at = now(), lease_token = null, lease_until = null,
            last_error = $2,
            attempt_log = attempt_log || jsonb_build_object(
                'attempt', attempts, 'startedAt', started_at, 'endedAt', now(), 'worker', worker, 'error', $2::text)
        where id = any (array(select id from lost))
        "#,
        REAP_BATCH,
        WORKER_LOST,
        MAX_INTERRUPTIONS,
    )
    .execute(&mut conn)
    .await?;
    conn.commit().await?;
    Ok(result.rows_affected())
}
