//! Fetches jobs for free permits: one statement takes a batch, counts the attempts and sets the
//! lease.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use tokio::{sync::Notify, time::Instant};
use uuid::Uuid;

use super::{
    lease::Lease,
    notify::Reconnect,
    scan::SLACK,
    state::{Fetched, JobSink, Shared},
};
use crate::{
    db::{Connection, timeout::with_timeout},
    job::{Attempt, JobId},
    outcome::Outcome,
    sql::interval,
    telemetry::{self, TraceContext},
};

/// How long the fetcher waits for a notification after it took all ready jobs, before it looks for
/// the next scheduled job. Without LISTEN, the first of the intervals at which it looks for jobs;
/// the last is that of `poll.rs`. A scheduled job that becomes due meanwhile starts this much later.
const SOON: Duration = Duration::from_millis(20);

/// The longest wait for a scheduled job; tokio's timers end after two years.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// How long a full fetch waits for quick jobs to free more permits.
const GATHER: Duration = Duration::from_millis(1);

/// Fetches jobs for the free permits, until the runtime stops: at once while there are more jobs than
/// permits, otherwise when a job is notified of, found by polling (`poll.rs`), or becomes due.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut reconnect = Reconnect::new("fetching jobs");
    let poll_every = shared.config.poll_every;
    let mut pause = poll_every;
    let (mut take, mut taken_at) = (true, Instant::now());
    while !shared.stopping.is_cancelled() {
        // If Postgres does not respond, this fails and is retried.
        if take {
            taken_at = Instant::now();
        }
        let fetched = with_timeout(shared.config.renew_every, fetch_once(&shared, take, taken_at)).await;
        take = true;
        match fetched {
            Ok(Looked::Took { full, again }) => {
                reconnect.worked();
                pause = SOON;
                match full {
                    true => gather(&shared).await,
                    false if again => {}
                    // With LISTEN, no job has come if no notification has.
                    false => take = wait(&shared, &shared.jobs, pause).await || !shared.database.listens(),
                }
            }
            Ok(Looked::NoWorker) => drop(wait(&shared, &shared.jobs, poll_every).await),
            Ok(Looked::NoPermit) => drop(wait(&shared, &shared.permits, poll_every).await),
            Ok(Looked::Nothing { next_due }) => {
                reconnect.worked();
                let look_again = if shared.database.listens() || pause >= poll_every { LONGEST } else { pause };
                wait(&shared, &shared.jobs, next_due.map_or(look_again, |due| due.min(look_again))).await;
                pause = pause.saturating_mul(4);
            }
            Err(error) => reconnect.failed(&error, &shared.stopping).await,
        }
    }
}

/// Waits up to [`GATHER`] for all permits to be free. More jobs are ready than there were permits:
/// if they are quick, the next statement fills all permits instead of a few.
async fn gather(shared: &Shared) {
    let gathered = tokio::time::timeout(GATHER, async {
        while shared.free_permits() < shared.config.concurrency {
            shared.permits.notified().await;
        }
    });
    let _ = gathered.await; // don't wait longer for permits of slow jobs
}

/// Returns whether it was woken.
async fn wait(shared: &Shared, wake: &Notify, at_most: Duration) -> bool {
    tokio::select! {
        () = wake.notified() => true,
        () = tokio::time::sleep(at_most) => false,
        () = shared.stopping.cancelled() => false,
    }
}

enum Looked {
    /// `full` if there may be more ready jobs than permits; `again` if jobs before the start of
    /// this fetch may be ready.
    Took {
        full: bool,
        again: bool,
    },
    /// No worker accepts jobs.
    NoWorker,
    NoPermit,
    Nothing {
        next_due: Option<Duration>,
    },
}

/// Takes jobs, and looks for the next scheduled one if there are none. Without `take_jobs`, only
/// looks. `taken_at` is when jobs were taken last.
async fn fetch_once(shared: &Arc<Shared>, take_jobs: bool, taken_at: Instant) -> sqlx::Result<Looked> {
    let sinks = shared.accepting_sinks();
    let free = shared.free_permits();
    if sinks.is_empty() {
        return Ok(Looked::NoWorker);
    }
    if free == 0 {
        return Ok(Looked::NoPermit);
    }
    let mut queues: Vec<String> = sinks.iter().map(|sink| sink.queue().to_owned()).collect();
    queues.sort_unstable();
    queues.dedup();
    let kinds: Vec<String> = sinks.iter().map(|sink| sink.kind().to_owned()).collect();

    let token = Uuid::new_v4();
    let until = Instant::now() + shared.config.lease;
    let mut conn = shared.database.acquire().await?;
    let jobs = match take_jobs {
        true => take(&mut conn, &queues, &kinds, free, token, shared).await?,
        false => Vec::new(),
    };
    let full = jobs.len() == free;
    let again = take_jobs && !full && shared.starts.all_taken(&queues);
    if jobs.is_empty() && !again {
        let next_due = next_due_in(&mut conn, &queues, taken_at.elapsed()).await?;
        conn.commit().await?;
        return Ok(Looked::Nothing { next_due });
    }
    conn.commit().await?;
    let place = |job: &Fetched| Some((sinks.get(job.sink)?.queue(), job.run_at, job.id));
    shared.starts.took(jobs.iter().filter_map(place), full);
    deliver(shared, &sinks, jobs, token, until);
    Ok(Looked::Took { full, again })
}

