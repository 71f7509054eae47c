//! Looks every second, in one statement, for what no notification reports: jobs of lost workers,
//! and jobs that are ready although no notification came. The same transaction writes the heartbeat
//! when it is due. While nothing happens, it is the only one that the queue begins each second.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use tokio::time::{MissedTickBehavior, interval};

use super::{heartbeat, notify::Reconnect, scan::SLACK, state::Shared};
use crate::{
    db::{Connection, timeout::with_timeout},
    sql,
};

/// Interval between checks for expired leases.
const REAP_EVERY: Duration = Duration::from_secs(1);
/// Maximum number of jobs that one statement returns to the queue.
const REAP_BATCH: i64 = 500;
/// A job that was running each time when so many workers were lost is taken for the cause, and is
/// dead.
const MAX_INTERRUPTIONS: i32 = 10;
/// The error of an attempt whose lease expired.
const WORKER_LOST: &str = "interrupted: the worker that ran it was lost";

/// A look at the whole index of pending and running jobs is followed by a pause of as many times its
/// duration. While a snapshot is open (a backup), Postgres can't remove the entries of jobs that
/// have ended, so that it takes long.
const PAUSE_FACTOR: u32 = 20;

/// Polls until the runtime stops. Wakes the fetcher if a job is ready.
pub(crate) async fn run(shared: Arc<Shared>) {
    let every = REAP_EVERY.min(shared.config.poll_every);
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reconnect = Reconnect::new("looking for jobs");
    let (mut looked_at, mut beat_at): (Option<Instant>, Option<Instant>) = (None, None);
    let mut whole_from = Instant::now();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.stopping.cancelled() => break,
        }
        let now = Instant::now();
        // Half an interval of tolerance, because ticks are not exact.
        let is_due = |last: Option<Instant>, each| last.is_none_or(|last| now - last + every / 2 >= each);
        let tasks = Tasks {
            for_ready: is_due(looked_at, shared.config.poll_every),
            whole: now >= whole_from,
            heartbeat: is_due(beat_at, heartbeat::EVERY),
        };
        match with_timeout(shared.config.renew_every, poll(&shared, tasks)).await {
            Ok(found) => {
                reconnect.worked();
                shared.database.is_writable();
                if tasks.for_ready {
                    looked_at = Some(now);
                }
                if tasks.whole {
                    whole_from = Instant::now() + now.elapsed() * PAUSE_FACTOR;
                }
                if tasks.heartbeat {
                    beat_at = Some(now);
                }
                if found.lost > 0 {
                    tracing::warn!(jobs = found.lost, "took back jobs of a lost worker");
                }
                for (queue, run_at) in &found.ready {
                    shared.starts.found(queue, *run_at);
                }
                if found.lost > 0 || !found.ready.is_empty() {
                    shared.jobs.notify_one();
                }
            }
            Err(error) => reconnect.failed(&error, &shared.stopping).await,
        }
    }
    heartbeat::leave(&shared).await;
}

/// What a poll does besides.
#[derive(Debug, Clone, Copy)]
struct Tasks {
    /// Looks for ready jobs.
    for_ready: bool,
    /// Looks for jobs of lost workers, and for all ready jobs, not only those of the last [`SLACK`].
    whole: bool,
    /// Writes the heartbeat.
    heartbeat: bool,
}

async fn poll(shared: &Shared, tasks: Tasks) -> sqlx::Result<Found> {
    let mut conn = if tasks.heartbeat { shared.database.begin().await? } else { shared.database.acquire().await? };
    let found = look(&mut conn, shared, tasks).await?;
    if tasks.heartbeat {
        heartbeat::beat(&mut conn, shared).await?;
    }
    conn.commit().await?;
    Ok(found)
}

struct Found {
    /// Number of jobs that were returned to the queue.
    lost: i64,
    /// Queues with a ready job that this process may take, each with the `run_at` of the first one.
    ready: Vec<(String, DateTime<Utc>)>,
}

/// Makes jobs with an expired lease ready again, or dead after [`MAX_INTERRUPTIONS`], and looks for
/// ready jobs. The attempt of a lost worker does not count.
///
/// `for update` makes a read-only server reject the statement, also if no lease has expired.
async fn look(conn: &mut Connection, shared: &Shared, tasks: Tasks) -> sqlx::Result<Found> {
    let sinks = if tasks.for_ready && shared.free_permits() > 0 { shared.accepting_sinks() } else { Vec::new() };
    let queues: BTreeSet<&str> = sinks.iter().map(|sink| sink.queue()).collect();
    let queues: Vec<String> = queues.into_iter().map(str::to_owned).collect();
    let kinds: Vec<String> = sinks.iter().map(|sink| sink.kind().to_owned()).collect();
    let found = sqlx::query!(
        r#"
        with lost as materialized (
            select id from jobs
            where $6 and state = 'running' and lease_until < now()
            order by id
            limit $1
            for update skip locked
        ), reaped as (
            update jobs
            set state = case when interruptions + 1 >= $3 then 'dead' else 'pending' end,
                finished_at = case when interruptions + 1 >= $3 then now() end,
                attempts = attempts - 1, interruptions = interruptions + 1,
                run_at = now(), lease_token = null, lease_until = null,
                last_error = $2,
                attempt_log = attempt_log || jsonb_build_object(
                    'attempt', attempts, 'startedAt', started_at, 'endedAt', now(), 'worker', worker, 'error', $2::text)
            where id = any (array(select id from lost))
            returning id
        ), ready as materialized (
            select served.queue, first.run_at
            from unnest($4::text[]) as served (queue)
            cross join lateral (
                select run_at from jobs
                where queue = served.queue and kind = any ($5) and state = 'pending' and run_at <= now()
                  and run_at >= case when $6 then '-infinity' else now() - $7::interval end
                  and not exists (select from queues where name = served.queue and paused_at is not null)
                order by run_at
                limit 1
            ) first
        )
        select (select count(*) from reaped) as "lost!",
               array(select queue from ready order by queue) as "queues!: Vec<String>",
               array(select run_at from ready order by queue) as "run_at!: Vec<DateTime<Utc>>"
        "#,
        REAP_BATCH,
        WORKER_LOST,
        MAX_INTERRUPTIONS,
        &queues,
        &kinds,
        tasks.whole,
        sql::interval(SLACK),
    )
    .fetch_one(conn)
    .await?;
    Ok(Found { lost: found.lost, ready: found.queues.into_iter().zip(found.run_at).collect() })
}
