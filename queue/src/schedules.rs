//! Schedules. Every worker proposes the occurrences ("slots") that are due; the primary key of
//! `schedule_slots` admits each one once.
//!
//! Only Postgres' clock is used, so workers whose clocks differ can't run an occurrence twice.

use std::time::Duration;
use strum::IntoStaticStr;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::{
    db::{Connection, Database, timeout::with_timeout},
    enqueue::{EnqueueOptions, enqueue_with},
    job::{Job, JobId},
    sql::{CHANNEL, interval},
    telemetry,
};

/// A cron expression with seconds, in UTC.
pub type Cron = cron::Schedule;

/// Maximum interval between two checks. A longer gap means that no worker was running.
const LOOK_EVERY: TimeDelta = TimeDelta::minutes(5);
/// A check that is late by more than this follows an outage.
const LATE: TimeDelta = TimeDelta::seconds(15);
/// An occurrence that has been due for longer than this and has not started is overdue.
const OVERDUE_AFTER: TimeDelta = TimeDelta::minutes(2);
/// Timeout of one check.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum number of occurrences that one check admits; the next check continues.
const SLOTS_AT_ONCE: usize = 500;

/// Which occurrences to run after an outage, during which no worker was running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum CatchUp {
    /// Run once, for the latest occurrence.
    Latest,
    /// Run once for each occurrence.
    All,
}

impl CatchUp {
    fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A recurring job.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Unique name, the key in the database.
    pub name: &'static str,
    /// The times of its occurrences.
    pub cron: Cron,
    /// Which missed occurrences to run after an outage.
    pub catch_up: CatchUp,
}

impl Schedule {
    /// The occurrences to admit: those after `last`, the newest one admitted so far. `looked_at` is
    /// the time of the last check by any worker.
    fn due(
        &self,
        now: DateTime<Utc>,
        last: Option<DateTime<Utc>>,
        looked_at: Option<DateTime<Utc>>,
    ) -> Vec<DateTime<Utc>> {
        let latest = latest_slot(&self.cron, now).filter(|latest| last.is_none_or(|last| *latest > last));
        let Some((latest, last)) = latest.map(|latest| (latest, last)) else { return Vec::new() };
        let Some(last) = last else { return vec![latest] }; // the first occurrence; none was missed
        if self.catch_up == CatchUp::Latest && looked_at.is_none_or(|looked_at| now > self.next_look(looked_at) + LATE)
        {
            return vec![latest];
        }
        self.cron.after(&last).take_while(|slot| *slot <= now).take(SLOTS_AT_ONCE).collect()
    }

    /// The time of the check that follows one at `looked_at`.
    fn next_look(&self, looked_at: DateTime<Utc>) -> DateTime<Utc> {
        let longest = looked_at + LOOK_EVERY;
        next_slot(&self.cron, looked_at).map_or(longest, |next| next.min(longest))
    }
}

/// The last occurrence at or before `now`; `None` if there is none.
pub fn latest_slot(cron: &Cron, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    // The iterator excludes its start, and occurrences are whole seconds.
    cron.after(&(now + TimeDelta::milliseconds(1))).next_back()
}

/// The first occurrence after `now`; `None` if there is none.
pub fn next_slot(cron: &Cron, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    cron.after(&now).next()
}

/// Queues `job` once for each occurrence that is due and not admitted yet. Returns the time to wait
/// until the next check.
///
/// # Errors
/// Database errors, and an I/O error of kind `TimedOut` after 15 s.
pub async fn propose<J: Job>(database: &Database, schedule: &Schedule, job: &J) -> sqlx::Result<Duration> {
    with_timeout(TIMEOUT, propose_once(database, schedule, job)).await
}

