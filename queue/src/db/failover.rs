//! Replaces connections to a server that became read-only.
//!
//! After a fail-over new connections lead to the new primary, but open ones may still lead to the
//! old one, which responds to pings, rejects writes and returns outdated rows. The first statement
//! that is rejected as read-only makes all connections of the process stale.

use std::{
    fmt,
    sync::{Mutex, OnceLock},
    time::{Duration, Instant},
};

use sqlx::{PgConnection, Row};
use tokio::sync::watch;

use crate::{mutex::lock, sql::has_sql_state};

/// Minimum interval between two replacements of all connections, in case no server is writable.
const MIN_INTERVAL: Duration = Duration::from_millis(250);

/// Interval at which one connection in constant use is checked: a busy reader never gets a
/// read-only error, and is never idle for long enough for the idle check.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// Fail-over state shared by all pools to the same database.
pub(crate) struct FailoverGuard {
    /// Connections opened before this moment are stale.
    since: watch::Sender<Instant>,
    checked: Mutex<Instant>,
    close_idle: OnceLock<CloseIdle>,
}

/// Closes the idle connections of all pools that were opened before the given moment.
type CloseIdle = Box<dyn Fn(Instant) + Send + Sync>;

impl fmt::Debug for FailoverGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailoverGuard").field("since", &*self.since.borrow()).finish_non_exhaustive()
    }
}

impl Default for FailoverGuard {
    fn default() -> Self {
        let long_ago = Instant::now().checked_sub(MIN_INTERVAL).unwrap_or_else(Instant::now);
        Self { since: watch::Sender::new(long_ago), checked: Mutex::new(Instant::now()), close_idle: OnceLock::new() }
    }
}

impl FailoverGuard {
    /// Whether a connection opened at `opened` may lead to a read-only server.
    pub(crate) fn is_stale(&self, opened: Instant) -> bool {
        opened < *self.since.borrow()
    }

    /// Returns `true` once per [`CHECK_EVERY`]: the caller should then check its connection.
    pub(crate) fn is_check_due(&self) -> bool {
        let mut checked = lock(&self.checked);
        let due = checked.elapsed() >= CHECK_EVERY;
        if due {
            *checked = Instant::now();
        }
        due
    }

    /// Stores that a connection was checked now.
    pub(crate) fn checked(&self) {
        *lock(&self.checked) = Instant::now();
    }

    /// Notifies when connections become stale.
    pub(crate) fn watch(&self) -> watch::Receiver<Instant> {
        self.since.subscribe()
    }

    /// Makes all connections stale if a statement failed because its server is read-only (a
    /// standby, or `default_transaction_read_only`).
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

    /// Runs `close` with the moment when connections become stale: it closes idle ones.
    pub(crate) fn on_stale(&self, close: impl Fn(Instant) + Send + Sync + 'static) {
        let _ = self.close_idle.set(Box::new(close)); // the first one counts
    }

    /// Makes all connections stale. The pools close idle ones now, and others when they return.
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
            if let Some(close) = self.close_idle.get() {
                close(now);
            }
        }
    }
}
