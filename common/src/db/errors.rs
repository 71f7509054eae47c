//! What an error of Postgres means for the caller.

use queue::has_sql_state;
use sqlx::{
    migrate::MigrateError,
    postgres::{PgDatabaseError, PgSeverity},
};

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

/// Whether Postgres ended the transaction because two waited for each other: it may be done again.
pub fn is_deadlock(error: &sqlx::Error) -> bool {
    has_sql_state(error, &["40P01"])
}

/// Whether a statement gave up waiting for a lock (SQLSTATE 55P03). Its transaction has no effect.
pub fn is_locked(error: &sqlx::Error) -> bool {
    has_sql_state(error, &["55P03"])
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

/// Whether the role may not do this (or may not see where it would be done).
pub(crate) fn is_forbidden(error: &sqlx::Error) -> bool {
    has_sql_state(error, &["42501", "3F000"])
}
