//! Measures which locks a migration holds and which tables it rewrites or scans.
//!
//! All of these are fast in a table of a thousand rows. In a table of a hundred million rows each
//! takes minutes, during which the shop can't store carts.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{Connection as _, PgConnection, migrate::Migration};

/// Tables that never exceed some hundred rows, so that any change of them is fast.
const SMALL: [&str; 9] = [
    "_sqlx_migrations",
    "cart_count_progress",
    "cart_totals",
    "queues",
    "rate_limits",
    "refused_webhooks",
    "schedule_slots",
    "schedules",
    "workers",
];

/// An index scan that reads more than this of the thousand rows reads the whole table.
const FEW_ROWS: i64 = 100;

/// The tables that may be large: all that exist before the migration.
#[derive(Debug, Clone)]
pub struct BigTables(BTreeSet<String>);

/// The state of a table at one moment.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
struct Seen {
    name: String,
    /// The file that stores it.
    file: i64,
    scans: i64,
    fetched: i64,
    changed: i64,
    /// The lock of this session that blocks writes to it.
    locked: Option<String>,
}

impl BigTables {
    /// All tables of the database except the small ones.
    ///
    /// # Panics
    /// If Postgres is unavailable.
    pub async fn of(conn: &mut PgConnection) -> Self {
        let seen = look(conn).await;
        Self(seen.into_iter().map(|table| table.name).filter(|name| !SMALL.contains(&name.as_str())).collect())
    }

    /// Applies the migration; returns the harm that it does, empty if none.
    ///
    /// # Panics
    /// If the migration fails.
    pub async fn harm_of(&self, conn: &mut PgConnection, migration: &Migration) -> Vec<String> {
        if migration.no_tx {
            sqlx::raw_sql(migration.sql.clone()).execute(conn).await.expect("the migration works");
            return harm_outside_a_transaction(migration.sql.as_str()).into_iter().collect();
        }
        let mut tx = conn.begin().await.expect("Postgres is there");
        let before = self.look(&mut tx).await;
        sqlx::raw_sql(migration.sql.clone()).execute(&mut *tx).await.expect("the migration works");
        let after = self.look(&mut tx).await;
        tx.commit().await.expect("the migration works");
        self.compare(&before, &after)
    }

    async fn look(&self, conn: &mut PgConnection) -> BTreeMap<String, Seen> {
        let seen = look(conn).await.into_iter().filter(|table| self.0.contains(&table.name));
        seen.map(|table| (table.name.clone(), table)).collect()
    }

    fn compare(&self, before: &BTreeMap<String, Seen>, after: &BTreeMap<String, Seen>) -> Vec<String> {
        let mut harm = Vec::new();
        // A lock is held until the end of the transaction. Reads before the lock are rejected too,
        // because the order is easily changed.
        let locked = after.values().find_map(|table| Some((&table.name, table.locked.as_ref()?)));
        for (name, before) in before {
            let Some(after) = after.get(name) else {
                harm.push(format!("it drops {name}, which the last release uses"));
                continue;
            };
            if before.file != after.file {
                harm.push(format!("it writes all of {name} anew, and nobody can use it meanwhile"));
            } else if after.changed > before.changed {
                harm.push(format!("it changes rows of {name} at once; a job does so batch by batch"));
            } else if let Some((other, mode)) = locked
                && (after.scans > before.scans || after.fetched > before.fetched + FEW_ROWS)
            {
                harm.push(format!("it reads all of {name} while {mode} on {other} keeps others from writing"));
            }
        }
        harm
    }
}

/// All tables as seen by this transaction, with its effects on them.
async fn look(conn: &mut PgConnection) -> Vec<Seen> {
    sqlx::query_as(
        "select relname::text as name, pg_relation_filenode(relid)::bigint as file, seq_scan as scans,
                coalesce(idx_tup_fetch, 0) as fetched, n_tup_ins + n_tup_upd + n_tup_del as changed,
                (select mode from pg_locks
                 where pid = pg_backend_pid() and locktype = 'relation' and relation = relid and granted
                   and mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
                 order by mode limit 1) as locked
         from pg_stat_xact_user_tables order by 1",
    )
    .fetch_all(conn)
    .await
    .expect("Postgres is there")
}

/// Only one kind of statement may run outside of a transaction: building or dropping an index
/// concurrently.
fn harm_outside_a_transaction(sql: &str) -> Option<String> {
    let lines = sql.lines().map(|line| line.split_once("--").map_or(line, |(before, _)| before));
    let sql = lines.collect::<Vec<_>>().join(" ").to_lowercase();
    let mut statements = sql.split(';').map(str::trim).filter(|statement| !statement.is_empty());
    let (Some(statement), None) = (statements.next(), statements.next()) else {
        return Some("without a transaction it must be one statement: half of several would stay".to_owned());
    };
    let concurrently = statement.split_whitespace().any(|word| word == "concurrently");
    if !concurrently {
        return Some("without a transaction it must be `concurrently`; all else goes into a transaction".to_owned());
    }
    if statement.starts_with("create") && !statement.contains("if not exists") {
        return Some("it must be `if not exists`: the process may end before it is written down as done".to_owned());
    }
    if statement.starts_with("drop") && !statement.contains("if exists") {
        return Some("it must be `if exists`: the process may end before it is written down as done".to_owned());
    }
    None
}
