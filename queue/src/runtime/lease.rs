//! The right to run a job.

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
    pub(crate) fn try_end(&self) -> bool {
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

/// A lease this process holds, from the fetch until its outcome is written.
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
