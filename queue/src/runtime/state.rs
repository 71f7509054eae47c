//! State shared by the background tasks and the workers of a process.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use chrono::{DateTime, Utc};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    config::Config,
    lease::{Held, Lease},
    scan::Starts,
};
use crate::{
    db::Database,
    job::{Attempt, JobId},
    mutex::lock,
    outcome::{Ended, Outcome},
    telemetry::TraceContext,
};

/// A fetched job.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) id: JobId,
    pub(crate) run_at: DateTime<Utc>,
    /// Index of the job's sink among those that the fetch was for.
    pub(crate) sink: usize,
    /// JSON, parsed by the sink, which knows the type.
    pub(crate) payload: String,
    pub(crate) attempt: Attempt,
    pub(crate) asked_by: TraceContext,
}

/// State shared by the background tasks and the workers of a process.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) database: Database,
    pub(crate) config: Config,
    pub(crate) starts: Starts,
    sinks: Mutex<Vec<Arc<dyn JobSink>>>,
    held: Mutex<HashMap<JobId, Held>>,
    running: AtomicUsize,
    unacknowledged: AtomicUsize,
    /// Wakes the fetcher because jobs may be due.
    pub(crate) jobs: Notify,
    /// Wakes the fetcher because permits are free.
    pub(crate) permits: Notify,
    acks: mpsc::UnboundedSender<Ended>,
    /// Cancelled when fetching must stop.
    pub(crate) stopping: CancellationToken,
    /// Cancelled when all tasks must end.
    pub(crate) closing: CancellationToken,
}

/// Receives the fetched jobs of one kind, for its worker in this process.
pub(crate) trait JobSink: std::fmt::Debug + Send + Sync {
    fn queue(&self) -> &'static str;
    fn kind(&self) -> &'static str;
    /// Whether its worker accepts jobs: running, not paused, not shutting down.
    fn accepts(&self) -> bool;
    /// Delivers jobs and wakes the worker. Returns the leases of jobs with an unreadable payload,
    /// each with the error.
    fn deliver(&self, jobs: Vec<(Fetched, Arc<Lease>)>) -> Vec<(Arc<Lease>, String)>;
    /// Removes the jobs that were delivered and not started, and returns their leases.
    fn recall(&self) -> Vec<Arc<Lease>>;
}

impl Shared {
    pub(crate) fn new(database: Database, config: Config, acks: mpsc::UnboundedSender<Ended>) -> Self {
        Self {
            database,
            config,
            starts: Starts::default(),
            sinks: Mutex::default(),
            held: Mutex::default(),
            running: AtomicUsize::new(0),
            unacknowledged: AtomicUsize::new(0),
            jobs: Notify::new(),
            permits: Notify::new(),
            acks,
            stopping: CancellationToken::new(),
            closing: CancellationToken::new(),
        }
    }

