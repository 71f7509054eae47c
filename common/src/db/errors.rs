//! Classifies errors of Postgres.

use queue::has_sql_state;
use sqlx::{
    migrate::MigrateError,
    postgres::{PgDatabaseError, PgSeverity},
};

/// An error because of which a process can't use its database.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// Postgres is unavailable or refused the connection or a query.
    #[error("DATABASE_URL: Postgres refuses it: {0}; it takes postgres://user:password@host:port/database")]
    Refused(#[source] sqlx::Error),
    /// The server's certificate could not be verified, or TLS failed in another way.
    #[error(
        "DATABASE_URL: TLS to Postgres fails: {0}; with sslmode=verify-full the host must be a name in the server's \
         certificate, and sslrootcert the file of the authority that signed it"
    )]
    Tls(#[source] sqlx::Error),
    /// A migration failed.
    #[error("the database can't be migrated: {0}")]
    Migration(#[from] MigrateError),
    /// The schema is that of a version before the first release, which can't be migrated.
    #[error(
        "the database has the schema of a version before the first release; name a new database in DATABASE_URL, \
         or after `cargo run` delete .local/"
    )]
    BeforeFirstRelease,
    /// A migration timed out waiting for a lock in every attempt.
    #[error("the database can't be migrated: migration {version} did not get its lock in {tries} tries; {holder}")]
    Locked {
        /// The version of the migration.
        version: i64,
        /// The number of attempts.
        tries: u32,
        /// The transaction that probably holds the lock, as text.
        holder: String,
    },
    /// Migrations are pending, and the role may not change the schema.
    #[error(
        "the schema is behind by {pending} and the role {role:?} may not change it ({cause}); \
         first run `worker migrate` with the DATABASE_URL of the role that owns it"
    )]
    MayNotMigrate {
        /// The number of pending migrations and the first of them, as text.
        pending: String,
        /// The role of `DATABASE_URL`.
        role: String,
        /// The error of Postgres.
        cause: sqlx::Error,
    },
}

/// Whether Postgres ended the transaction because of a deadlock. The transaction can be retried.
pub fn is_deadlock(error: &sqlx::Error) -> bool {
    has_sql_state(error, &["40P01"])
}

/// Whether a statement timed out waiting for a lock (SQLSTATE 55P03), or Postgres ended its
/// transaction because of a deadlock. The transaction has no effect and can be retried.
pub fn is_locked(error: &sqlx::Error) -> bool {
    has_sql_state(error, &["55P03"]) || is_deadlock(error)
}

/// The error's text for logs and storage. Decoding errors are redacted, because they quote the
/// value, which may be personal data.
pub fn redacted(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::ColumnDecode { index, .. } => format!("the column {index} can't be read"),
        sqlx::Error::Decode(_) => "what is stored can't be read".to_owned(),
        other => other.to_string(),
    }
}

/// Whether Postgres is unavailable, starting, stopping or out of resources. A retry may succeed.
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        // For example a server that was restarted without TLS.
        | sqlx::Error::Tls(_) => true,
        // A proxy without a server closes the connection, which sqlx reports as a bad response to
        // its first message.
        sqlx::Error::Protocol(message) => message.starts_with("unexpected response from SSLRequest: 0x00"),
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            // Connection exceptions, insufficient resources, operator intervention, system errors,
            // a primary that became a standby (25006), and a session ended by a transaction idle
            // timeout (25P03).
            ["08", "53", "57P", "58"].iter().any(|class| code.starts_with(class))
                || code == "25006"
                // A session that can't start (disk full: "could not write init file"; a database that
                // accepts no connections, 55000) or that ended.
                || (["XX000", "55000"].contains(&&*code) && is_fatal(&**error))
                || code == "25P03"
        }),
        _ => false,
    }
}

/// Whether a limit of Postgres is exceeded (class 54), for example because the NOTIFY queue is full. A
/// retry may succeed.
pub fn exceeds_limit(error: &sqlx::Error) -> bool {
    let state = error.as_database_error().and_then(|error| error.code());
    state.is_some_and(|state| state.starts_with("54"))
}

/// Whether the error ended the session.
fn is_fatal(error: &dyn sqlx::error::DatabaseError) -> bool {
    let error = error.try_downcast_ref::<PgDatabaseError>();
    error.is_some_and(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic))
}

/// Whether the role lacks the privilege, or the schema does not exist or is hidden from it.
pub(crate) fn is_forbidden(error: &sqlx::Error) -> bool {
    has_sql_state(error, &["42501", "3F000"])
}
