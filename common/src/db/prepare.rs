//! Waits for Postgres at the start of a process, and brings the schema up to date.

use std::{io, time::Duration};

use queue::Database;

use super::{
    errors::{DatabaseError, is_unavailable},
    migrations::{self, Patience},
};

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
                let options = database.options();
                options.get_socket().is_none() && !options.get_host().starts_with('/')
            }
            _ => false,
        },
        _ => false,
    }
}
