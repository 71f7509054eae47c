//! Access to Postgres: configuration, errors, and the schema.

mod config;
mod errors;
pub mod migrations;
mod prepare;
pub mod snapshots;

use std::time::Duration;

pub use config::{DEFAULT_MAX_CONNECTIONS, DatabaseConfig, Pools, from_env};
pub use errors::{DatabaseError, exceeds_limit, is_deadlock, is_locked, is_unavailable, redacted};
pub use migrations::pending as pending_migrations;
pub use prepare::{migrate, prepare};
pub use queue::{Connection, Database, Listen, has_sql_state};

/// Checks that Postgres executes a query within two seconds.
///
/// # Errors
/// If Postgres is unavailable or does not respond in time; the text is the reason.
pub async fn ping(database: &Database) -> Result<(), String> {
    let answer = async {
        sqlx::query("select 1").execute(&mut database.acquire().await?).await?;
        Ok(())
    };
    match tokio::time::timeout(Duration::from_secs(2), answer).await {
        Ok(answered) => answered.map_err(|error: sqlx::Error| error.to_string()),
        Err(_) => Err("Postgres did not answer within 2 s".to_owned()),
    }
}

/// Limits how long each statement of this transaction waits for a lock. After `wait` the statement
/// fails with an error for which [`is_locked`] is true.
pub async fn limit_lock_waits(tx: &mut Connection, wait: Duration) -> sqlx::Result<()> {
    let wait = format!("{}ms", wait.as_millis());
    sqlx::query("select set_config('lock_timeout', $1, true)").bind(wait).execute(tx).await?;
    Ok(())
}
