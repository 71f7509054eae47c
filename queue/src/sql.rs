//! SQL helpers shared by several modules.

use std::time::Duration;

use sqlx::postgres::types::PgInterval;

/// The NOTIFY channel that wakes workers; the payload is the queue's name.
pub(crate) const CHANNEL: &str = "jobs";

/// Whether Postgres returned one of these SQLSTATEs
/// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
pub fn has_sql_state(error: &sqlx::Error, states: &[&str]) -> bool {
    let state = error.as_database_error().and_then(|error| error.code());
    state.is_some_and(|state| states.contains(&&*state))
}

pub(crate) fn interval(duration: Duration) -> PgInterval {
    let microseconds = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    PgInterval { months: 0, days: 0, microseconds }
}
