//! Reaching Postgres.

use std::{collections::HashMap, str::FromStr, time::Duration};

use sqlx::{
    migrate::{MigrateError, Migration, Migrator},
    postgres::PgConnectOptions,
};

use crate::config::{ConfigError, Env};

pub use queue::{Connection, Database, Listen};

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
    options(env, "DATABASE_URL")
}

fn options(env: &Env, name: &'static str) -> Result<PgConnectOptions, ConfigError> {
    const TAKES: &str = "postgres://user:password@host:port/database";
    let url = env.required(name, TAKES)?;
    let malformed = || ConfigError::Malformed { name, value: "malformed".to_owned(), takes: TAKES };
    if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
        return Err(malformed());
    }
    PgConnectOptions::from_str(url).map_err(|_| malformed())
}

/// The database as the environment says: `DATABASE_URL`, `QUEUE_LISTEN` and `DATABASE_LISTEN_URL`.
/// Nothing is connected yet; a request that finds Postgres away is told so within seconds.
///
/// # Errors
/// If one of them is missing or malformed.
pub fn from_env(env: &Env, connections: u32) -> Result<Database, ConfigError> {
    Ok(Database::new(options_from_env(env)?, listen_from_env(env)?, connections))
}

/// Connections of their own for short statements that find what they look for by
/// a key: they are planned once, and by an index, however few rows there were then.
pub fn by_key(database: &Database, connections: u32) -> Database {
    const BY_INDEX: &str = "set enable_seqscan = off; set enable_bitmapscan = off; set enable_hashjoin = off; \
                            set enable_mergejoin = off; set enable_sort = off";
    database.planned_once(connections, BY_INDEX)
}

/// Where LISTEN goes: along with everything else, to a Postgres that only
/// `DATABASE_LISTEN_URL` reaches directly, or nowhere.
///
/// # Errors
/// If one of the two variables is malformed.
pub fn listen_from_env(env: &Env) -> Result<Listen, ConfigError> {
    if !env.queue_listen()? {
        return Ok(Listen::Off);
    }
    match env.get("DATABASE_LISTEN_URL") {
        Some(_) => Ok(Listen::At(Box::new(options(env, "DATABASE_LISTEN_URL")?))),
        None => Ok(Listen::Directly),
    }
}

/// Whether Postgres answers within two seconds.
///
/// # Errors
/// Why not.
pub async fn answers(database: &Database) -> Result<(), String> {
    let answer = async {
        sqlx::query("select 1").execute(&mut database.acquire().await?).await?;
        Ok(())
    };
    match tokio::time::timeout(Duration::from_secs(2), answer).await {
        Ok(answered) => answered.map_err(|error: sqlx::Error| error.to_string()),
        Err(_) => Err("Postgres did not answer within 2 s".to_owned()),
    }
}

/// Waits until Postgres is there, saying so, and brings the schema up to date.
/// Processes that start side by side take turns.
///
/// # Errors
/// What waiting would not mend: a wrong password, no such database, a schema that can't be migrated.
pub async fn prepare(database: &Database) -> Result<(), DatabaseError> {
    let mut said = false;
    loop {
        match try_prepare(database).await {
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

/// Two processes must not migrate at once; the number is this product's own.
const MIGRATION_LOCK: i64 = 0x51_43_54_01;

async fn try_prepare(database: &Database) -> Result<(), DatabaseError> {
    // One transaction for all of it: behind a pooler a session, and a lock that
    // belongs to one, is ours for no longer than that.
    let mut tx = database.begin().await.map_err(DatabaseError::Refused)?;
    let lock = sqlx::query!("select pg_advisory_xact_lock($1)", MIGRATION_LOCK);
    lock.execute(&mut tx).await.map_err(DatabaseError::Refused)?;
    if pending_migrations(&mut tx).await.map_err(DatabaseError::Refused)?.is_empty() {
        return Ok(());
    }
    // The migrator names its statements, as nothing else does behind a pooler:
    // the names go before the session serves somebody else.
    let forget = async |tx: &mut Connection| sqlx::raw_sql("deallocate all").execute(tx).await;
    if database.is_pooled() {
        forget(&mut tx).await.map_err(DatabaseError::Refused)?;
    }
    match migrator().run_direct(None, tx.inner(), false).await {
        Err(MigrateError::Execute(error)) => return Err(DatabaseError::Refused(error)),
        other => other?,
    }
    if database.is_pooled() {
        forget(&mut tx).await.map_err(DatabaseError::Refused)?;
    }
    tx.commit().await.map_err(DatabaseError::Refused)
}

/// Migrations of this binary that the database does not have, or has in another form.
pub async fn pending_migrations(conn: &mut Connection) -> sqlx::Result<Vec<String>> {
    let there: bool =
        sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null").fetch_one(&mut *conn).await?;
    let applied: HashMap<i64, Vec<u8>> = if there {
        let rows: Vec<(i64, Vec<u8>)> =
            sqlx::query_as("select version, checksum from _sqlx_migrations where success").fetch_all(conn).await?;
        rows.into_iter().collect()
    } else {
        HashMap::new()
    };
    let pending =
        |migration: &&Migration| applied.get(&migration.version).map(Vec::as_slice) != Some(&*migration.checksum);
    Ok(migrator()
        .iter()
        .filter(pending)
        .map(|migration| format!("{} {}", migration.version, migration.description))
        .collect())
}

fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("../migrations");
    // An older binary may start while a newer one has migrated already.
    migrator.set_ignore_missing(true).set_locking(false);
    migrator
}

/// Whether Postgres is away, starting, stopping or full: worth trying again.
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        // A proxy that has no server to lead to hangs up; sqlx takes that for an answer to its first question.
        sqlx::Error::Protocol(message) => message.starts_with("unexpected response from SSLRequest: 0x00"),
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            // Connection exceptions, insufficient resources, operator intervention,
            // a primary that became a standby, and a session that was ended because we said nothing for too long.
            code.starts_with("08")
                || code.starts_with("53")
                || code.starts_with("57P")
                || code == "25006"
                || code == "25P03"
        }),
        _ => false,
    }
}
