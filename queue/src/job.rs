//! What a job is.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

/// Names a job; time-ordered (UUIDv7).
pub type JobId = Uuid;

/// A kind of job: its payload, and how it is to be run.
///
/// The payload should hold ids only. A job reads the state again when it runs,
/// and it may run twice.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The queue it waits in. Workers choose which queues they serve.
    const QUEUE: &'static str;
    /// Which handler runs it; unique among all jobs.
    const KIND: &'static str;
    /// How often it may be started before it is `dead`.
    const MAX_ATTEMPTS: i16 = 10;
    /// How long one attempt may take; longer is an error like any other.
    const TIME_LIMIT: Duration = Duration::from_secs(60);
    /// How long to wait after a failure that names no delay itself.
    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(600) };

    /// While a job with this key is unfinished, another one is "already queued".
    fn unique_key(&self) -> Option<String> {
        None
    }
}

/// Exponential backoff with jitter, so that what failed together does not come back together.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// About how long after the first failure.
    pub first: Duration,
    /// The most it grows to (before jitter).
    pub longest: Duration,
}

impl Backoff {
    /// How long to wait after the `attempt`-th start failed (1 for the first).
    pub(crate) fn after(self, attempt: i16) -> Duration {
        let failures_before = usize::try_from(attempt.saturating_sub(1)).unwrap_or(0);
        ExponentialBuilder::new()
            .with_min_delay(self.first)
            .with_max_delay(self.longest)
            .without_max_times()
            .with_jitter()
            .build()
            .nth(failures_before)
            .unwrap_or(self.longest)
    }
}

/// Which attempt a handler is in; take it as `Data<Attempt>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// 1 for the first.
    pub number: i16,
    /// The last one there will be.
    pub max: i16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_longest() {
        let backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };
        for attempt in 1..=40 {
            let expected = Duration::from_secs(1 << (attempt - 1).min(6)).min(backoff.longest);
            let waited = backoff.after(attempt);
            assert!(waited >= expected, "attempt {attempt} waits {waited:?}");
            assert!(waited <= expected * 2 + Duration::from_secs(1), "attempt {attempt} waits {waited:?}");
        }
    }
}
