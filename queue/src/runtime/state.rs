//! What the tasks and the workers of a process share.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    config::Config,
    lease::{Held, Lease},
};
use crate::{
    db::Database,
    job::{Attempt, JobId},
    outcome::{Ended, Outcome},
    telemetry::TraceContext,
};

/// A job as it was taken.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) id: JobId,
    /// Which of the kinds that were asked for.
    pub(crate) sink: usize,
    /// Parsed once it is known what it should be.
    pub(crate) payload: String,
    pub(crate) attempt: Attempt,
    pub(crate) asked_by: TraceContext,
}

/// What the background tasks and the workers of a process share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) database: Database,
    pub(crate) config: Config,
    sinks: Mutex<Vec<Arc<dyn JobSink>>>,
    held: Mutex<HashMap<JobId, Held>>,
    running: AtomicUsize,
    unacknowledged: AtomicUsize,
    pub(crate) wake: Notify,
    acks: mpsc::UnboundedSender<Ended>,
    /// No more fetching.
    pub(crate) stopping: CancellationToken,
    /// No more anything.
    pub(crate) closing: CancellationToken,
}

/// The workers of one kind of job in this process.
pub(crate) trait JobSink: std::fmt::Debug + Send + Sync {
    fn queue(&self) -> &'static str;
    fn kind(&self) -> &'static str;
    /// Whether its worker takes jobs now: running, not paused, not shutting down.
    fn accepts(&self) -> bool;
    /// Hands jobs over and tells the worker; answers those whose payload can't be read, and why.
    fn deliver(&self, jobs: Vec<(Fetched, Arc<Lease>)>) -> Vec<(Arc<Lease>, String)>;
    /// Takes back what was handed over and not begun.
    fn recall(&self) -> Vec<Arc<Lease>>;
}

impl Shared {
    pub(crate) fn new(database: Database, config: Config, acks: mpsc::UnboundedSender<Ended>) -> Self {
        Self {
            database,
            config,
            sinks: Mutex::default(),
            held: Mutex::default(),
            running: AtomicUsize::new(0),
            unacknowledged: AtomicUsize::new(0),
            wake: Notify::new(),
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
        // A monitor that restarts a worker asks for its backend again; what the
        // old one had not begun goes back.
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

    /// How many jobs may be fetched now. Outcomes that pile up because Postgres
    /// is slow hold fetching back, or leases would grow without bound.
    pub(crate) fn free_permits(&self) -> usize {
        if self.unacknowledged.load(Ordering::Acquire) >= self.backlog_limit() {
            return 0;
        }
        self.config.concurrency.saturating_sub(self.running.load(Ordering::Acquire))
    }

    fn backlog_limit(&self) -> usize {
        (2 * self.config.concurrency).max(1000)
    }

    /// Half of the slots, at least one.
    pub(crate) fn half(&self) -> usize {
        self.config.concurrency.div_ceil(2)
    }

    /// Keeps the leases of a batch, whose slots are taken from now on.
    pub(crate) fn hold(&self, leases: impl ExactSizeIterator<Item = Arc<Lease>>, until: Instant) {
        self.running.fetch_add(leases.len(), Ordering::AcqRel);
        let mut held = lock(&self.held);
        for lease in leases {
            // Ours once, lost without our knowing, and ours again: the old run ends here.
            let before = held.insert(lease.id, Held { lease, until });
            if let Some(before) = before.filter(|before| before.lease.try_end()) {
                before.lease.lose();
                self.running.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    /// Frees the slot at once; the lease is kept until the outcome is written.
    pub(crate) fn end(&self, lease: &Lease, outcome: Outcome) {
        if !lease.try_end() {
            return;
        }
        let running = self.running.fetch_sub(1, Ordering::AcqRel) - 1;
        self.unacknowledged.fetch_add(1, Ordering::AcqRel);
        // The acker lives as long as the runtime; without it the lease runs out and the job runs again.
        let _ = self.acks.send(Ended { id: lease.id, token: lease.token, outcome });
        // The fetcher waits for the first free slot, or for half of them.
        let free = self.config.concurrency.saturating_sub(running);
        if free == 1 || free == self.half() || running == 0 {
            self.wake.notify_one();
        }
    }

    /// The lease is somebody else's, or may be: nothing of this run counts any more.
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
            self.wake.notify_one();
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
            self.wake.notify_one();
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

/// A panic while one of these locks is held leaves nothing half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
