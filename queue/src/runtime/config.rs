//! Settings of a [`Runtime`](crate::Runtime).

use std::time::Duration;

use uuid::Uuid;

/// Settings of the queue in one process.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of this process, stored in `jobs.worker`.
    pub worker: String,
    /// Maximum number of jobs that run at a time, all kinds together.
    pub concurrency: usize,
    /// Lifetime of a lease without renewal. Jobs of a killed worker run again within this time and
    /// one more second.
    pub lease: Duration,
    /// Interval between renewals. A third of the lease tolerates two failed renewals.
    pub renew_every: Duration,
    /// Interval at which ready jobs are looked for, in case no notification arrives.
    pub poll_every: Duration,
    /// How long finished jobs are kept.
    pub retention: Retention,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            // Short, because it is written with every job.
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
    /// Time to keep jobs that succeeded.
    pub done: Duration,
    /// Time to keep dead jobs.
    pub dead: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self { done: DAY, dead: 30 * DAY }
    }
}
