//! Expires carts that were abandoned longer ago than `CART_TTL`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use apalis::prelude::Data;
use chrono::{DateTime, TimeDelta, Utc};
use common::{carts::expiry, jobs::ExpireCarts};

use crate::{JobError, State};

/// Delay of a helper job that was fetched by a process that is already expiring carts.
const ELSEWHERE: Duration = Duration::from_secs(1);

/// Number of expiry jobs in progress in this process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expiring(Arc<AtomicUsize>);

/// One expiry job in progress, until it is dropped.
struct UnderWay(Expiring);

impl Expiring {
    /// Begins an expiry job; `None` for a helper job if another is in progress.
    fn begin(&self, helper: bool) -> Option<UnderWay> {
        let others = self.0.fetch_add(1, Ordering::AcqRel);
        let one = UnderWay(self.clone());
        (others == 0 || !helper).then_some(one)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

pub(crate) async fn run(job: ExpireCarts, state: Data<State>) -> Result<(), JobError> {
    // A helper job is useful only in another process: this one's connections share a core.
    let Some(_in_progress) = state.expiring.begin(job.helper > 0) else {
        let why = "this worker is expiring carts already; a helper is for another one".to_owned();
        return Err(JobError::Snooze { why, after: ELSEWHERE });
    };
    let now = state.clock.now();
    let cutoff = now - TimeDelta::from_std(state.config.cart_ttl).unwrap_or(TimeDelta::MAX);
    call_for_help(&job, &state, cutoff, now).await?;
    let expired = expiry::expire_older_than(&state.lookups, cutoff, now).await?;
    if expired > 0 {
        tracing::info!(carts = expired, helper = job.helper, "expired carts");
    }
    Ok(())
}

/// Queues the next helper job if there is a backlog, so that another worker shares the work.
async fn call_for_help(
    job: &ExpireCarts,
    state: &State,
    cutoff: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<(), JobError> {
    let Some(helper) = job.next_helper() else { return Ok(()) };
    let mut tx = state.lookups.begin().await?;
    if expiry::is_backlog(&mut tx, cutoff, now).await? {
        queue::enqueue(&mut tx, &helper).await?;
    }
    Ok(tx.commit().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_is_for_a_process_that_is_not_at_it() {
        let expiring = Expiring::default();
        let slot = expiring.begin(false).expect("a slot's job always begins");
        assert!(expiring.begin(true).is_none());
        let other_slot = expiring.begin(false).expect("also beside another");
        drop(slot);
        assert!(expiring.begin(true).is_none());
        drop(other_slot);
        assert!(expiring.begin(true).is_some());
    }
}