async fn propose_once<J: Job>(database: &Database, schedule: &Schedule, job: &J) -> sqlx::Result<Duration> {
    let payload = serde_json::to_value(job).map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    let mut tx = database.begin().await?;
    // Postgres ends the session of a process that freezes here, so that it does not block others.
    let look = sqlx::query!(
        r#"
        select clock_timestamp() as "now!", (select looked_at from schedules where name = $1) as looked_at,
               (select max(slot) from schedule_slots where schedule = $1) as last_slot,
               set_config('idle_in_transaction_session_timeout', '5000', true) as idle_timeout
        "#,
        schedule.name,
    )
    .fetch_one(&mut tx)
    .await?;
    let due = schedule.due(look.now, look.last_slot, look.looked_at);
    for slot in &due {
        admit(&mut tx, schedule, *slot, job).await?;
    }
    sqlx::query!(
        r#"
        insert into schedules (name, cron, catch_up, queue, job, looked_at)
        values ($1, $2, $3, $4, jsonb_build_object('kind', $5::text, 'payload', $6::jsonb, 'maxAttempts', $7::smallint),
                clock_timestamp())
        on conflict (name) do update set cron = excluded.cron, catch_up = excluded.catch_up, queue = excluded.queue,
            job = excluded.job, looked_at = excluded.looked_at
        "#,
        schedule.name,
        schedule.cron.source(),
        schedule.catch_up.as_str(),
        J::QUEUE,
        J::KIND,
        payload,
        J::MAX_ATTEMPTS,
    )
    .execute(&mut tx)
    .await?;
    tx.commit().await?;
    if due.len() == SLOTS_AT_ONCE {
        return Ok(Duration::ZERO); // there may be more
    }
    Ok((schedule.next_look(look.now) - look.now).to_std().unwrap_or_default())
}

