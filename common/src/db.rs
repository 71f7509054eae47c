//! Reaching Postgres.

use std::{borrow::Cow, io, str::FromStr, time::Duration};

use sqlx::{
    migrate::MigrateError,
    postgres::{PgConnectOptions, PgDatabaseError, PgSeverity},
};
use url::Url;

use crate::{
    config::{ConfigError, Env},
    migrations::{self, Patience},
};

pub use crate::migrations::pending as pending_migrations;
pub use queue::{Connection, Database, Listen, has_sql_state};

/// Why a process can't use its database at all.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// Waiting would not help.
    #[error("DATABASE_URL: Postgres refuses it: {0}; it takes postgres://user:password@host:port/database")]
    Refused(#[source] sqlx::Error),
    /// Whoever answers is not who he should be, or nobody can tell.
    #[error(
        "DATABASE_URL: TLS to Postgres fails: {0}; with sslmode=verify-full the host must be a name in the server's \
         certificate, and sslrootcert the file of the authority that signed it"
    )]
    Tls(#[source] sqlx::Error),
    /// The schema can't be brought up to date.
    #[error("the database can't be migrated: {0}")]
    Migration(#[from] MigrateError),
    /// Somebody keeps a table locked.
    #[error("the database can't be migrated: migration {version} did not get its lock in {tries} tries; {holder}")]
    Locked {
        /// Which migration.
        version: i64,
        /// How often it tried.
        tries: u32,
        /// Who may hold the lock.
        holder: String,
    },
    /// That is for another role to do.
    #[error(
        "the schema is behind by {pending} and the role {role:?} may not change it ({cause}); \
         first run `worker migrate` with the DATABASE_URL of the role that owns it"
    )]
    MayNotMigrate {
        /// What would have to be applied.
        pending: String,
        /// Who we are.
        role: String,
        /// What Postgres says.
        cause: sqlx::Error,
    },
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
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
    let unreadable = |c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER;
    if rest.is_none_or(|rest| rest.is_empty() || rest.contains(unreadable)) {
        return Err(malformed());
    }
    let url = without_unknown_parameters(name, url);
    PgConnectOptions::from_str(&url).map_err(|_| malformed())
}

/// The address without the parameters that sqlx ignores, for example `channel_binding` of managed
/// Postgres services: sqlx would log their values, which may be secret.
fn without_unknown_parameters<'a>(name: &str, address: &'a str) -> Cow<'a, str> {
    const KNOWN: [&str; 18] = [
        "sslmode",
        "ssl-mode",
        "sslrootcert",
        "ssl-root-cert",
        "ssl-ca",
        "sslcert",
        "ssl-cert",
        "sslkey",
        "ssl-key",
        "statement-cache-capacity",
        "host",
        "hostaddr",
        "port",
        "dbname",
        "user",
        "password",
        "application_name",
        "options",
    ];
    let known = |key: &str| KNOWN.contains(&key) || (key.starts_with("options[") && key.ends_with(']'));
    let Ok(mut url) = Url::parse(address) else { return Cow::Borrowed(address) };
    let (kept, ignored): (Vec<_>, Vec<_>) = url.query_pairs().into_owned().partition(|(key, _)| known(key));
    if ignored.is_empty() {
        return Cow::Borrowed(address);
    }
    for (key, _) in ignored {
        let key: String = key.chars().take(40).collect();
        tracing::warn!(variable = name, parameter = key, "unknown connection parameter ignored");
    }
    url.query_pairs_mut().clear().extend_pairs(kept);
    Cow::Owned(url.to_string())
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
    // A statement that waits longer for a lock fails, so that its connection returns to the pool.
    const BY_INDEX: &str = "set lock_timeout = '5s'; set enable_seqscan = off; set enable_bitmapscan = off; set enable_hashjoin = off; \
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
    migrate(database).await.map(|_| ())
}

/// As [`prepare`]; answers the migrations that it applied.
///
/// # Errors
/// As that.
pub async fn migrate(database: &Database) -> Result<Vec<String>, DatabaseError> {
    let mut said = false;
    loop {
        match migrations::migrate(database, migrations::all(), Patience::default()).await {
            Ok(applied) => {
                if said {
                    tracing::info!("Postgres is there, going on");
                }
                return Ok(applied);
            }
            Err(DatabaseError::Refused(error)) if is_untrusted(&error, database) => {
                return Err(DatabaseError::Tls(error));
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

/// Whether Postgres ended the transaction because two waited for each other: it may be done again.
pub fn is_deadlock(error: &sqlx::Error) -> bool {
    has_sql_state(error, &["40P01"])
}

/// Whether a statement gave up waiting for a lock (SQLSTATE 55P03). Its transaction has no effect.
pub fn is_locked(error: &sqlx::Error) -> bool {
    has_sql_state(error, &["55P03"])
}

/// Limits how long each statement of this transaction waits for a lock. After `wait` the statement fails
/// with an error for which [`is_locked`] is true.
pub async fn limit_lock_waits(tx: &mut Connection, wait: Duration) -> sqlx::Result<()> {
    let wait = format!("{}ms", wait.as_millis());
    sqlx::query("select set_config('lock_timeout', $1, true)").bind(wait).execute(tx).await?;
    Ok(())
}

/// An error as it may be kept and logged. One of decoding repeats what could not
/// be read, which may be a shopper's.
pub fn told(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::ColumnDecode { index, .. } => format!("the column {index} can't be read"),
        sqlx::Error::Decode(_) => "what is stored can't be read".to_owned(),
        other => other.to_string(),
    }
}

/// Whether Postgres is away, starting, stopping or full: worth trying again.
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        // A server that came back without TLS, say.
        | sqlx::Error::Tls(_) => true,
        // A proxy that has no server to lead to hangs up; sqlx takes that for an answer to its first question.
        sqlx::Error::Protocol(message) => message.starts_with("unexpected response from SSLRequest: 0x00"),
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            // Connection exceptions, insufficient resources, operator intervention, errors of its system,
            // a primary that became a standby, and a session that was ended because we said nothing for too long.
            ["08", "53", "57P", "58"].iter().any(|class| code.starts_with(class))
                || code == "25006"
                // A session that can't begin (its disk is full: "could not write init file"), or that ended so.
                || (code == "XX000" && is_fatal(&**error))
                || code == "25P03"
        }),
        _ => false,
    }
}

/// Whether Postgres ended the session with it.
fn is_fatal(error: &dyn sqlx::error::DatabaseError) -> bool {
    let error = error.try_downcast_ref::<PgDatabaseError>();
    error.is_some_and(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic))
}

/// Whether TLS can't be had as it is asked for. Waiting does not mend a
/// certificate, and what is not who it should be must not be taken for away.
fn is_untrusted(error: &sqlx::Error, database: &Database) -> bool {
    match error {
        sqlx::Error::Tls(_) => true,
        sqlx::Error::Io(error) => match error.kind() {
            // rustls refuses what the server shows.
            io::ErrorKind::InvalidData => true,
            // The file that sslrootcert names, unless it may be the socket of a server that is away.
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                let options = database.pool().connect_options();
                options.get_socket().is_none() && !options.get_host().starts_with('/')
            }
            _ => false,
        },
        _ => false,
    }
}

/// Whether the role may not do this (or may not see where it would be done).
pub(crate) fn is_forbidden(error: &sqlx::Error) -> bool {
    has_sql_state(error, &["42501", "3F000"])
}