    /// The number of jobs that run in this process now.
    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::Acquire)
    }

    pub(crate) fn register(&self, sink: Arc<dyn JobSink>) {
        // A monitor that restarts a worker creates its backend again. Jobs that the old one had not
        // started return to the queue.
        let mut sinks = lock(&self.sinks);
        let replaced: Vec<_> = sinks.extract_if(.., |old| old.kind() == sink.kind()).collect();
        sinks.push(sink);
        drop(sinks);
        for old in replaced {
            self.give_back(old.recall());
        }
    }

    pub(crate) fn accepting_sinks(&self) -> Vec<Arc<dyn JobSink>> {
        lock(&self.sinks).iter().filter(|sink| sink.accepts()).cloned().collect()
    }

    pub(crate) fn serves(&self, queue: &str) -> bool {
        lock(&self.sinks).iter().any(|sink| sink.queue() == queue)
    }

    /// The number of jobs that may be fetched now. 0 while too many outcomes are unwritten because
    /// Postgres is slow: the number of held leases would otherwise be unbounded.
    pub(crate) fn free_permits(&self) -> usize {
        if self.unacknowledged.load(Ordering::Acquire) >= self.backlog_limit() {
            return 0;
        }
        self.config.concurrency.saturating_sub(self.running.load(Ordering::Acquire))
    }

    fn backlog_limit(&self) -> usize {
        (2 * self.config.concurrency).max(1000)
    }

    /// Half of the permits, rounded up.
    pub(crate) fn half(&self) -> usize {
        self.config.concurrency.div_ceil(2)
    }

    /// Stores the leases of a batch and takes a permit for each.
    pub(crate) fn hold(&self, leases: impl ExactSizeIterator<Item = Arc<Lease>>, until: Instant) {
        self.running.fetch_add(leases.len(), Ordering::AcqRel);
        let mut held = lock(&self.held);
        for lease in leases {
            // The job's earlier lease was lost unnoticed and the job fetched again: end its run.
            let before = held.insert(lease.id, Held { lease, until });
            if let Some(before) = before.filter(|before| before.lease.try_end()) {
                before.lease.lose();
                self.running.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    /// Ends a run. Frees the permit at once; the lease is held until the outcome is written.
    pub(crate) fn end(&self, lease: &Lease, outcome: Outcome) {
        if !lease.try_end() {
            return;
        }
        let running = self.running.fetch_sub(1, Ordering::AcqRel) - 1;
        self.unacknowledged.fetch_add(1, Ordering::AcqRel);
        // Fails only after the runtime closed: the lease expires and the job runs again.
        let _ = self.acks.send(Ended { id: lease.id, token: lease.token, outcome });
        // Wake the fetcher for the first free permit, for half of them and for all.
        let free = self.config.concurrency.saturating_sub(running);
        if free == 1 || free == self.half() || running == 0 {
            self.permits.notify_one();
        }
    }

    /// Drops the run of a lease that this process lost or may have lost; no outcome is written.
    pub(crate) fn lose(&self, lease: &Lease) {
        let mut held = lock(&self.held);
        if held.get(&lease.id).is_none_or(|held| held.lease.token != lease.token) {
            return;
        }
        held.remove(&lease.id);
        drop(held);
        if lease.try_end() {
            tracing::warn!(job = %lease.id, "lost the lease of a running job: it was cancelled, or runs elsewhere; it is dropped here");
            lease.lose();
            self.running.fetch_sub(1, Ordering::AcqRel);
            self.permits.notify_one();
        }
    }

    pub(crate) fn acknowledged(&self, written: &[Ended]) {
        let mut held = lock(&self.held);
        for ended in written {
            if held.get(&ended.id).is_some_and(|held| held.lease.token == ended.token) {
                held.remove(&ended.id);
            }
        }
        drop(held);
        let before = self.unacknowledged.fetch_sub(written.len(), Ordering::AcqRel);
        if before >= self.backlog_limit() {
            self.permits.notify_one();
        }
    }

    pub(crate) fn held(&self) -> Vec<Held> {
        lock(&self.held).values().cloned().collect()
    }

    pub(crate) fn renewed(&self, ids: &[JobId], until: Instant) {
        let mut held = lock(&self.held);
        for id in ids {
            if let Some(held) = held.get_mut(id) {
                held.until = until;
            }
        }
    }

    pub(crate) fn give_back(&self, leases: Vec<Arc<Lease>>) {
        for lease in leases {
            self.end(&lease, Outcome::NotBegun);
        }
    }

    pub(crate) fn stop(&self) {
        self.stopping.cancel();
        let sinks = lock(&self.sinks).clone();
        for sink in sinks {
            self.give_back(sink.recall());
        }
    }

    pub(crate) fn give_back_running(&self) {
        for held in self.held() {
            if !held.lease.is_ended() {
                held.lease.lose();
                self.end(&held.lease, Outcome::Interrupted);
            }
        }
    }
}
