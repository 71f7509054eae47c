//! `worker doctor`: limits of Postgres that end in failing writes, before they are reached.

use common::db::Database;

use super::check::Check;

/// The share of the NOTIFY queue that is worth knowing. It is usually empty: Postgres removes a
/// notification as soon as every session that listens has read it.
const QUEUE_WORTH_KNOWING: f64 = 0.1;
/// The share of the NOTIFY queue at which Postgres itself warns in its log
/// (<https://www.postgresql.org/docs/current/sql-notify.html>).
const QUEUE_TOO_FULL: f64 = 0.5;
/// Seconds that a snapshot may be held: as long as a backup takes.
const SNAPSHOT_SECONDS: f64 = 60.0 * 60.0;
/// The age in transactions that is too much for a snapshot whose age in seconds is unknown: about an
/// hour at 300 writes a second.
const SNAPSHOT_TRANSACTIONS: i32 = 1_000_000;
/// At this age beyond `autovacuum_freeze_max_age`, the vacuum that it starts has not done its work.
/// Postgres' own limits are 200 million, and 2,100 million for the end of all writes
/// (<https://www.postgresql.org/docs/current/routine-vacuuming.html#VACUUM-FOR-WRAPAROUND>).
const LATE_BY: i32 = 300_000_000;
/// The age at which Postgres vacuums by all means (the default of `vacuum_failsafe_age`).
const FAILSAFE: i32 = 1_600_000_000;

/// How full the NOTIFY queue is. When it is full, NOTIFY fails for every program of the server.
pub(super) async fn notifications(database: &Database) -> sqlx::Result<Check> {
    let used: f64 = sqlx::query_scalar("select pg_notification_queue_usage()::float8")
        .fetch_one(&mut database.acquire().await?)
        .await?;
    let name = "notifications";
    let text = format!("the NOTIFY queue is {:.0} % full", used * 100.0);
    let advice = "a session that listens has had a transaction open for long; end it: `select pid, application_name, \
                  xact_start from pg_stat_activity order by xact_start limit 5`";
    Ok(if used >= QUEUE_TOO_FULL {
        Check::fail(name, format!("{text}; when it is full, jobs and links are found by polling alone: {advice}"))
    } else if used >= QUEUE_WORTH_KNOWING {
        Check::warn(name, format!("{text}: {advice}"))
    } else {
        Check::ok(name, text)
    })
}

/// The oldest snapshot that keeps Postgres from removing dead rows: of a session (also of a standby
/// with `hot_standby_feedback`), a prepared transaction, or a replication slot.
pub(super) async fn snapshots(database: &Database) -> sqlx::Result<Check> {
    // Postgres hides the times of other roles' sessions, but neither their name nor their snapshot.
    // Sessions without a user are Postgres' own (autovacuum), which it does not wait for.
    let oldest: Option<(String, Option<f64>, i32)> = sqlx::query_as(
        "select holder, extract(epoch from now() - since)::float8, age(snapshot) from (
             select format('session %s (%s)', pid, coalesce(nullif(application_name, ''), usename)) as holder,
                    xact_start as since, backend_xmin as snapshot
             from pg_stat_activity where usesysid is not null and pid <> pg_backend_pid()
             union all
             select format('the prepared transaction %L', gid), prepared, transaction from pg_prepared_xacts
             union all
             select format('the replication slot %L', slot_name), null, xmin from pg_replication_slots
         ) held where snapshot is not null order by age(snapshot) desc limit 1",
    )
    .fetch_optional(&mut database.acquire().await?)
    .await?;
    let name = "snapshots";
    let Some((holder, seconds, transactions)) = oldest else { return Ok(Check::ok(name, "nobody holds one")) };
    let held = seconds.map_or_else(
        || "for a time that this role may not see (grant it pg_read_all_stats)".to_owned(),
        |seconds| format!("for {:.0} min", seconds / 60.0),
    );
    let text = format!("the oldest is {transactions} transactions old and held {held} by {holder}");
    let is_old = seconds.map_or(transactions >= SNAPSHOT_TRANSACTIONS, |seconds| seconds >= SNAPSHOT_SECONDS);
    Ok(if is_old {
        let advice = "tables grow, because dead rows can't be removed; end the session or transaction, drop the slot";
        Check::warn(name, format!("{text}: {advice}"))
    } else {
        Check::ok(name, text)
    })
}

/// The age of the oldest transaction id of the server.
pub(super) async fn transaction_ids(database: &Database) -> sqlx::Result<Check> {
    let (oldest, age, freeze_max_age): (String, i32, i32) = sqlx::query_as(
        "select datname::text, age(datfrozenxid), current_setting('autovacuum_freeze_max_age')::int
         from pg_database order by age(datfrozenxid) desc limit 1",
    )
    .fetch_one(&mut database.acquire().await?)
    .await?;
    let name = "transactions";
    let text = format!("the oldest id, of database {oldest}, is {} million transactions old", age / 1_000_000);
    let advice = "autovacuum does not keep up; end old snapshots, and run `vacuum (freeze)` in that database";
    Ok(if age >= FAILSAFE {
        Check::fail(name, format!("{text}, and at 2,100 million Postgres refuses every write: {advice}"))
    } else if age >= freeze_max_age.saturating_add(LATE_BY) {
        Check::warn(name, format!("{text}: {advice}"))
    } else {
        Check::ok(name, text)
    })
}
