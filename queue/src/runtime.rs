//! The queue's background tasks in a process: they fetch jobs for all workers, renew the leases and
//! write the outcomes.

mod ack;
pub(crate) mod config;
pub(crate) mod execute;
mod fetch;
pub(crate) mod heartbeat;
pub(crate) mod lease;
mod notify;
mod outcomes;
mod poll;
mod renew;
mod retention;
mod scan;
pub(crate) mod state;

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use self::{config::Config, state::Shared};
use crate::{backend::PgBackend, db::Database, job::Job};

/// Maximum number of connections to Postgres that a [`Runtime`] opens, besides the one for LISTEN.
/// Its tasks (fetch, poll, outcomes, renewal, retention) share them.
pub const CONNECTIONS: u32 = 4;

/// A handle to the background tasks. Clones are cheap and share the same tasks.
#[derive(Debug, Clone)]
pub struct Runtime {
    shared: Arc<Shared>,
    fetching: TaskTracker,
    tasks: TaskTracker,
}

impl Runtime {
    /// Starts the background tasks on the current tokio runtime. They use their own pool of
    /// [`CONNECTIONS`], so that handlers that exhaust theirs can't prevent lease renewal.
    pub fn start(database: &Database, config: Config) -> Self {
        let (acks, ended) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(database.planned_once(CONNECTIONS, ""), config, acks));
        let (fetching, tasks) = (TaskTracker::new(), TaskTracker::new());
        fetching.spawn(fetch::run(shared.clone()));
        tasks.spawn(ack::run(shared.clone(), ended));
        tasks.spawn(renew::renew(shared.clone()));
        tasks.spawn(poll::run(shared.clone()));
        tasks.spawn(retention::run(shared.clone()));
        if shared.database.listens() {
            tasks.spawn(notify::listen(shared.clone()));
        }
        Self { shared, fetching, tasks }
    }

    /// Creates the backend for a worker of `J`; pass it to `WorkerBuilder::backend`.
    pub fn backend<J: Job>(&self) -> PgBackend<J> {
        PgBackend::new(self.shared.clone())
    }

    /// Waits for `signal`, then stops fetching. Running jobs continue; jobs that were fetched and
    /// not started return to the queue. Pass it to `Monitor::run_with_signal`.
    pub async fn stop_after<T>(&self, signal: impl Future<Output = T>) -> T {
        let result = signal.await;
        self.shared.stop();
        result
    }

    /// Stops fetching at once.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Stops fetching, returns running jobs to the queue to run again elsewhere, and ends the
    /// background tasks after all outcomes are written.
    pub async fn close(&self) {
        self.shared.stop();
        // A fetch in progress may still deliver jobs; they are returned with the others.
        self.fetching.close();
        self.fetching.wait().await;
        self.shared.give_back_running();
        self.shared.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.shared.database.close();
    }

    /// The pool of the background tasks, also for schedules. Its connections are in use all the time,
    /// so that they need no check.
    pub fn database(&self) -> &Database {
        &self.shared.database
    }

    /// The number of jobs that this process is running.
    pub fn running(&self) -> usize {
        self.shared.running()
    }
}
