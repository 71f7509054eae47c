//! The one thing a process has of the queue: it fetches for all workers in it,
//! holds their leases and writes down how their jobs ended.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use apalis_core::worker::context::WorkerContext;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    ack::{self, Ended, Outcome},
    backend::{Inbox, PgBackend},
    database::Database,
    fetch::{self, Fetched},
    job::{Job, JobId},
    lease::{self, Lease},
    presence, retention,
    retention::Retention,
    wake,
};

/// How a process takes part in the queue.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who this is, in `jobs.worker`.
    pub worker: String,
    /// Jobs in flight in this process, all kinds together.
    pub concurrency: usize,
    /// How long a job stays ours without a renewal. A killed worker's jobs run
    /// again after this at the latest (and a reaper's tick of one second).
    pub lease: Duration,
    /// How often leases are renewed; a third of the lease bears two failures.
    pub renew_every: Duration,
    /// How often to look without having been woken.
    pub poll_every: Duration,
    /// How long finished jobs are kept.
    pub retention: Retention,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            // Short, because it is written with every job; for people, not a key.
            worker: format!("{}-{:08x}", std::process::id(), Uuid::new_v4().as_fields().0),
            concurrency: 16,
            lease: Duration::from_secs(25),
            renew_every: Duration::from_secs(8),
            poll_every: Duration::from_secs(1),
            retention: Retention::default(),
        }
    }
}

/// Connections to Postgres that a [`Runtime`] holds at most: fetch, outcomes,
/// renewal, lost workers, retention, LISTEN.
pub const CONNECTIONS: u32 = 6;

/// A cheap handle; all clones are the same runtime.
#[derive(Debug, Clone)]
pub struct Runtime {
    shared: Arc<Shared>,
    fetching: TaskTracker,
    tasks: TaskTracker,
}

impl Runtime {
    /// Starts the background tasks on the current tokio runtime, on a pool of
    /// [`CONNECTIONS`] of their own: handlers that hold every connection of
    /// theirs can't keep leases from being renewed.
    pub fn start(database: &Database, config: Config) -> Self {
        let database = database.planned_once(CONNECTIONS, "");
        let (acks, ended) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            database,
            config,
            lanes: Mutex::default(),
            held: Mutex::default(),
            running: AtomicUsize::new(0),
            unacknowledged: AtomicUsize::new(0),
            wake: Notify::new(),
            acks,
            stopping: CancellationToken::new(),
            closing: CancellationToken::new(),
        });
        let (fetching, tasks) = (TaskTracker::new(), TaskTracker::new());
        fetching.spawn(fetch::run(shared.clone()));
        tasks.spawn(ack::run(shared.clone(), ended));
        tasks.spawn(lease::renew(shared.clone()));
        tasks.spawn(lease::reap(shared.clone()));
        tasks.spawn(retention::run(shared.clone()));
        tasks.spawn(presence::run(shared.clone()));
        if shared.database.listens() {
            tasks.spawn(wake::listen(shared.clone()));
        }
        Self { shared, fetching, tasks }
    }

    /// A backend for a worker of `J`, to be given to `WorkerBuilder::backend`.
    pub fn backend<J: Job>(&self) -> PgBackend<J> {
        PgBackend::new(self.shared.clone())
    }

    /// Waits for `signal`, then stops fetching: what is running goes on, what
    /// was fetched and not begun goes back. Give it to `Monitor::run_with_signal`.
    pub async fn stop_after<T>(&self, signal: impl Future<Output = T>) -> T {
        let result = signal.await;
        self.shared.stop();
        result
    }

    /// Stops fetching now.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Ends the background tasks after every outcome known so far is written.
    /// Jobs that still run are given back, to run again elsewhere.
    pub async fn close(&self) {
        self.shared.stop();
        // A fetch on its way brings jobs yet: they go back with the rest.
        self.fetching.close();
        self.fetching.wait().await;
        self.shared.give_back_running();
        self.shared.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.shared.database.close().await;
    }

    /// Jobs this process is running right now.
    pub fn running(&self) -> usize {
        self.shared.running.load(Ordering::Acquire)
    }
}

/// What the background tasks and the workers of a process share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) database: Database,
    pub(crate) config: Config,
    lanes: Mutex<Vec<Arc<dyn Lane>>>,
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

/// A lease this process holds, from the fetch until its outcome is written.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) lease: Arc<Lease>,
    pub(crate) until: Instant,
}

/// The workers of one kind of job in this process.
pub(crate) trait Lane: std::fmt::Debug + Send + Sync {
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
    pub(crate) fn register<J: Job>(&self, inbox: Arc<Inbox<J>>, worker: WorkerContext) {
        // A monitor that restarts a worker asks for its backend again; what the
        // old one had not begun goes back.
        let mut lanes = lock(&self.lanes);
        let replaced: Vec<_> = lanes.extract_if(.., |lane| lane.kind() == J::KIND).collect();
        lanes.push(Arc::new(crate::backend::JobLane { inbox, worker }));
        drop(lanes);
        for lane in replaced {
            self.give_back(lane.recall());
        }
    }

    pub(crate) fn accepting_lanes(&self) -> Vec<Arc<dyn Lane>> {
        lock(&self.lanes).iter().filter(|lane| lane.accepts()).cloned().collect()
    }

    pub(crate) fn serves(&self, queue: &str) -> bool {
        lock(&self.lanes).iter().any(|lane| lane.queue() == queue)
    }

    /// How many jobs may be fetched now. Outcomes that pile up because Postgres
    /// is slow hold fetching back, or leases would grow without bound.
    pub(crate) fn free_slots(&self) -> usize {
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
            if let Some(before) = before.filter(|before| before.lease.is_ended_here()) {
                before.lease.lose();
                self.running.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    /// Frees the slot at once; the lease is kept until the outcome is written.
    pub(crate) fn end(&self, lease: &Lease, outcome: Outcome) {
        if !lease.is_ended_here() {
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
        if lease.is_ended_here() {
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

    fn stop(&self) {
        self.stopping.cancel();
        let lanes = lock(&self.lanes).clone();
        for lane in lanes {
            self.give_back(lane.recall());
        }
    }

    fn give_back_running(&self) {
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
