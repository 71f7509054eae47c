//! Writing down how jobs ended, in batches.

use std::{sync::Arc, time::Duration};

use apalis_core::error::{AbortError, BoxDynError, RetryAfterError};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{
    connection::{Connection, Kept},
    job::{Backoff, JobId},
    runtime::Shared,
    wake::Reconnect,
};

/// The most outcomes one statement writes.
const BATCH: usize = 500;
/// A batch of this size says that many jobs end at once …
const BUSY: usize = 16;
/// … and how long the next one waits for more.
const GATHER: Duration = Duration::from_millis(4);
/// The most characters of an error that are stored: errors are for people.
pub const ERROR_CHARACTERS: usize = 2_000;

/// A run that ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) id: JobId,
    pub(crate) token: Uuid,
    pub(crate) outcome: Outcome,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Done,
    /// Runs again after the delay, or is dead if this was its last attempt.
    Retry {
        error: String,
        delay: Duration,
    },
    /// Could not begin for now: runs again after the delay, and the attempt does not count.
    Snoozed {
        why: String,
        delay: Duration,
    },
    /// Can't heal.
    Dead {
        error: String,
    },
    /// Was taken and given back before it began: the attempt does not count.
    NotBegun,
    /// The worker stopped under it.
    Interrupted,
}

/// An error that is none: what the job needs is not to be had right now (a turn
/// in a shared rate, say). It runs again after `delay`, and the attempt does not count.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{why}; again in {delay:?}")]
pub struct Snooze {
    /// What it waits for.
    pub why: String,
    /// For how long.
    pub delay: Duration,
}

impl Outcome {
    /// Sorts an error: [`AbortError`] can't heal, [`RetryAfterError`] names its
    /// delay, [`Snooze`] does not count, anything else backs off.
    pub(crate) fn of_error(error: &BoxDynError, attempt: i16, backoff: Backoff) -> Self {
        let message = |error: &(dyn std::error::Error + 'static)| {
            // The two wrappers say "AbortError: …"; the source is what went wrong.
            error.source().map_or_else(|| error.to_string(), ToString::to_string)
        };
        if let Some(snooze) = error.downcast_ref::<Snooze>() {
            Self::Snoozed { why: snooze.why.clone(), delay: snooze.delay }
        } else if let Some(abort) = error.downcast_ref::<AbortError>() {
            Self::Dead { error: message(abort) }
        } else if let Some(retry) = error.downcast_ref::<RetryAfterError>() {
            Self::Retry { error: message(retry), delay: retry.get_duration() }
        } else {
            Self::Retry { error: error.to_string(), delay: backoff.after(attempt) }
        }
    }
}

/// Writes outcomes as they come, until the runtime closes and none are left.
pub(crate) async fn run(shared: Arc<Shared>, mut ended: mpsc::UnboundedReceiver<Ended>) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut busy = false;
    let mut kept = Kept::new(shared.database.clone());
    loop {
        tokio::select! {
            biased;
            _ = ended.recv_many(&mut batch, BATCH) => {}
            () = shared.closing.cancelled() => return,
        }
        if busy {
            gather(&mut ended, &mut batch).await;
        }
        busy = batch.len() >= BUSY;
        write_until_done(&shared, &mut kept, &batch).await;
        let rescheduled = batch.iter().any(|ended| !matches!(ended.outcome, Outcome::Done | Outcome::Dead { .. }));
        shared.acknowledged(&batch);
        if rescheduled {
            shared.wake.notify_one(); // it may be due before the next poll
        }
        batch.clear();
    }
}

