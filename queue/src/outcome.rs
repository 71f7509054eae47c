//! How a run of a job ended.

use std::time::Duration;

use apalis_core::error::{AbortError, BoxDynError, RetryAfterError};
use uuid::Uuid;

use crate::job::{Backoff, JobId};

/// The number of characters of an error that are stored: errors are for people.
pub const ERROR_CHARACTERS: usize = 2_000;

/// A run that ended.
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
    /// Runs again after the delay, or is dead if this was its last attempt.
    Retry {
        error: String,
        delay: Duration,
    },
    /// Could not begin for now: runs again after the delay, and the attempt does not count.
    Snoozed {
        why: String,
        delay: Duration,
    },
    /// Can't heal.
    Dead {
        error: String,
    },
    /// Was taken and given back before it began: the attempt does not count.
    NotBegun,
    /// The worker stopped under it.
    Interrupted,
}

/// An error that is none: what the job needs is not to be had right now (a turn
/// in a shared rate, say). It runs again after `delay`, and the attempt does not count.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{why}; again in {delay:?}")]
pub struct Snooze {
    /// What it waits for.
    pub why: String,
    /// For how long.
    pub delay: Duration,
}

impl Outcome {
    /// Sorts an error: [`AbortError`] can't heal, [`RetryAfterError`] names its
    /// delay, [`Snooze`] does not count, anything else backs off.
    pub(crate) fn of_error(error: &BoxDynError, attempt: i16, backoff: Backoff) -> Self {
        let message = |error: &(dyn std::error::Error + 'static)| {
            // The two wrappers say "AbortError: …"; the source is what went wrong.
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
