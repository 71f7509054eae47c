//! Migrations: their effects on a database in use, and how they get their locks.

use std::{path::Path, time::Duration};

use common::db::{
    Database, DatabaseError, Listen,
    migrations::{self, RetryLimits},
};
use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection, PgPool, SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};
use tests::{LastRelease, TestDatabase, eventually, migration_harm::BigTables, pooler::Pooler};

const SQL_OF_MIGRATIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations");
/// Later than any real version.
const LATER: i64 = 99_990_101_000_000;

fn made_up(number: i64, sql: &str) -> Migration {
    let no_tx = sql.starts_with("-- no-transaction");
    let sql = AssertSqlSafe(sql.to_owned()).into_sql_str();
    Migration::new(LATER + number, "made up".into(), MigrationType::Simple, sql, no_tx)
}

/// The product's migrations, followed by these.
fn and_then(sql: &[&str]) -> Migrator {
    let mut all = migrations::all().migrations.into_owned();
    all.extend((1..).zip(sql).map(|(number, sql)| made_up(number, sql)));
    Migrator::with_migrations(all)
}

async fn exec(conn: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// A database of the last release, with a thousand rows in each table that may be large.
async fn last_release() -> (TestDatabase, PgConnection, BigTables) {
    let database = TestDatabase::create().await.empty().await;
    let mut conn = PgConnection::connect(&database.url).await.unwrap();
    let migrator = Migrator::new(Path::new(SQL_OF_MIGRATIONS)).await.unwrap();
    migrator.run_direct(Some(LastRelease::get().migration), &mut conn, false).await.unwrap();
    exec(
        &mut conn,
        "insert into carts (id, customer_email, customer_name, items, total_minor, currency)
             select 'cart_' || n, n || '@example.com', 'Ada', '[]', n, 'usd' from generate_series(1, 1000) n;
         insert into jobs (id, queue, kind, payload, max_attempts)
             select gen_random_uuid(), 'expiry', 'expire_carts', '{}', 3 from generate_series(1, 1000);
         insert into payment_links (cart_id, version, job_id, session_expires_at, created_at, updated_at)
             select id, 1, gen_random_uuid(), now(), now(), now() from carts;
         insert into recovery_links (token_hash, token, cart_id, expires_at)
             select sha256(id::bytea), id, id, now() from carts;
         insert into stripe_events (id, kind, created_at, received_at, effect)
             select 'evt_' || n, 'made.up', now(), now(), 'none' from generate_series(1, 1000) n;
         insert into cart_events (cart_id, at, kind) select id, now(), 'recovery_link_opened' from carts;
         insert into idempotency_keys (key_hash, body_hash, cart_id) select sha256(id::bytea), '', id from carts;",
    )
    .await;
    exec(&mut conn, "vacuum analyze").await;
    let big = BigTables::of(&mut conn).await;
    (database, conn, big)
}

#[tokio::test]
async fn no_migration_since_the_last_release_blocks_writes() {
    let (_database, mut conn, big) = last_release().await;
    let migrator = Migrator::new(Path::new(SQL_OF_MIGRATIONS)).await.unwrap();
    for migration in migrator.iter().filter(|migration| migration.version > LastRelease::get().migration) {
        let harm = big.harm_of(&mut conn, migration).await;
        assert!(
            harm.is_empty(),
            "migrations/{}_…: {harm:#?}\nCONTRIBUTING.md says how to write it instead",
            migration.version
        );
    }
}

/// A migration must have a higher number than all of the last release, which its databases have
/// already.
#[tokio::test]
async fn the_last_release_file_is_correct() {
    let last = LastRelease::get();
    let migrator = migrations::all();
    assert!(migrator.version_exists(last.migration), "migrations/{}_… is gone", last.migration);
    if !last.is_in_history() {
        return; // the reason is printed; `.ci/run` builds it, and fails without
    }
    let had = last.migrations();
    assert_eq!(had.iter().max(), Some(&last.migration));
    let now: Vec<i64> = migrator.iter().map(|migration| migration.version).collect();
    let older: Vec<i64> = now.into_iter().filter(|version| *version <= last.migration).collect();
    assert_eq!(older, had, "migrations up to the last release are its own: none is gone, none came later");
}

#[tokio::test]
async fn harm_is_found() {
    let (_database, mut conn, big) = last_release().await;
    let harmless = [
        "alter table carts add column a text",
        "alter table carts add column b integer not null default 7",
        "alter table carts add constraint c check (total_minor < 1e15) not valid",
        // A constraint that is already known needs no scan.
        "alter table carts drop constraint c; create table new (id text primary key references carts); insert into new select 'cart_1'",
        "create function f() returns trigger language plpgsql as $$ begin return null; end $$;
         create trigger t after insert on carts for each row execute function f()",
        "update queues set paused_at = null; select count(*) from carts",
        "-- no-transaction\n-- Why; it is long.\ncreate index concurrently if not exists i on carts (customer_name);",
        "-- no-transaction\ndrop index concurrently if exists i",
    ];
    for (number, sql) in (1..).zip(harmless) {
        assert_eq!(big.harm_of(&mut conn, &made_up(number, sql)).await, [""; 0], "{sql}");
    }
    let harmful = [
        ("alter table carts add column d timestamptz default clock_timestamp()", "it writes all of carts anew"),
        ("alter table jobs alter column attempts type bigint", "it writes all of jobs anew"),
        ("truncate idempotency_keys", "it writes all of idempotency_keys anew"),
        ("create index on carts (customer_name)", "it reads all of carts while ShareLock on carts"),
        ("alter table carts add check (total_minor < 1e15)", "it reads all of carts while AccessExclusiveLock"),
        ("alter table payment_links alter column url set not null", "it reads all of payment_links"),
        (
            "alter table cart_events add foreign key (cart_id) references carts",
            "it reads all of cart_events while ShareRowExclusiveLock",
        ),
        (
            "alter table carts add constraint e check (true) not valid; alter table carts validate constraint e",
            "it reads all of carts while",
        ),
        ("lock table carts in share mode; select count(*) from jobs", "it reads all of jobs while ShareLock on carts"),
        ("update jobs set last_error = ''", "it changes rows of jobs at once"),
        ("delete from stripe_events where id = 'evt_1'", "it changes rows of stripe_events at once"),
        ("drop table cart_counts cascade", "it drops cart_counts"),
        ("-- no-transaction\ncreate index if not exists g on jobs (kind)", "it must be `concurrently`"),
        ("-- no-transaction\ncreate index concurrently h on jobs (kind)", "it must be `if not exists`"),
        ("-- no-transaction\ndrop index concurrently h", "it must be `if exists`"),
    ];
    for (number, (sql, complaint)) in (1..).zip(harmful) {
        // Add rows, so that a column may become `not null`.
        exec(&mut conn, "update payment_links set url = ''").await;
        let harm = big.harm_of(&mut conn, &made_up(number, sql)).await;
        assert!(harm.iter().any(|harm| harm.contains(complaint)), "{sql}: {harm:?}");
    }
}

async fn has_column(pool: &PgPool, column: &str) -> bool {
    sqlx::query_scalar(
        "select exists (select from information_schema.columns where table_name = 'carts' and column_name = $1)",
    )
    .bind(column)
    .fetch_one(pool)
    .await
    .unwrap()
}

/// Stores a cart; returns the duration.
async fn store(pool: &PgPool) -> Duration {
    let begun = std::time::Instant::now();
    sqlx::query(
        "insert into carts (id, customer_email, customer_name, items, total_minor, currency)
         values (gen_random_uuid()::text, 'ada@example.com', 'Ada', '[]', 1, 'usd')",
    )
    .execute(pool)
    .await
    .unwrap();
    begun.elapsed()
}

const SHORT_LIMITS: RetryLimits =
    RetryLimits { lock_timeout: Duration::from_millis(300), pause: Duration::from_millis(200), tries: 1000 };

fn reach(database: &TestDatabase) -> Database {
    database.reach(Listen::Directly, 2)
}

/// A long report reads the carts. A migration that waited for it would block all writers.
#[tokio::test]
async fn a_migration_that_does_not_get_its_lock_yields_and_retries() {
    let database = TestDatabase::create().await;
    let pool = database.pool(3);
    let mut report = pool.begin().await.unwrap();
    sqlx::query("select count(*) from carts").execute(&mut *report).await.unwrap();
    let migrator = and_then(&["alter table carts add column made_up text"]);
    let migrating = tokio::spawn({
        let database = reach(&database);
        async move { migrations::migrate(&database, migrator, SHORT_LIMITS).await }
    });
    let waiting = "select count(*) from pg_locks join pg_database on oid = database
                   where datname = current_database() and not granted and mode = 'AccessExclusiveLock'";
    let mut longest = Duration::ZERO;
    for _ in 0..3 {
        eventually("the migration waits for its lock", async || {
            sqlx::query_scalar::<_, i64>(waiting).fetch_one(&pool).await.unwrap() == 1
        })
        .await;
        longest = longest.max(store(&pool).await);
    }
    assert!(longest < tests::DEADLINE, "a cart waited for {longest:?}, as long as the report");
    assert!(!migrating.is_finished() && !has_column(&pool, "made_up").await);
    report.commit().await.unwrap();
    migrating.await.unwrap().unwrap();
    assert!(has_column(&pool, "made_up").await);
}

#[tokio::test]
async fn a_migration_gives_up_and_names_the_probable_blocker() {
    let database = TestDatabase::create().await;
    let pool = database.pool(3);
    let mut report = pool.begin().await.unwrap();
    sqlx::raw_sql("set application_name = 'report'; lock table carts in access share mode")
        .execute(&mut *report)
        .await
        .unwrap();
    let migrator = and_then(&["create table made_up ()", "alter table carts add column made_up text"]);
    let limits = RetryLimits { tries: 2, ..SHORT_LIMITS };
    let error = migrations::migrate(&reach(&database), migrator, limits).await.unwrap_err();
    let DatabaseError::Locked { version, tries, .. } = &error else { panic!("{error}") };
    assert_eq!((*version, *tries), (LATER + 2, 2));
    let line = error.to_string();
    assert!(line.contains("did not get its lock in 2 tries") && line.contains(r#""report""#), "{line}");
    assert!(!has_column(&pool, "made_up").await);
    let first: bool = sqlx::query_scalar("select to_regclass('made_up') is not null").fetch_one(&pool).await.unwrap();
    assert!(first, "what was done before stays done");
    store(&pool).await;
}

const INDEX: &str = "-- no-transaction\ncreate index concurrently if not exists made_up on carts (customer_name)";

async fn index_is_good(pool: &PgPool) -> Option<bool> {
    sqlx::query_scalar("select indisvalid from pg_index where indexrelid = to_regclass('made_up')")
        .fetch_optional(pool)
        .await
        .unwrap()
}

/// Three processes start at once; those that don't build the index must not hold a snapshot that
/// the build waits for.
#[tokio::test]
async fn an_index_is_built_while_others_write_and_start() {
    let database = TestDatabase::create().await;
    let pool = database.pool(3);
    // An interrupted attempt left this invalid index.
    store(&pool).await;
    store(&pool).await;
    let unique = "create unique index concurrently made_up on carts (customer_name)";
    sqlx::raw_sql(unique).execute(&pool).await.unwrap_err();
    assert_eq!(index_is_good(&pool).await, Some(false));
    // The build waits for transactions that write when it begins …
    let mut writer = pool.begin().await.unwrap();
    sqlx::query("update carts set customer_name = 'Grace'").execute(&mut *writer).await.unwrap();
    let migrating: Vec<_> = (0..3)
        .map(|_| {
            let database = reach(&database);
            let migrator = and_then(&[INDEX, "alter table carts add column made_up text"]);
            tokio::spawn(async move { migrations::migrate(&database, migrator, SHORT_LIMITS).await })
        })
        .collect();
    let building = "select count(*) from pg_stat_activity
                    where datname = current_database() and wait_event_type = 'Lock' and query like '%concurrently%'";
    eventually("it waits for the writer", async || {
        sqlx::query_scalar::<_, i64>(building).fetch_one(&pool).await.unwrap() == 1
    })
    .await;
    // … and blocks no one else: it would wait for such a writer forever.
    assert!(store(&pool).await < tests::DEADLINE);
    writer.commit().await.unwrap();
    for one in migrating {
        one.await.unwrap().unwrap();
    }
    assert_eq!(index_is_good(&pool).await, Some(true));
    assert!(has_column(&pool, "made_up").await);
}

#[tokio::test]
async fn migrations_work_behind_a_pooler() {
    let database = TestDatabase::create().await.empty().await;
    let Some(pooler) = Pooler::start(&database).await else { return };
    let by_way_of = database.by_way_of(pooler.address);
    for sql in [&[INDEX][..], &[INDEX, "alter table carts add column made_up text"]] {
        let reached = by_way_of.reach(Listen::Off, 2);
        migrations::migrate(&reached, and_then(sql), SHORT_LIMITS).await.unwrap();
    }
    let pool = database.pool(1);
    assert_eq!((index_is_good(&pool).await, has_column(&pool, "made_up").await), (Some(true), true));
}

/// After a rollback to the previous release, its binaries start on the newer schema.
#[tokio::test]
async fn a_schema_newer_than_the_binary_is_accepted() {
    let database = TestDatabase::create().await;
    let reached = reach(&database);
    migrations::migrate(&reached, and_then(&["alter table carts add column made_up text"]), SHORT_LIMITS)
        .await
        .unwrap();
    migrations::migrate(&reached, migrations::all(), SHORT_LIMITS).await.unwrap();
    let mut conn = reached.acquire().await.unwrap();
    assert_eq!(migrations::pending(&mut conn).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn a_schema_from_before_the_first_release_is_refused_with_advice() {
    let database = TestDatabase::create().await.empty().await;
    let pool = database.pool(1);
    sqlx::query("create table jobs (id uuid primary key)").execute(&pool).await.unwrap();
    let error = migrations::migrate(&reach(&database), migrations::all(), SHORT_LIMITS).await.unwrap_err();
    assert!(error.to_string().contains("delete .local/"), "{error}");
}

#[tokio::test]
async fn processes_that_start_at_once_migrate_an_empty_database() {
    for _ in 0..3 {
        let database = TestDatabase::create().await.empty().await;
        let starting: Vec<_> = (0..8)
            .map(|_| {
                let reached = reach(&database);
                tokio::spawn(async move { migrations::migrate(&reached, migrations::all(), SHORT_LIMITS).await })
            })
            .collect();
        for one in starting {
            one.await.unwrap().unwrap();
        }
    }
}
