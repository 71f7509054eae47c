//! What a migration would do to those who write while it runs, measured: which
//! locks it holds, which tables it writes anew or reads to the end.
//!
//! In a table of a thousand rows each of these takes no time. In one of a
//! hundred million it takes minutes, and a shop that can't store carts for minutes is down.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{Connection as _, PgConnection, migrate::Migration};

/// These never grow beyond some hundred rows: what is done to them takes no time.
const SMALL: [&str; 8] = [
    "_sqlx_migrations",
    "cart_totals",
    "queues",
    "rate_limits",
    "refused_webhooks",
    "schedule_slots",
    "schedules",
    "workers",
];

/// An index scan that reads more than this of the thousand rows reads all there are.
const FEW_ROWS: i64 = 100;

/// The tables that may be big: those there are already.
#[derive(Debug, Clone)]
pub struct BigTables(BTreeSet<String>);

/// One of them, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
struct Seen {
    name: String,
    /// Which file it is in.
    file: i64,
    scans: i64,
    fetched: i64,
    changed: i64,
    /// The lock that this session holds and that keeps others from writing.
    locked: Option<String>,
}

impl BigTables {
    /// Every table of the database but the small ones.
    ///
    /// # Panics
    /// If Postgres is away.
    pub async fn of(conn: &mut PgConnection) -> Self {
        let seen = look(conn).await;
        Self(seen.into_iter().map(|table| table.name).filter(|name| !SMALL.contains(&name.as_str())).collect())
    }

    /// Applies the migration and tells what harm it does; nothing is best.
    ///
    /// # Panics
    /// If it fails.
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
        // Whatever is locked stays so until the transaction ends: what is read
        // before it is locked is refused, too, because the order is easily changed.
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

/// All tables, as this transaction sees them and what it did to them.
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

/// Outside a transaction goes what can't be within one: a single statement that
/// builds, or drops, an index while others write.
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
