//! Reaching Postgres.

use std::{str::FromStr, time::Duration};

use sqlx::{
    PgPool,
    migrate::MigrateError,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::config::{ConfigError, Env};

/// Why a process can't use its database at all.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// Waiting would not help.
    #[error("DATABASE_URL: Postgres refuses it: {0}; it takes postgres://user:password@host:port/database")]
    Refused(#[source] sqlx::Error),
    /// The schema can't be brought up to date.
    #[error("the database can't be migrated: {0}")]
    Migration(#[from] MigrateError),
}

/// `DATABASE_URL`
///
/// # Errors
/// If it is missing or no such address. The value is not repeated: it holds a password.
pub fn options_from_env(env: &Env) -> Result<PgConnectOptions, ConfigError> {
    const TAKES: &str = "postgres://user:password@host:port/database";
    let url = env.required("DATABASE_URL", TAKES)?;
    let malformed = || ConfigError::Malformed { name: "DATABASE_URL", value: "malformed".to_owned(), takes: TAKES };
    if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
        return Err(malformed());
    }
    PgConnectOptions::from_str(url).map_err(|_| malformed())
}

/// A pool of at most `connections`, not yet connected. A request that finds
/// Postgres away is told so within seconds.
pub fn pool(options: PgConnectOptions, connections: u32) -> PgPool {
    PgPoolOptions::new().max_connections(connections).acquire_timeout(Duration::from_secs(3)).connect_lazy_with(options)
}

/// Closes the pool; a Postgres that does not answer is left after five seconds.
pub async fn close(pool: &PgPool) {
    let _ = tokio::time::timeout(Duration::from_secs(5), pool.close()).await;
}

/// Waits until Postgres is there, saying so, and brings the schema up to date.
/// Processes that start side by side take turns.
///
/// # Errors
/// What waiting would not mend: a wrong password, no such database, a schema that can't be migrated.
pub async fn prepare(pool: &PgPool) -> Result<(), DatabaseError> {
    let mut said = false;
    loop {
        match try_prepare(pool).await {
            Ok(()) => {
                if said {
                    tracing::info!("Postgres is there, going on");
                }
                return Ok(());
            }
            Err(DatabaseError::Refused(error)) if is_unavailable(&error) => {
                if !said {
                    tracing::warn!(%error, "Postgres is not there yet, waiting for it");
                    said = true;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn try_prepare(pool: &PgPool) -> Result<(), DatabaseError> {
    pool.acquire().await.map_err(DatabaseError::Refused)?;
    let mut migrator = sqlx::migrate!("../migrations");
    // An older binary may start while a newer one has migrated already.
    migrator.set_ignore_missing(true);
    match migrator.run(pool).await {
        Err(MigrateError::Execute(error)) => Err(DatabaseError::Refused(error)),
        other => Ok(other?),
    }
}

/// Whether Postgres is away, starting, stopping or full: worth trying again.
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            // Connection exceptions, insufficient resources, operator intervention,
            // and a primary that became a standby.
            code.starts_with("08") || code.starts_with("53") || code.starts_with("57P") || code == "25006"
        }),
        _ => false,
    }
}
