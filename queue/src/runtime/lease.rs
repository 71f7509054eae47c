//! Leases: the right to run a job.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use futures_util::task::AtomicWaker;
use tokio::time::Instant;
use uuid::Uuid;

use crate::job::JobId;

/// The right to run a job; passed with the job through apalis.
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

    /// Marks the run as ended. Returns `false` if it had ended before: only the first outcome, or
    /// the loss of the lease, counts.
    pub(crate) fn try_end(&self) -> bool {
        !self.ended.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Marks the lease as lost, so that the job's future is dropped.
    pub(crate) fn lose(&self) {
        self.lost.store(true, Ordering::Release);
        self.run.wake();
    }

    /// Waits until the lease is lost. Supports one waiter, the run.
    pub(crate) async fn lost(&self) {
        poll_fn(|cx| {
            self.run.register(cx.waker());
            if self.lost.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// A lease that this process holds, from the fetch until the outcome is written.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) lease: Arc<Lease>,
    pub(crate) until: Instant,
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_run_ends_once() {
        let lease = Lease::new(Uuid::now_v7(), Uuid::new_v4());
        assert!(!lease.is_ended());
        assert!(lease.try_end());
        assert!(lease.is_ended());
        assert!(!lease.try_end(), "an outcome after the loss, or a loss after the outcome, counts for nothing");
    }

    #[tokio::test]
    async fn a_lost_lease_wakes_current_waiters_and_is_reported_to_later_ones() {
        let lease = Lease::new(Uuid::now_v7(), Uuid::new_v4());
        assert!(lease.lost().now_or_never().is_none());
        let waiting = tokio::spawn({
            let lease = lease.clone();
            async move { lease.lost().await }
        });
        tokio::task::yield_now().await; // lets it wait
        lease.lose();
        waiting.await.unwrap();
        lease.lost().await;
    }
}
