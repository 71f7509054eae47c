//! `worker doctor`: limits of Postgres that end in failing writes, before they are reached.

use common::db::{Database, snapshots};

use super::check::Check;

/// The share of the NOTIFY queue that is worth knowing. It is usually empty: Postgres removes a
/// notification as soon as every session that listens has read it.
const QUEUE_WORTH_KNOWING: f64 = 0.1;
/// The share of the NOTIFY queue at which Postgres itself warns in its log
/// (<https://www.postgresql.org/docs/current/sql-notify.html>).
const QUEUE_TOO_FULL: f64 = 0.5;
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

/// The oldest snapshot, which keeps Postgres from removing dead rows.
pub(super) async fn snapshots(database: &Database) -> sqlx::Result<Check> {
    let name = "snapshots";
    let Some(oldest) = snapshots::oldest(&mut database.acquire().await?).await? else {
        return Ok(Check::ok(name, "nobody holds one"));
    };
    let hint = match oldest.is_hidden {
        true => "; this role may not see its client and state (`grant pg_read_all_stats` shows them)",
        false => "",
    };
    let text = format!("the oldest is held by {oldest}{hint}");
    Ok(match oldest.is_old() {
        true => Check::warn(name, format!("{text}. {}", oldest.advice())),
        false => Check::ok(name, text),
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
