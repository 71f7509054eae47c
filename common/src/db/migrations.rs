//! Migrates the schema while other processes, of this or the previous version, keep running.
//!
//! Each migration runs in its own transaction, so that its locks are released as soon as possible.
//! Postgres grants locks in the order of requests: while a migration waits for a lock, all later
//! statements on that table wait behind it, reads included. So a migration waits for at most two
//! seconds, rolls back, and retries after a pause. `CONTRIBUTING.md` explains how to write one.

use std::{collections::HashMap, time::Duration};

use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection,
    migrate::{MigrateError, Migration, Migrator},
};

use queue::{Connection, Database};

use super::errors::{self, DatabaseError, is_forbidden, is_unavailable};

/// The advisory lock that lets one process migrate at a time. Version 0.1.0 uses the lock ending in
/// 01 and blocks on it within a statement. `create index concurrently` waits for such statements,
/// so using the same lock would deadlock.
const MIGRATION_LOCK: i64 = 0x51_43_54_02;
/// The poll interval while another process migrates.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Limits of a migration's attempts to get its locks.
#[derive(Debug, Clone, Copy)]
pub struct RetryLimits {
    /// The lock timeout of each attempt. Other statements wait behind the migration at most this
    /// long.
    pub lock_timeout: Duration,
    /// Pause between attempts.
    pub pause: Duration,
    /// Maximum number of attempts.
    pub tries: u32,
}

impl Default for RetryLimits {
    /// Five minutes; other statements can be blocked for two of every five seconds.
    fn default() -> Self {
        Self { lock_timeout: Duration::from_secs(2), pause: Duration::from_secs(3), tries: 60 }
    }
}

/// The migrations that this binary contains.
pub fn all() -> Migrator {
    let mut migrator = sqlx::migrate!("../migrations");
    allow_newer(&mut migrator);
    migrator
}

/// Allows applied migrations that this binary does not contain: it must run, and restart, on the
/// schema of the next release.
fn allow_newer(migrator: &mut Migrator) {
    migrator.set_ignore_missing(true).set_locking(false);
}

/// The migrations of this binary that are not applied, or are applied with another checksum.
pub async fn pending(conn: &mut Connection) -> sqlx::Result<Vec<String>> {
    let migrator = all();
    let pending = pending_of(conn, &migrator).await?;
    Ok(pending.into_iter().map(name).collect())
}

fn name(migration: &Migration) -> String {
    format!("{} {}", migration.version, migration.description)
}

async fn pending_of<'m>(conn: &mut Connection, migrator: &'m Migrator) -> sqlx::Result<Vec<&'m Migration>> {
    // Reads the catalog: `to_regclass` may repeat, within a transaction, that the table is missing,
    // after another process has created it.
    let there: bool = sqlx::query_scalar(
        "select exists (select from pg_tables
                        where tablename = '_sqlx_migrations' and schemaname = any (current_schemas(false)))",
    )
    .fetch_one(&mut *conn)
    .await?;
    let applied: HashMap<i64, Vec<u8>> = if there {
        let rows: Vec<(i64, Vec<u8>)> =
            sqlx::query_as("select version, checksum from _sqlx_migrations where success").fetch_all(conn).await?;
        rows.into_iter().collect()
    } else {
        HashMap::new()
    };
    let is_pending =
        |migration: &&Migration| applied.get(&migration.version).map(Vec::as_slice) != Some(&*migration.checksum);
    Ok(migrator.iter().filter(is_pending).collect())
}

enum Step {
    /// This migration was applied; more may be pending.
    Applied(String),
    /// Another process is migrating.
    OthersTurn,
    /// No migration is pending.
    Done,
}

/// Applies the pending migrations one by one. Processes that start at the same time take turns.
/// Returns the migrations that this process applied.
///
/// # Errors
/// If Postgres is unavailable, the role may not migrate, a migration fails, or a lock can't be
/// acquired within the limits of `limits`.
pub async fn migrate(
    database: &Database,
    mut migrator: Migrator,
    limits: RetryLimits,
) -> Result<Vec<String>, DatabaseError> {
    allow_newer(&mut migrator);
    let (mut applied, mut tries, mut said) = (Vec::new(), 0, false);
    loop {
        match step(database, &migrator, limits.lock_timeout).await {
            Ok(Step::Done) => return Ok(applied),
            Ok(Step::Applied(name)) => {
                applied.push(name);
                tries = 0;
            }
            Ok(Step::OthersTurn) => {
                if !said {
                    tracing::info!("another process is migrating the schema; waiting");
                    said = true;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Err(Failure::Locked(version)) => {
                tries += 1;
                let holder = longest_transaction(database).await;
                if tries >= limits.tries {
                    return Err(DatabaseError::Locked { version, tries, holder });
                }
                tracing::warn!(version, tries, holder, "migration timed out waiting for a lock; retrying");
                tokio::time::sleep(limits.pause).await;
            }
            Err(Failure::Forbidden(cause)) => return Err(may_not(database, &migrator, cause).await),
            Err(Failure::Other(error)) => return Err(error),
        }
    }
}

enum Failure {
    /// This migration timed out waiting for a lock, or was chosen as the victim of a deadlock.
    Locked(i64),
    /// The role may not change the schema.
    Forbidden(sqlx::Error),
    Other(DatabaseError),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Other(DatabaseError::Refused(error))
    }
}

impl Failure {
    fn of(error: MigrateError, version: i64) -> Self {
        match error {
            MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) if is_locked(&cause) => {
                Self::Locked(version)
            }
            MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) if is_forbidden(&cause) => {
                Self::Forbidden(cause)
            }
            MigrateError::ExecuteMigration(error, _) if is_unavailable(&error) => error.into(),
            MigrateError::Execute(error) => error.into(),
            other => Self::Other(other.into()),
        }
    }
}

