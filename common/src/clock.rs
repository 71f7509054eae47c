//! The one place where the time is read.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

/// Tells the time: the machine's, or one that a test sets.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    set: Option<Arc<Mutex<DateTime<Utc>>>>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands still until it is moved. Clones move together.
    pub fn stopped_at(now: DateTime<Utc>) -> Self {
        Self { set: Some(Arc::new(Mutex::new(now))) }
    }

    /// Now, in whole milliseconds: what is answered is exactly what is stored.
    pub fn now(&self) -> DateTime<Utc> {
        match &self.set {
            Some(set) => *set.lock().unwrap_or_else(PoisonError::into_inner),
            None => {
                #[expect(clippy::disallowed_methods, reason = "this is the place")]
                let now = Utc::now();
                now.trunc_subsecs(3)
            }
        }
    }

    /// Moves a stopped clock.
    ///
    /// # Panics
    /// If this is the machine's clock.
    pub fn advance(&self, by: TimeDelta) {
        let set = self.set.as_ref().expect("only a stopped clock can be moved");
        *set.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }
}
