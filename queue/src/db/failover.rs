//! Leaving a server that became read-only.
//!
//! After a fail-over new connections lead to the new primary, but open ones may still lead to the
//! old one, which answers every ping, refuses every write and returns outdated rows. The first
//! statement that is refused as read-only makes all connections of the process stale.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{PgConnection, Row};
use tokio::sync::watch;

use crate::sql::has_sql_state;

/// If no server is writable, new connections are refused as well: they are not replaced more often.
const MIN_INTERVAL: Duration = Duration::from_millis(250);

/// How often a connection in constant use is checked: readers are never refused, and their
/// connections are never idle for long enough to be checked.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// What all pools to the same database share.
#[derive(Debug)]
pub(crate) struct FailoverGuard {
    /// Connections opened before this moment are stale.
    since: watch::Sender<Instant>,
    checked: Mutex<Instant>,
}

impl Default for FailoverGuard {
    fn default() -> Self {
        let long_ago = Instant::now().checked_sub(MIN_INTERVAL).unwrap_or_else(Instant::now);
        Self { since: watch::Sender::new(long_ago), checked: Mutex::new(Instant::now()) }
    }
}

impl FailoverGuard {
    /// Whether a connection that was opened then may lead to a read-only server.
    pub(crate) fn is_stale(&self, opened: Instant) -> bool {
        opened < *self.since.borrow()
    }

    /// Returns `true` once in [`CHECK_EVERY`]: the caller should check its connection, for all.
    pub(crate) fn is_check_due(&self) -> bool {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        let due = checked.elapsed() >= CHECK_EVERY;
        if due {
            *checked = Instant::now();
        }
        due
    }

    /// Changes when connections become stale.
    pub(crate) fn watch(&self) -> watch::Receiver<Instant> {
        self.since.subscribe()
    }

    /// Makes all connections stale if a statement failed because its server is read-only (a standby, or
    /// `default_transaction_read_only`).
    pub(crate) fn observe(&self, error: &sqlx::Error) {
        if has_sql_state(error, &["25006"]) {
            self.make_stale();
        }
    }

    /// Whether the server is writable. Takes one round trip.
    pub(crate) async fn is_writable(&self, conn: &mut PgConnection) -> sqlx::Result<bool> {
        let row = sqlx::raw_sql("show transaction_read_only").fetch_one(conn).await?;
        let is_writable = row.try_get::<String, _>(0)? == "off";
        if !is_writable {
            self.make_stale();
        }
        Ok(is_writable)
    }

    /// The pools close idle connections before their next use, others when they return.
    fn make_stale(&self) {
        let now = Instant::now();
        let changed = self.since.send_if_modified(|since| {
            let due = now.saturating_duration_since(*since) >= MIN_INTERVAL;
            if due {
                *since = now;
            }
            due
        });
        if changed {
            tracing::warn!("Postgres is read-only (standby or fenced); reconnecting");
        }
    }
}