/// Admits one occurrence and queues its job, unless a worker has already done so.
async fn admit<J: Job>(tx: &mut Connection, schedule: &Schedule, slot: DateTime<Utc>, job: &J) -> sqlx::Result<()> {
    let admitted = sqlx::query!(
        "insert into schedule_slots (schedule, slot) values ($1, $2) on conflict do nothing",
        schedule.name,
        slot,
    )
    .execute(&mut *tx)
    .await?
    .rows_affected();
    if admitted == 0 {
        return Ok(());
    }
    let waiting = match schedule.catch_up {
        CatchUp::Latest => coalesce_into_waiting(tx, schedule.name, J::QUEUE, slot).await?,
        CatchUp::All => None,
    };
    let job_id = match waiting {
        Some(id) => Some(id),
        None => enqueue_with(tx, job, EnqueueOptions { slot: Some(slot), ..EnqueueOptions::default() }).await?,
    };
    sqlx::query!(
        "update schedule_slots set job_id = $3 where schedule = $1 and slot = $2",
        schedule.name,
        slot,
        job_id,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// If the schedule's job has waited for more than a minute (its queue is paused, or no worker
/// serves it), moves that job to the new occurrence, so that jobs do not pile up. Returns its id;
/// `None` if no such job waits.
async fn coalesce_into_waiting(
    tx: &mut Connection,
    schedule: &str,
    queue: &str,
    slot: DateTime<Utc>,
) -> sqlx::Result<Option<JobId>> {
    sqlx::query_scalar!(
        r#"
        update jobs set slot = $3
        where id = (
            select id from jobs
            where queue = $1 and state = 'pending' and attempts = 0 and run_at < now() - interval '1 minute'
              and exists (
                select from schedule_slots waiting
                where waiting.schedule = $2 and waiting.slot = jobs.slot and waiting.job_id = jobs.id)
            order by run_at
            limit 1
            for update skip locked)
        returning id
        "#,
        queue,
        schedule,
        slot,
    )
    .fetch_optional(tx)
    .await
}

/// Result of [`run_schedule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunByHand {
    /// The job was queued.
    Queued(JobId),
    /// This job of the schedule waits or runs. Nothing was queued.
    InProgress(JobId),
    /// This job of the schedule waits, because its queue is paused. Nothing was queued.
    Paused(JobId),
    /// No running version defines such a schedule.
    NotFound,
}

/// Queues a schedule's job now, besides its occurrences, which stay as they are. `conn` must be in a
/// transaction.
pub async fn run_schedule(conn: &mut Connection, name: &str) -> sqlx::Result<RunByHand> {
    // The lock makes concurrent calls queue one job.
    let schedule = sqlx::query!(
        r#"
        select queue, job->>'kind' as "kind!", job->'payload' as "payload!", (job->>'maxAttempts')::smallint as "max_attempts!",
               run_by_hand
        from schedules
        where name = $1 and job ? 'kind'
          and looked_at > (select max(looked_at) from schedules) - interval '1 day'
        for update
        "#,
        name,
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(schedule) = schedule else { return Ok(RunByHand::NotFound) };
    let in_progress = sqlx::query!(
        r#"
        select id, state = 'pending' and exists (select from queues where name = $2 and paused_at is not null) as "is_paused!"
        from jobs
        where queue = $2 and state in ('pending', 'running')
          and (id = $3 or slot is not null and exists (
                select from schedule_slots admitted
                where admitted.schedule = $1 and admitted.slot = jobs.slot and admitted.job_id = jobs.id))
        order by state = 'running' desc, run_at
        limit 1
        "#,
        name,
        schedule.queue,
        schedule.run_by_hand,
    )
    .fetch_optional(&mut *conn)
    .await?;
    if let Some(job) = in_progress {
        return Ok(if job.is_paused { RunByHand::Paused(job.id) } else { RunByHand::InProgress(job.id) });
    }
    let id = JobId::now_v7();
    sqlx::query!(
        r#"
        with run as (update schedules set run_by_hand = $1 where name = $2)
        insert into jobs (id, queue, kind, payload, max_attempts, trace_context) values ($1, $3, $4, $5, $6, $7)
        "#,
        id,
        name,
        schedule.queue,
        schedule.kind,
        schedule.payload,
        schedule.max_attempts,
        telemetry::current_context(),
    )
    .execute(&mut *conn)
    .await?;
    conn.notify(CHANNEL, schedule.queue);
    Ok(RunByHand::Queued(id))
}

/// Status of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Schedule)]
pub struct ScheduleStatus {
    /// Name of the schedule.
    #[schema(example = "expire_carts")]
    pub name: String,
    /// Cron expression with seconds, in UTC, as configured in the worker that checked last.
    #[schema(example = "0 0 * * * *")]
    pub cron: String,
    /// After an outage, run the `latest` missed occurrence or `all` of them.
    #[schema(example = "latest")]
    pub catch_up: String,
    /// Queue of its jobs.
    #[schema(example = "expiry")]
    pub queue: String,
    /// Time of the newest occurrence that was admitted; null if there is none.
    #[schema(required)]
    pub last_slot: Option<DateTime<Utc>>,
    /// Time of the next occurrence.
    #[schema(required)]
    pub next_slot: Option<DateTime<Utc>>,
    /// Whether an occurrence should have started by now and has not.
    #[schema(example = false)]
    pub overdue: bool,
    /// Time of the overdue occurrence; null if none is overdue.
    #[schema(required)]
    pub overdue_slot: Option<DateTime<Utc>>,
    /// Job of the last run, by schedule or by hand; null if there is none, or it was deleted.
    #[schema(required, value_type = Option<uuid::Uuid>)]
    pub last_job_id: Option<JobId>,
    /// Whether its queue is paused.
    #[serde(skip)]
    pub paused: bool,
}

/// The schedules in use, by name. Omits those that no worker has checked for a day while workers
/// checked others.
pub async fn schedules(conn: &mut Connection) -> sqlx::Result<Vec<ScheduleStatus>> {
    let rows = sqlx::query!(
        r#"
        select schedules.name, cron, catch_up, schedules.queue, now() as "now!", queues.paused_at is not null as "paused!",
               (select max(slot) from schedule_slots where schedule = schedules.name) as last_slot,
               waiting.slot as "waiting?",
               -- Job ids are ordered by time.
               (select id from jobs where id = greatest(run_by_hand, (
                    select job_id from schedule_slots
                    where schedule = schedules.name and job_id is not null order by slot desc limit 1))) as last_job_id
        from schedules
        left join queues on queues.name = schedules.queue
        left join lateral (
            -- The oldest of its jobs that has not begun.
            select jobs.slot from jobs
            where jobs.queue = schedules.queue and state = 'pending' and attempts = 0 and created_at < now() - $1::interval
              and exists (
                select from schedule_slots admitted
                where admitted.schedule = schedules.name and admitted.slot = jobs.slot and admitted.job_id = jobs.id)
            order by run_at
            limit 1
        ) waiting on true
        -- Ignore schedules that no running version defines.
        where schedules.looked_at > (select max(looked_at) from schedules) - interval '1 day' or schedules.looked_at is null
        order by schedules.name
        "#,
        interval(OVERDUE_AFTER.to_std().unwrap_or_default()),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let cron: Option<Cron> = row.cron.parse().ok();
            let after = |at: DateTime<Utc>| cron.as_ref().and_then(|cron| next_slot(cron, at));
            // Overdue: the job of an admitted occurrence waits, or the occurrence was not admitted.
            let missed = row.last_slot.and_then(after).filter(|slot| *slot < row.now - OVERDUE_AFTER);
            let overdue_slot = row.waiting.or(missed);
            ScheduleStatus {
                name: row.name,
                next_slot: after(row.now),
                cron: row.cron,
                catch_up: row.catch_up,
                queue: row.queue,
                last_slot: row.last_slot,
                overdue: overdue_slot.is_some(),
                overdue_slot,
                last_job_id: row.last_job_id,
                paused: row.paused,
            }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn schedule(cron: &str, catch_up: CatchUp) -> Schedule {
        Schedule { name: "test", cron: cron.parse().unwrap(), catch_up }
    }

    #[test]
    fn a_slot_is_due_from_its_own_second_on() {
        let cron: Cron = "0 */5 * * * *".parse().unwrap();
        assert_eq!(latest_slot(&cron, at("2026-03-01T10:04:59.999Z")), Some(at("2026-03-01T10:00:00Z")));
        assert_eq!(latest_slot(&cron, at("2026-03-01T10:05:00Z")), Some(at("2026-03-01T10:05:00Z")));
        assert_eq!(next_slot(&cron, at("2026-03-01T10:05:00Z")), Some(at("2026-03-01T10:10:00Z")));
    }

    #[test]
    fn an_outage_is_made_up_for_as_the_policy_says() {
        let (last, looked) = (Some(at("2026-03-01T10:00:00Z")), Some(at("2026-03-01T10:00:00.1Z")));
        let now = at("2026-03-01T10:16:00Z");
        let all = schedule("0 */5 * * * *", CatchUp::All).due(now, last, looked);
        assert_eq!(all, ["2026-03-01T10:05:00Z", "2026-03-01T10:10:00Z", "2026-03-01T10:15:00Z"].map(at));
        let latest = schedule("0 */5 * * * *", CatchUp::Latest);
        assert_eq!(latest.due(now, last, looked), [at("2026-03-01T10:15:00Z")]);
        assert!(latest.due(now, Some(at("2026-03-01T10:15:00Z")), looked).is_empty());
        assert_eq!(latest.due(now, None, None), [at("2026-03-01T10:15:00Z")]);
    }

    #[test]
    fn a_look_that_is_a_little_late_skips_nothing() {
        let every_second = schedule("* * * * * *", CatchUp::Latest);
        let (last, looked) = (Some(at("2026-03-01T10:00:00Z")), Some(at("2026-03-01T10:00:00.1Z")));
        assert_eq!(every_second.due(at("2026-03-01T10:00:04Z"), last, looked).len(), 4);
        assert_eq!(every_second.due(at("2026-03-01T10:00:30Z"), last, looked).len(), 1, "that was an outage");
    }
}
