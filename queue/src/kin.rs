//! What the pools of a process know of each other, and how they get away from a
//! server that takes no writes any more.
//!
//! After a fail-over new connections lead to the new primary, but those there are
//! may still lead to the old one, which answers every look and refuses every write
//! (or answers with what was true an hour ago). The first statement that is refused
//! so speaks for all of them: connections older than that are used no more.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{PgConnection, PgPool, Row};
use tokio::sync::watch;

use crate::sql_state::has_sql_state;

/// Where no server takes writes they are refused on new connections, too: those
/// are not made anew more often than this.
const AT_MOST_EVERY: Duration = Duration::from_millis(250);

/// How often connections that are in use all the time are asked whether their server takes writes.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Every pool that was made from the same database, and what they share.
#[derive(Debug)]
pub(crate) struct Kin {
    /// Since when connections count. What was made before led to a server that takes no writes.
    since: watch::Sender<Instant>,
    pools: Mutex<Vec<PgPool>>,
    /// When one that came back was last asked whether its server takes writes.
    looked: Mutex<Instant>,
}

impl Default for Kin {
    fn default() -> Self {
        let long_ago = Instant::now().checked_sub(AT_MOST_EVERY).unwrap_or_else(Instant::now);
        Self { since: watch::Sender::new(long_ago), pools: Mutex::default(), looked: Mutex::new(Instant::now()) }
    }
}

impl Kin {
    pub(crate) fn join(&self, pool: PgPool) {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).push(pool);
    }

    /// What `of` says of each pool.
    pub(crate) fn each<T>(&self, of: impl Fn(&PgPool) -> T) -> Vec<T> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).iter().map(of).collect()
    }

    /// Whether a connection that was made then is used no more.
    pub(crate) fn is_over(&self, made: Instant) -> bool {
        made < *self.since.borrow()
    }

    /// Whether a connection that comes back should be asked, for all of them: who
    /// only reads is refused nothing, and never idle for long enough to be looked at.
    pub(crate) fn look_is_due(&self) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let due = looked.elapsed() >= LOOK_EVERY;
        if due {
            *looked = Instant::now();
        }
        due
    }

    /// Changes when connections are made anew.
    pub(crate) fn watch(&self) -> watch::Receiver<Instant> {
        self.since.subscribe()
    }

    /// Postgres refused a statement: maybe because it takes no writes.
    pub(crate) fn refused(&self, error: &sqlx::Error) {
        if is_read_only(error) {
            self.renew();
        }
    }

    /// Whether the server at the other end takes writes; an error: it does not
    /// answer. It costs what any look at a connection costs, one round trip.
    pub(crate) async fn takes_writes(&self, conn: &mut PgConnection) -> sqlx::Result<bool> {
        let row = sqlx::raw_sql("show transaction_read_only").fetch_one(conn).await?;
        let takes_writes = row.try_get::<String, _>(0)? == "off";
        if !takes_writes {
            self.renew();
        }
        Ok(takes_writes)
    }

    /// All connections are made anew: idle ones are closed now, others when they come back.
    fn renew(&self) {
        let now = Instant::now();
        let renewed = self.since.send_if_modified(|since| {
            let due = now.saturating_duration_since(*since) >= AT_MOST_EVERY;
            if due {
                *since = now;
            }
            due
        });
        if renewed {
            tracing::warn!("this Postgres takes no writes: it is a standby, or fenced; connecting anew");
            self.each(|pool| {
                for _ in 0..pool.num_idle() {
                    drop(pool.try_acquire()); // it is looked at when it comes back, and closed
                }
            });
        }
    }
}

/// `read_only_sql_transaction`: a standby, or `default_transaction_read_only`.
fn is_read_only(error: &sqlx::Error) -> bool {
    has_sql_state(error, &["25006"])
}
