//! The queue in a process: fetches jobs for all its workers, renews their leases and writes their
//! outcomes.

mod ack;
pub(crate) mod config;
pub(crate) mod execute;
mod fetch;
pub(crate) mod heartbeat;
pub(crate) mod lease;
mod notify;
mod outcomes;
mod renew;
mod retention;
pub(crate) mod state;

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use self::{config::Config, state::Shared};
use crate::{backend::PgBackend, db::Database, job::Job};

/// The connections to Postgres that a [`Runtime`] opens at most, besides the one of LISTEN. Its tasks
/// (fetch, outcomes, renewal, lost workers, retention, heartbeat) share them.
pub const CONNECTIONS: u32 = 4;

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
        let (acks, ended) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(database.planned_once(CONNECTIONS, ""), config, acks));
        let (fetching, tasks) = (TaskTracker::new(), TaskTracker::new());
        fetching.spawn(fetch::run(shared.clone()));
        tasks.spawn(ack::run(shared.clone(), ended));
        tasks.spawn(renew::renew(shared.clone()));
        tasks.spawn(renew::reap(shared.clone()));
        tasks.spawn(retention::run(shared.clone()));
        tasks.spawn(heartbeat::run(shared.clone()));
        if shared.database.listens() {
            tasks.spawn(notify::listen(shared.clone()));
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
        self.shared.database.close();
    }

    /// Jobs this process is running right now.
    pub fn running(&self) -> usize {
        self.shared.running()
    }
}
