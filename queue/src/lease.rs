//! Keeping what is ours, and taking back what a lost worker held.

use std::{
    collections::HashSet,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

use crate::{
    fetch,
    job::JobId,
    patience::in_time,
    runtime::{Held, Shared},
};

/// How often to look for leases that ran out.
const REAP_EVERY: Duration = Duration::from_secs(1);
/// How many one statement takes back.
const REAP_BATCH: i64 = 500;
const WORKER_LOST: &str = "the worker that ran it was lost";

/// The right to run a job; travels with it through apalis.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) id: JobId,
    pub(crate) token: Uuid,
    ended: AtomicBool,
    lost: AtomicBool,
    run: AtomicWaker,
}

impl Lease {
    pub(crate) fn new(id: JobId, token: Uuid) -> Arc<Self> {
        Arc::new(Self {
            id,
            token,
            ended: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            run: AtomicWaker::new(),
        })
    }

    /// Whether this call is the one that ends the run: an outcome, or the loss of the lease, counts once.
    pub(crate) fn is_ended_here(&self) -> bool {
        !self.ended.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Drops the job's future.
    pub(crate) fn lose(&self) {
        self.lost.store(true, Ordering::Release);
        self.run.wake();
    }

    /// Returns when the lease is found lost; the run alone waits for that.
    pub(crate) async fn lost(&self) {
        poll_fn(|cx| {
            self.run.register(cx.waker());
            if self.lost.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Renews everything held in one statement, on a timer of its own.
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
        // A Postgres that neither answers nor refuses must not stop the clock.
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

/// Answers which of `held` are still ours. A row that somebody has locked is
/// left alone: it is being acknowledged or taken, and the next round tells.
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
        fetch::interval(shared.config.lease),
    )
    .fetch_all(&mut conn)
    .await?;
    conn.commit().await?;
    Ok(ours)
}

/// Makes jobs whose lease ran out ready again, or dead if they had their attempts.
pub(crate) async fn reap(shared: Arc<Shared>) {
    let mut ticks = interval(REAP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.stopping.cancelled() => return,
        }
        match in_time(shared.config.renew_every, reap_once(&shared)).await {
            Ok(0) => {}
            Ok(jobs) => {
                tracing::warn!(jobs, "took back jobs of a lost worker");
                shared.wake.notify_one();
            }
            // The fetcher says the same louder.
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
        set state = case when attempts >= max_attempts then 'dead' else 'pending' end,
            finished_at = case when attempts >= max_attempts then now() end,
            run_at = now(), lease_token = null, lease_until = null,
            last_error = $2,
            attempt_log = attempt_log || jsonb_build_object(
                'attempt', attempts, 'startedAt', started_at, 'endedAt', now(), 'worker', worker, 'error', $2::text)
        where id = any (array(select id from lost))
        "#,
        REAP_BATCH,
        WORKER_LOST,
    )
    .execute(&mut conn)
    .await?;
    conn.commit().await?;
    Ok(result.rows_affected())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_run_ends_once() {
        let lease = Lease::new(Uuid::now_v7(), Uuid::new_v4());
        assert!(!lease.is_ended());
        assert!(lease.is_ended_here());
        assert!(lease.is_ended());
        assert!(!lease.is_ended_here(), "an outcome after the loss, or a loss after the outcome, counts for nothing");
    }

    #[tokio::test]
    async fn who_waits_for_a_loss_is_woken_by_it_and_who_comes_later_is_told() {
        let lease = Lease::new(Uuid::now_v7(), Uuid::new_v4());
        assert!(lease.lost().now_or_never().is_none());
        let waiting = tokio::spawn({
            let lease = lease.clone();
            async move { lease.lost().await }
        });
        tokio::task::yield_now().await; // it waits
        lease.lose();
        waiting.await.unwrap();
        lease.lost().await;
    }
}
