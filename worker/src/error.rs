//! How a job fails: it is tried again, or it is given up.

use std::time::Duration;

use apalis::prelude::{AbortError, BoxDynError, RetryAfterError};
use common::db;
use queue::Snooze;

/// How long to wait for a Postgres that is away.
const AWAY: Duration = Duration::from_secs(2);

/// Why a job did not succeed.
#[derive(Debug)]
pub enum JobError {
    /// It may succeed later.
    Retry {
        /// What went wrong.
        why: String,
        /// When to try again; `None` backs off.
        after: Option<Duration>,
    },
    /// The job could not start because something it needs is unavailable, or it stopped midway
    /// with its progress stored. The attempt does not count.
    Snooze {
        /// What it waits for.
        why: String,
        /// When to try again.
        after: Duration,
    },
    /// It never will.
    GiveUp {
        /// What went wrong.
        why: String,
    },
}

impl JobError {
    /// Postgres is away, or has a complaint.
    pub fn postgres(error: &sqlx::Error) -> Self {
        if db::is_locked(error) {
            return Self::locked();
        }
        let after = db::is_unavailable(error).then_some(AWAY);
        Self::Retry { why: format!("Postgres: {}", db::told(error)), after }
    }

    /// Another transaction holds a lock: the attempt does not count.
    fn locked() -> Self {
        Self::Snooze { why: "another transaction holds the lock of the cart".to_owned(), after: AWAY }
    }

    /// Turns a retry into a snooze, for a run that stored its progress: the attempt does not count.
    pub fn without_counting(self, soon: Duration) -> Self {
        match self {
            Self::Retry { why, after } => Self::Snooze { why, after: after.unwrap_or(soon) },
            other => other,
        }
    }

    /// Try again, backing off.
    pub fn retry(why: impl ToString) -> Self {
        Self::Retry { why: why.to_string(), after: None }
    }
}

impl From<sqlx::Error> for JobError {
    fn from(error: sqlx::Error) -> Self {
        Self::postgres(&error)
    }
}

/// As the queue understands it. `JobError` is no `std::error::Error` itself, or
/// it would be boxed as it is and the queue could not tell the two apart.
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
