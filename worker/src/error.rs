//! [`JobError`]: how a job fails.

use std::time::Duration;

use apalis::prelude::{AbortError, BoxDynError, RetryAfterError};
use common::{batch::BatchError, db};
use queue::Snooze;

/// Delay before a retry if Postgres is unavailable or a lock is held.
const AWAY: Duration = Duration::from_secs(2);

/// Why a job did not succeed, and whether it runs again.
#[derive(Debug)]
pub enum JobError {
    /// The job may succeed later. The attempt counts.
    Retry {
        /// The error message.
        why: String,
        /// Delay before the retry; `None` means the job's backoff.
        after: Option<Duration>,
    },
    /// The job could not start because something it needs is unavailable, or it stopped midway
    /// with its progress stored. The attempt does not count.
    Snooze {
        /// The reason.
        why: String,
        /// Delay before the next run.
        after: Duration,
    },
    /// The job can't succeed, and is dead at once.
    GiveUp {
        /// The error message.
        why: String,
    },
}

impl JobError {
    /// Maps an error of Postgres: a snooze if a lock is held, otherwise a retry, after 2 s if
    /// Postgres is unavailable.
    pub fn postgres(error: &sqlx::Error) -> Self {
        if db::is_locked(error) {
            return Self::locked();
        }
        let after = db::is_unavailable(error).then_some(AWAY);
        Self::Retry { why: format!("Postgres: {}", db::redacted(error)), after }
    }

    /// A snooze because another transaction holds a lock.
    fn locked() -> Self {
        Self::Snooze { why: "another transaction holds the lock of the cart".to_owned(), after: AWAY }
    }

    /// Turns a retry into a snooze, for a run that stored its progress. `soon` is the delay if the
    /// retry has none.
    pub fn without_counting(self, soon: Duration) -> Self {
        match self {
            Self::Retry { why, after } => Self::Snooze { why, after: after.unwrap_or(soon) },
            other => other,
        }
    }

    /// A retry with the job's backoff.
    pub fn retry(why: impl ToString) -> Self {
        Self::Retry { why: why.to_string(), after: None }
    }
}

impl From<sqlx::Error> for JobError {
    fn from(error: sqlx::Error) -> Self {
        Self::postgres(&error)
    }
}

impl From<BatchError> for JobError {
    fn from(error: BatchError) -> Self {
        if error.is_locked() {
            return Self::locked();
        }
        Self::Retry { why: format!("Postgres: {error}"), after: error.is_unavailable().then_some(AWAY) }
    }
}

/// Converts to the error types that the queue distinguishes. `JobError` does not implement
/// `std::error::Error`, because it would then be boxed unchanged.
impl From<JobError> for BoxDynError {
    fn from(error: JobError) -> Self {
        match error {
            JobError::Retry { why, after: None } => why.into(),
            JobError::Retry { why, after: Some(after) } => Box::new(RetryAfterError::new(why, after)),
            JobError::Snooze { why, after } => Box::new(Snooze { why, delay: after }),
            JobError::GiveUp { why } => Box::new(AbortError::new(why)),
        }
    }
}