/// Many jobs end at once, so a moment later there are more: one statement and
/// one commit for them all. Their slots are free already, nobody waits for this.
async fn gather(ended: &mut mpsc::UnboundedReceiver<Ended>, batch: &mut Vec<Ended>) {
    let until = tokio::time::Instant::now() + GATHER;
    while batch.len() < BATCH {
        let room = BATCH - batch.len();
        match tokio::time::timeout_at(until, ended.recv_many(batch, room)).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// Retries until Postgres takes it. When the runtime closes meanwhile, one last
/// failure ends it: the leases run out and the jobs run again.
async fn write_until_done(shared: &Shared, kept: &mut Kept, batch: &[Ended]) {
    let mut reconnect = Reconnect::new("writing outcomes of jobs");
    // A Postgres that is gone without a word is given up, and reached anew. What
    // it may have written all the same is fenced by the token.
    let in_time = async |kept: &mut Kept| {
        let written = tokio::time::timeout(shared.config.renew_every, write(kept, batch)).await;
        written.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    };
    while let Err(error) = in_time(kept).await {
        if shared.closing.is_cancelled() {
            tracing::error!(%error, jobs = batch.len(), "could not write outcomes before the end; these jobs run again");
            return;
        }
        reconnect.failed(&error, &shared.closing).await;
    }
}

async fn write(kept: &mut Kept, batch: &[Ended]) -> sqlx::Result<()> {
    let mut conn = kept.acquire().await?;
    let (done, other): (Vec<&Ended>, Vec<&Ended>) =
        batch.iter().partition(|ended| matches!(ended.outcome, Outcome::Done));
    if !done.is_empty() {
        write_done(&mut conn, &done).await?;
    }
    if !other.is_empty() {
        write_other(&mut conn, &other).await?;
    }
    kept.commit(conn).await
}

/// Fenced by the token, found by primary key. (A condition on `state` here made
/// Postgres walk the index of running jobs for every batch.)
async fn write_done(conn: &mut Connection, batch: &[&Ended]) -> sqlx::Result<()> {
    let ids: Vec<Uuid> = batch.iter().map(|ended| ended.id).collect();
    let tokens: Vec<Uuid> = batch.iter().map(|ended| ended.token).collect();
    sqlx::query!(
        r#"
        update jobs
        set state = 'done', finished_at = now(), lease_token = null, lease_until = null
        from unnest($1::uuid[], $2::uuid[]) as ended (id, token)
        where jobs.id = ended.id and jobs.lease_token = ended.token
        "#,
        &ids,
        &tokens,
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn write_other(conn: &mut Connection, batch: &[&Ended]) -> sqlx::Result<()> {
    let mut columns = Columns::default();
    for ended in batch {
        columns.push(ended);
    }
    sqlx::query!(
        r#"
        update jobs
        set state = case when ended.dead or (ended.error is not null and jobs.attempts >= jobs.max_attempts)
                         then 'dead' else 'pending' end,
            finished_at = case when ended.dead or (ended.error is not null and jobs.attempts >= jobs.max_attempts)
                         then now() end,
            attempts = jobs.attempts - ended.refund,
            run_at = now() + ended.delay_ms * interval '1 millisecond',
            lease_token = null, lease_until = null,
            last_error = coalesce(ended.error, ended.note, jobs.last_error),
            attempt_log = case when ended.error is null then jobs.attempt_log
                else jobs.attempt_log || jsonb_build_object(
                    'attempt', jobs.attempts, 'startedAt', jobs.started_at, 'endedAt', now(),
                    'worker', jobs.worker, 'error', ended.error) end
        from unnest($1::uuid[], $2::uuid[], $3::bool[], $4::smallint[], $5::bigint[], $6::text[], $7::text[])
            as ended (id, token, dead, refund, delay_ms, error, note)
        where jobs.id = ended.id and jobs.lease_token = ended.token
        "#,
        &columns.ids,
        &columns.tokens,
        &columns.dead,
        &columns.refunds,
        &columns.delays,
        &columns.errors as &[Option<String>],
        &columns.notes as &[Option<String>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

#[derive(Default)]
struct Columns {
    ids: Vec<Uuid>,
    tokens: Vec<Uuid>,
    dead: Vec<bool>,
    refunds: Vec<i16>,
    delays: Vec<i64>,
    errors: Vec<Option<String>>,
    /// Why a run did not begin: told, but no error.
    notes: Vec<Option<String>>,
}

impl Columns {
    fn push(&mut self, ended: &Ended) {
        let (dead, refund, delay, error) = match &ended.outcome {
            Outcome::Retry { error, delay } => (false, 0, *delay, Some(error.as_str())),
            Outcome::Dead { error } => (true, 0, Duration::ZERO, Some(error.as_str())),
            Outcome::Interrupted => (false, 0, Duration::ZERO, Some("the worker stopped before it ended")),
            Outcome::NotBegun => (false, 1, Duration::ZERO, None),
            Outcome::Snoozed { delay, .. } => (false, 1, *delay, None),
            Outcome::Done => return,
        };
        self.ids.push(ended.id);
        self.tokens.push(ended.token);
        self.dead.push(dead);
        self.refunds.push(refund);
        self.delays.push(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX));
        // Postgres refuses NUL in text.
        let text = |text: &str| text.replace('\0', "").chars().take(ERROR_CHARACTERS).collect();
        self.errors.push(error.map(text));
        self.notes.push(match &ended.outcome {
            Outcome::Snoozed { why, .. } => Some(text(why)),
            _ => None,
        });
    }
}
