//! Writing down how jobs ended, in batches.

use std::{collections::HashSet, sync::Arc, time::Duration};

use apalis_core::error::{AbortError, BoxDynError, RetryAfterError};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{
    connection::Kept,
    job::{Backoff, JobId},
    outcomes,
    runtime::Shared,
    wake::Reconnect,
};

/// The most outcomes one statement writes.
const BATCH: usize = 500;
/// A batch of this size says that many jobs end at once …
const BUSY: usize = 16;
/// … and how long the next one waits for more.
const GATHER: Duration = Duration::from_millis(4);
/// How often outcomes of locked jobs are tried again, where no others are written meanwhile.
const RETRY_LOCKED: Duration = Duration::from_millis(250);
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

/// Writes outcomes as they come, until the runtime closes and none are left. Those of
/// jobs that another session has locked are kept, and delay no others.
pub(crate) async fn run(shared: Arc<Shared>, mut ended: mpsc::UnboundedReceiver<Ended>) {
    let mut batch = Vec::with_capacity(BATCH);
    let (mut busy, mut locked) = (false, false);
    let mut kept = Kept::new(shared.database.clone());
    loop {
        let closing = tokio::select! {
            biased;
            _ = ended.recv_many(&mut batch, BATCH) => false,
            () = shared.closing.cancelled() => true,
            () = tokio::time::sleep(RETRY_LOCKED), if locked => false,
        };
        if closing && batch.is_empty() {
            return;
        }
        if busy {
            gather(&mut ended, &mut batch).await;
        }
        busy = batch.len() >= BUSY;
        let still_locked = write_until_done(&shared, &mut kept, &batch, locked).await;
        let is_locked = |ended: &Ended| still_locked.contains(&(ended.id, ended.token));
        let (waiting, written): (Vec<Ended>, Vec<Ended>) = batch.drain(..).partition(is_locked);
        batch = waiting;
        locked = !batch.is_empty();
        let rescheduled = written.iter().any(|ended| !matches!(ended.outcome, Outcome::Done | Outcome::Dead { .. }));
        shared.acknowledged(&written);
        if rescheduled {
            shared.wake.notify_one(); // it may be due before the next poll
        }
        if closing && locked {
            tracing::error!(jobs = batch.len(), "jobs are locked by another session; they run again");
            return;
        }
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
/// failure ends it: the leases run out and the jobs run again. Returns the ids and
/// lease tokens of jobs that another session has locked, whose outcomes are not
/// written; `skip_locked` is for a batch of which that is known.
async fn write_until_done(
    shared: &Shared,
    kept: &mut Kept,
    batch: &[Ended],
    mut skip_locked: bool,
) -> HashSet<(JobId, Uuid)> {
    let mut reconnect = Reconnect::new("writing outcomes of jobs");
    loop {
        let write = async {
            if skip_locked {
                kept.release();
                return outcomes::write_unlocked(&shared.database, batch).await;
            }
            outcomes::write(kept, batch).await.map(|()| HashSet::new())
        };
        // A Postgres that is gone without a word is given up, and reached anew. What
        // it may have written all the same is fenced by the token.
        let written = tokio::time::timeout(shared.config.renew_every, write).await;
        match written.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
            Ok(locked) => return locked,
            Err(error) if !skip_locked && outcomes::is_locked(&error) => {
                tracing::warn!("jobs are locked by another session; writing the outcomes of the others");
                skip_locked = true;
            }
            Err(error) if shared.closing.is_cancelled() => {
                tracing::error!(%error, jobs = batch.len(), "could not write outcomes before the end; these jobs run again");
                return HashSet::new();
            }
            Err(error) => reconnect.failed(&error, &shared.closing).await,
        }
    }
}
