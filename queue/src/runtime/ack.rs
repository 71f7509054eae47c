//! Writes the outcomes of jobs, in batches.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use uuid::Uuid;

use super::{notify::Reconnect, outcomes, state::Shared};
use crate::{
    db::timeout::with_timeout,
    job::JobId,
    outcome::{Ended, Outcome},
};

/// Maximum number of outcomes that one statement writes.
const BATCH: usize = 500;
/// How long a batch waits for more outcomes. The permits of its jobs are free meanwhile; their unique
/// keys are in use.
const GATHER: Duration = Duration::from_millis(4);
/// Interval at which outcomes of locked jobs are retried if no other outcomes arrive.
const RETRY_LOCKED: Duration = Duration::from_millis(250);

/// Writes outcomes as they arrive, until the runtime closes and none are left. Outcomes of jobs
/// that another session has locked are retried later, and delay no others.
pub(crate) async fn run(shared: Arc<Shared>, mut ended: mpsc::UnboundedReceiver<Ended>) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut locked = false;
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
        gather(&mut ended, &mut batch).await;
        let still_locked = write_until_done(&shared, &batch, locked).await;
        let is_locked = |ended: &Ended| still_locked.contains(&(ended.id, ended.token));
        let (waiting, written): (Vec<Ended>, Vec<Ended>) = batch.drain(..).partition(is_locked);
        batch = waiting;
        locked = !batch.is_empty();
        let rescheduled = written.iter().any(|ended| !matches!(ended.outcome, Outcome::Done | Outcome::Dead { .. }));
        shared.acknowledged(&written);
        if rescheduled {
            shared.jobs.notify_one(); // it may be due before the next poll
        }
        if closing && locked {
            tracing::error!(jobs = batch.len(), "jobs are locked by another session; they run again");
            return;
        }
    }
}

/// Collects more outcomes for up to [`GATHER`], to write them in one statement and commit.
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

/// Writes a batch and retries on failure. Once the runtime is closing, gives up after one failure:
/// the leases expire and the jobs run again. Returns the ids and lease tokens of the jobs that
/// another session has locked, whose outcomes are not written. `skip_locked` skips locked jobs in
/// the first try.
async fn write_until_done(shared: &Shared, batch: &[Ended], mut skip_locked: bool) -> HashSet<(JobId, Uuid)> {
    let mut reconnect = Reconnect::new("writing outcomes of jobs");
    loop {
        let write = async {
            if skip_locked {
                return outcomes::write_unlocked(&shared.database, batch).await;
            }
            outcomes::write(&shared.database, batch).await.map(|()| HashSet::new())
        };
        // After a timeout the statement may still take effect; the lease token makes the retry
        // harmless.
        match with_timeout(shared.config.renew_every, write).await {
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