fn deliver(shared: &Arc<Shared>, sinks: &[Arc<dyn JobSink>], jobs: Vec<Fetched>, token: Uuid, until: Instant) {
    let leases: Vec<Arc<Lease>> = jobs.iter().map(|job| Lease::new(job.id, token)).collect();
    shared.hold(leases.iter().cloned(), until);
    let mut by_sink: Vec<Vec<(Fetched, Arc<Lease>)>> = sinks.iter().map(|_| Vec::new()).collect();
    for (job, lease) in jobs.into_iter().zip(leases) {
        match by_sink.get_mut(job.sink) {
            Some(jobs) => jobs.push((job, lease)),
            None => shared.end(&lease, Outcome::NotBegun), // unreachable: the query selects only these kinds
        }
    }
    for (sink, jobs) in sinks.iter().zip(by_sink).filter(|(_, jobs)| !jobs.is_empty()) {
        for (lease, why) in sink.deliver(jobs) {
            telemetry::finished(sink.queue(), sink.kind(), "dead");
            shared.end(&lease, Outcome::Dead { error: format!("unreadable payload: {why}") });
        }
        if shared.stopping.is_cancelled() {
            shared.give_back(sink.recall());
        }
    }
}

/// Takes up to `limit` due jobs, distributed evenly over the queues.
///
/// The commit is asynchronous. If a crash of Postgres loses the lease, the job is ready again and
/// runs a second time, which handlers must tolerate anyway; the lease token rejects the first run's
/// outcome. Commits of outcomes and of new jobs are synchronous.
async fn take(
    conn: &mut Connection,
    queues: &[String],
    kinds: &[String],
    limit: usize,
    token: Uuid,
    shared: &Shared,
) -> sqlx::Result<Vec<Fetched>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let starts = shared.starts.of(queues);
    let run_at: Vec<_> = starts.iter().map(|start| start.run_at).collect();
    let id: Vec<_> = starts.iter().map(|start| start.id).collect();
    let recent: Vec<_> = starts.iter().map(|start| start.recent).collect();
    let rows = sqlx::query!(
        r#"
        with lightly as materialized (
            select set_config('synchronous_commit', 'off', true)
        ), due as materialized (
            select ready.place, ready.at
            from unnest($1::text[], $7::timestamptz[], $8::uuid[], $10::timestamptz[]) as served (queue, start_at, start_id, recent)
            cross join lateral (
                select locked.at, row_number() over () as place
                from (
                    select ctid as at from jobs
                    where (select true from lightly)
                      and queue = served.queue and kind = any ($2) and state = 'pending' and run_at <= now()
                      and (run_at, id) >= (
                          case when start_id is not null then start_at
                               when start_at is not null then least(start_at, now() - $9::interval)
                               else greatest(recent, now() - $9::interval) end,
                          coalesce(start_id, '00000000-0000-0000-0000-000000000000'))
                      and not exists (select from queues where name = served.queue and paused_at is not null)
                    order by run_at, id
                    limit $3
                    for update skip locked
                ) locked
            ) ready
            order by ready.place
            limit $3
        )
        update jobs
        set state = 'running', attempts = attempts + 1, started_at = now(),
            lease_token = $4, lease_until = now() + $5, worker = $6
        where ctid = any (array(select at from due))
        returning id, run_at, array_position($2, kind) as "sink!", payload::text as "payload!", attempts, max_attempts, trace_context
        "#,
        queues,
        kinds,
        limit,
        token,
        interval(shared.config.lease),
        shared.config.worker,
        &run_at as &[Option<DateTime<Utc>>],
        &id as &[Option<JobId>],
        interval(SLACK),
        &recent as &[Option<DateTime<Utc>>],
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Fetched {
            id: row.id,
            run_at: row.run_at,
            sink: usize::try_from(row.sink - 1).unwrap_or(usize::MAX),
            payload: row.payload,
            attempt: Attempt { number: row.attempts, max: row.max_attempts },
            asked_by: TraceContext(row.trace_context),
        })
        .collect())
}

/// Time until the next scheduled job of these queues is due; `None` if there is none. Zero if one
/// became due within the time since jobs were taken last.
async fn next_due_in(conn: &mut Connection, queues: &[String], since: Duration) -> sqlx::Result<Option<Duration>> {
    let milliseconds = sqlx::query_scalar!(
        r#"
        select (extract(epoch from min(next.run_at) - clock_timestamp()) * 1000)::float8
        from unnest($1::text[]) as served (queue)
        cross join lateral (
            select run_at from jobs
            where queue = served.queue and state = 'pending' and run_at > now() - $2::interval
            order by run_at
            limit 1
        ) next
        "#,
        queues,
        interval(since),
    )
    .fetch_one(conn)
    .await?;
    Ok(milliseconds.map(|milliseconds| Duration::from_secs_f64((milliseconds.max(0.0) + 1.0) / 1000.0)))
}
