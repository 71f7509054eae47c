//! Waits for Postgres at startup, and migrates the schema.

use std::{io, time::Duration};

use queue::Database;

use super::{
    errors::{DatabaseError, is_unavailable},
    migrations::{self, RetryLimits},
};

/// Waits until Postgres is available, logging that it waits, and migrates the schema. Processes
/// that start at the same time take turns.
///
/// # Errors
/// Errors that don't resolve by waiting: a wrong password, a missing database, a failed migration.
pub async fn prepare(database: &Database) -> Result<(), DatabaseError> {
    migrate(database).await.map(|_| ())
}

/// Like [`prepare`]; returns the migrations that this process applied.
///
/// # Errors
/// If Postgres refuses the connection for good or a migration fails; see [`prepare`].
pub async fn migrate(database: &Database) -> Result<Vec<String>, DatabaseError> {
    let mut said = false;
    loop {
        match migrations::migrate(database, migrations::all(), RetryLimits::default()).await {
            Ok(applied) => {
                if said {
                    tracing::info!("Postgres is available");
                }
                return Ok(applied);
            }
            Err(DatabaseError::Refused(error)) if is_untrusted(&error, database) => {
                return Err(DatabaseError::Tls(error));
            }
            Err(DatabaseError::Refused(error)) if is_unavailable(&error) => {
                if !said {
                    tracing::warn!(%error, "Postgres is unavailable; waiting");
                    said = true;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether TLS can't be used as configured. Waiting does not fix a certificate, so an untrusted
/// server must not be treated as unavailable.
fn is_untrusted(error: &sqlx::Error, database: &Database) -> bool {
    match error {
        sqlx::Error::Tls(_) => true,
        sqlx::Error::Io(error) => match error.kind() {
            // rustls rejected the server's certificate.
            io::ErrorKind::InvalidData => true,
            // The file of `sslrootcert`, unless the path may be the socket of an unavailable
            // server.
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                let options = database.options();
                options.get_socket().is_none() && !options.get_host().starts_with('/')
            }
            _ => false,
        },
        _ => false,
    }
}
