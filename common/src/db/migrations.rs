//! Brings the schema up to date while other processes, of this version or the
//! one before, go on serving.
//!
//! Each migration is a transaction of its own: what it locks is free again as
//! soon as it is done. One that has to wait for a lock has everybody who comes
//! after it wait, too, readers included, because Postgres grants locks in the
//! order of asking. So it waits for two seconds at most, makes way, and tries
//! again. `docs/changing.md` says how to write one.

use std::{collections::HashMap, time::Duration};

use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection,
    migrate::{MigrateError, Migration, Migrator},
};

use queue::{Connection, Database, has_sql_state};

use super::errors::{DatabaseError, is_forbidden, is_unavailable};

/// Two processes must not migrate at once; the number is this product's own.
/// (0.1.0 waits for another one, ending in 01, within a statement. An index that
/// is built concurrently waits for such statements: they would wait in a circle.)
const MIGRATION_LOCK: i64 = 0x51_43_54_02;
/// How soon to look again while somebody else migrates.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long a migration stands in the way while it waits for a lock, and how often it tries.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Others wait behind it for no longer than this.
    pub lock_timeout: Duration,
    /// Their time, until it tries again.
    pub pause: Duration,
    /// After so many tries it gives up.
    pub tries: u32,
}

impl Default for Patience {
    /// Five minutes, of which others wait two seconds in five.
    fn default() -> Self {
        Self { lock_timeout: Duration::from_secs(2), pause: Duration::from_secs(3), tries: 60 }
    }
}

/// This binary's migrations.
pub fn all() -> Migrator {
    let mut migrator = sqlx::migrate!("../migrations");
    allow_newer(&mut migrator);
    migrator
}

/// A binary may start, or start again, where a newer one has migrated already: a
/// release works on the schema of the next.
fn allow_newer(migrator: &mut Migrator) {
    migrator.set_ignore_missing(true).set_locking(false);
}

/// Migrations of this binary that the database does not have, or has in another form.
pub async fn pending(conn: &mut Connection) -> sqlx::Result<Vec<String>> {
    let migrator = all();
    let pending = pending_of(conn, &migrator).await?;
    Ok(pending.into_iter().map(name).collect())
}

fn name(migration: &Migration) -> String {
    format!("{} {}", migration.version, migration.description)
}

async fn pending_of<'m>(conn: &mut Connection, migrator: &'m Migrator) -> sqlx::Result<Vec<&'m Migration>> {
    let there: bool =
        sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null").fetch_one(&mut *conn).await?;
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
    /// This migration was applied; there may be more.
    Applied(String),
    /// Another process is at it.
    OthersTurn,
    /// Nothing is left to do.
    Done,
}

/// Applies what the database does not have yet, one after the other. Processes
/// that start side by side take turns. Answers what it applied itself.
///
/// # Errors
/// If Postgres is away, the role may not migrate, a migration fails, or a lock is not to be had for as long as `patience` says.
pub async fn migrate(
    database: &Database,
    mut migrator: Migrator,
    patience: Patience,
) -> Result<Vec<String>, DatabaseError> {
    allow_newer(&mut migrator);
    let (mut applied, mut tries, mut said) = (Vec::new(), 0, false);
    loop {
        match step(database, &migrator, patience.lock_timeout).await {
            Ok(Step::Done) => return Ok(applied),
            Ok(Step::Applied(name)) => {
                applied.push(name);
                tries = 0;
            }
            Ok(Step::OthersTurn) => {
                if !said {
                    tracing::info!("another process brings the schema up to date, waiting for it");
                    said = true;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Err(Failure::Locked(version)) => {
                tries += 1;
                let holder = longest_transaction(database).await;
                if tries >= patience.tries {
                    return Err(DatabaseError::Locked { version, tries, holder });
                }
                tracing::warn!(version, tries, holder, "a migration made way: it did not get its lock in time");
                tokio::time::sleep(patience.pause).await;
            }
            Err(Failure::Forbidden(cause)) => return Err(may_not(database, &migrator, cause).await),
            Err(Failure::Other(error)) => return Err(error),
        }
    }
}

enum Failure {
    /// This migration did not get a lock in time.
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

/// Whether it was a lock that was not to be had: within `lock_timeout`, or without a deadlock.
fn is_locked(error: &sqlx::Error) -> bool {
    has_sql_state(error, &["55P03", "40P01"])
}

async fn step(database: &Database, migrator: &Migrator, lock_timeout: Duration) -> Result<Step, Failure> {
    // A transaction: behind a pooler a session, and a lock that belongs to one, is ours for no longer than that.
    let mut tx = database.begin().await?;
    // Who has nothing to do waits for nobody, whatever a newer one is doing.
    if pending_of(&mut tx, migrator).await?.is_empty() {
        return Ok(Step::Done);
    }
    // Tried, not waited for: a statement that waits is something that an index which is built concurrently waits for.
    let mine = sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock($1) as "mine!""#, MIGRATION_LOCK);
    if !mine.fetch_one(&mut tx).await? {
        return Ok(Step::OthersTurn);
    }
    // Somebody may have been faster.
    let Some(next) = pending_of(&mut tx, migrator).await?.first().copied() else { return Ok(Step::Done) };
    // The migrator names its statements, as nothing else does behind a pooler:
    // the names go before the session serves somebody else.
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
    // What was done outside is only written down here.
    let applied = migrator.run_direct(Some(next.version), tx.inner(), next.no_tx).await;
    applied.map_err(|error| Failure::of(error, next.version))?;
    if database.is_pooled() {
        forget(&mut tx).await?;
    }
    tx.commit().await?;
    tracing::info!(version = next.version, description = %next.description, "the schema was migrated");
    Ok(Step::Applied(name(next)))
}

/// What to say where changing the schema is another role's to do.
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

/// For `create index concurrently` and its like, which take as long as they take and keep nobody from writing.
/// Meanwhile `tx` holds the lock of who migrates.
async fn outside_a_transaction(database: &Database, tx: &mut Connection, migration: &Migration) -> Result<(), Failure> {
    sqlx::query("select set_config('idle_in_transaction_session_timeout', '0', true)").execute(&mut *tx).await?;
    // An index whose building was broken off stays, good for nothing, and `if not exists` would take it for one.
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

/// Who holds a lock can't be told afterwards; who has been at it for longest is the likeliest.
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
