//! Settings of the queue in a process.

use std::time::Duration;

use uuid::Uuid;

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

/// How long finished jobs are kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Those that ended well.
    pub done: Duration,
    /// Those that somebody may want to look at.
    pub dead: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self { done: DAY, dead: 30 * DAY }
    }
}
