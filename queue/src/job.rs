//! The [`Job`] trait, and the retry backoff of a job.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

/// Id of a job, a time-ordered UUIDv7.
pub type JobId = Uuid;

/// A kind of job: its payload and how to run it.
///
/// The payload should hold ids only: a job reads the current state when it runs, and it may run
/// twice.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The queue of the job. Workers choose which queues they serve.
    const QUEUE: &'static str;
    /// Name of the kind, unique among all jobs; selects the handler.
    const KIND: &'static str;
    /// Maximum number of attempts; a job is `dead` after the last one fails.
    const MAX_ATTEMPTS: i16 = 10;
    /// Timeout of one attempt. Exceeding it is an ordinary error.
    const TIME_LIMIT: Duration = Duration::from_secs(60);
    /// Delay before a retry, unless the error specifies its own.
    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(600) };

    /// While a job with this key is unfinished, another with the same key is not queued. `None`
    /// allows any number of jobs.
    fn unique_key(&self) -> Option<String> {
        None
    }

    /// Id of what the job is about, by which its jobs are found. Not personal data. `None` if it is
    /// about nothing in particular.
    fn subject(&self) -> Option<String> {
        None
    }
}

/// Exponential backoff with jitter, so that jobs that failed together are not retried together.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// Delay after the first failure, before jitter.
    pub first: Duration,
    /// Maximum delay, before jitter.
    pub longest: Duration,
}

impl Backoff {
    /// Delay after attempt number `attempt` (from 1) failed.
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

/// The attempt that a handler runs in; handlers take it as `Data<Attempt>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Number of the attempt, from 1.
    pub number: i16,
    /// Maximum number of attempts of the job.
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
