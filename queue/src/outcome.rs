//! Outcomes of jobs, and the error types that decide on them.

use std::time::Duration;

use apalis_core::error::{AbortError, BoxDynError, RetryAfterError};
use uuid::Uuid;

use crate::job::{Backoff, JobId};

/// The maximum number of characters of an error message that are stored.
pub const ERROR_CHARACTERS: usize = 2_000;

/// A run that ended, identified by its job and lease token.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) id: JobId,
    pub(crate) token: Uuid,
    pub(crate) outcome: Outcome,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Done,
    /// Failed: runs again after the delay, or is dead if this was the last attempt.
    Retry {
        error: String,
        delay: Duration,
    },
    /// Returned [`Snooze`]: runs again after the delay, and the attempt does not count.
    Snoozed {
        why: String,
        delay: Duration,
    },
    /// Failed permanently.
    Dead {
        error: String,
    },
    /// Fetched but not started: ready again, and the attempt does not count.
    NotBegun,
    /// The worker stopped during the run: ready again, and the attempt does not count.
    Interrupted,
}

/// Not a failure: a resource that the job needs is unavailable, such as a permit of a shared rate
/// limit. The job runs again after `delay`, and the attempt does not count.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{why}; again in {delay:?}")]
pub struct Snooze {
    /// The reason, stored as the job's last error.
    pub why: String,
    /// Time until the next run.
    pub delay: Duration,
}

impl Outcome {
    /// Maps an error to an outcome: [`AbortError`] is permanent, [`RetryAfterError`] specifies its
    /// delay, [`Snooze`] does not count as an attempt, any other error is retried with backoff.
    pub(crate) fn of_error(error: &BoxDynError, attempt: i16, backoff: Backoff) -> Self {
        let message = |error: &(dyn std::error::Error + 'static)| {
            // Both wrappers prefix their message with "AbortError: …"; the source has the cause.
            error.source().map_or_else(|| error.to_string(), ToString::to_string)
        };
        if let Some(snooze) = error.downcast_ref::<Snooze>() {
            Self::Snoozed { why: snooze.why.clone(), delay: snooze.delay }
        } else if let Some(abort) = error.downcast_ref::<AbortError>() {
            Self::Dead { error: message(abort) }
        } else if let Some(retry) = error.downcast_ref::<RetryAfterError>() {
            Self::Retry { error: message(retry), delay: retry.get_duration() }
        } else {
            Self::Retry { error: error.to_string(), delay: backoff.after(attempt) }
        }
    }
}