/// Whether the error is a lock timeout or a deadlock.
fn is_locked(error: &sqlx::Error) -> bool {
    errors::is_locked(error) || errors::is_deadlock(error)
}

async fn step(database: &Database, migrator: &Migrator, lock_timeout: Duration) -> Result<Step, Failure> {
    // A transaction: behind a pooler it keeps the same session and its lock.
    let mut tx = database.begin().await?;
    // If nothing is pending, don't wait for another process.
    if pending_of(&mut tx, migrator).await?.is_empty() {
        return Ok(Step::Done);
    }
    // Use try-lock: a blocked statement holds a snapshot, and `create index concurrently` would
    // wait for it (deadlock).
    let mine = sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock($1) as "mine!""#, MIGRATION_LOCK);
    if !mine.fetch_one(&mut tx).await? {
        return Ok(Step::OthersTurn);
    }
    // Another process may have applied migrations before the lock was acquired.
    let pending = pending_of(&mut tx, migrator).await?;
    let Some(next) = pending.first().copied() else { return Ok(Step::Done) };
    let is_used = sqlx::query_scalar!(r#"select to_regclass('jobs') is not null as "is_used!""#);
    if pending.len() == migrator.iter().count() && is_used.fetch_one(&mut tx).await? {
        return Err(Failure::Other(DatabaseError::BeforeFirstRelease));
    }
    // The migrator uses named prepared statements, which no other code does behind a pooler.
    // Deallocate them before the session serves another client.
    let forget = async |tx: &mut Connection| sqlx::raw_sql("deallocate all").execute(tx).await;
    if database.is_pooled() {
        forget(&mut tx).await?;
    }
    if next.no_tx {
        outside_a_transaction(database, &mut tx, next).await?;
    } else {
        let milliseconds = format!("{}ms", lock_timeout.as_millis());
        sqlx::query("select set_config('lock_timeout', $1, true)").bind(milliseconds).execute(&mut tx).await?;
    }
    // For a migration that ran outside of the transaction, this only records it.
    let applied = migrator.run_direct(Some(next.version), tx.inner(), next.no_tx).await;
    applied.map_err(|error| Failure::of(error, next.version))?;
    if database.is_pooled() {
        forget(&mut tx).await?;
    }
    tx.commit().await?;
    tracing::info!(version = next.version, description = %next.description, "the schema was migrated");
    Ok(Step::Applied(name(next)))
}

/// Builds the error for a role that may not change the schema.
async fn may_not(database: &Database, migrator: &Migrator, cause: sqlx::Error) -> DatabaseError {
    let look =
        async { Ok(pending_of(&mut database.acquire().await?, migrator).await?.into_iter().map(name).collect()) };
    let pending: Vec<String> = match look.await {
        Ok(pending) => pending,
        Err(error) => return DatabaseError::Refused(error),
    };
    let number = if pending.len() == 1 { "1 migration".to_owned() } else { format!("{} migrations", pending.len()) };
    let first = pending.first().map(|first| format!(" ({first} first)")).unwrap_or_default();
    let role = database.options().get_username().to_owned();
    DatabaseError::MayNotMigrate { pending: number + &first, role, cause }
}

/// Runs a migration such as `create index concurrently`, which may take long and does not block
/// writes. `tx` holds the migration lock meanwhile.
async fn outside_a_transaction(database: &Database, tx: &mut Connection, migration: &Migration) -> Result<(), Failure> {
    sqlx::query("select set_config('idle_in_transaction_session_timeout', '0', true)").execute(&mut *tx).await?;
    // An interrupted index build leaves an invalid index, and `if not exists` would skip the
    // rebuild.
    let broken: Vec<String> = sqlx::query_scalar(
        "select indexrelid::regclass::text from pg_index
         where not indisvalid and position(indexrelid::regclass::text in $1) > 0",
    )
    .bind(migration.sql.as_str())
    .fetch_all(&mut *tx)
    .await?;
    let mut conn = PgConnection::connect_with(database.options()).await?;
    if !database.is_pooled() {
        sqlx::raw_sql("set statement_timeout = 0; set lock_timeout = 0").execute(&mut conn).await?;
    }
    for index in broken {
        let drop_index = AssertSqlSafe(format!("drop index concurrently {index}"));
        sqlx::raw_sql(drop_index).execute(&mut conn).await?;
    }
    let done = sqlx::raw_sql(migration.sql.clone()).execute(&mut conn).await;
    done.map_err(|error| Failure::of(MigrateError::ExecuteMigration(error, migration.version), migration.version))?;
    let _ = conn.close().await;
    Ok(())
}

/// Describes the oldest transaction. The holder of the lock is not known any more after the
/// time-out; the oldest transaction is the most likely one.
async fn longest_transaction(database: &Database) -> String {
    let look = async {
        sqlx::query_as(
            "select pid, coalesce(application_name, ''), extract(epoch from now() - xact_start)::bigint
             from pg_stat_activity
             where datname = current_database() and pid <> pg_backend_pid() and xact_start is not null
             order by xact_start limit 1",
        )
        .fetch_optional(&mut database.acquire().await?)
        .await
    };
    let found: sqlx::Result<Option<(i32, String, i64)>> = look.await;
    match found {
        Ok(Some((pid, name, seconds))) => {
            format!("the oldest transaction is {seconds} s old, of Postgres process {pid} {name:?}")
        }
        _ => "no long transaction is to be seen".to_owned(),
    }
}
