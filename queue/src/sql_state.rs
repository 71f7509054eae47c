//! What kind of error Postgres answered.

/// Whether it is one of these
/// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
pub fn has_sql_state(error: &sqlx::Error, states: &[&str]) -> bool {
    let state = error.as_database_error().and_then(|error| error.code());
    state.is_some_and(|state| states.contains(&&*state))
}
