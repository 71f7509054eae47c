//! `worker doctor`: checks everything that a worker needs.

use std::time::Duration;

use common::{
    clock::Clock,
    config::{ConfigError, Env},
    db::{self, Connection, Database, DatabaseConfig, Listen},
    jobs::QUEUES,
};
use uuid::Uuid;

use super::{
    check::{Check, CheckStatus},
    clocks, limits, payments, privileges, stripe_key,
};
use crate::WorkerConfig;

/// Timeout of each check.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for a notification, which takes milliseconds, and more on a busy machine.
const HEARD_WITHIN: Duration = Duration::from_secs(4);
/// With fewer free connections than this, running processes wait for each other.
const ALMOST_NONE: i64 = 3;
/// Seconds that a job may be ready; a longer wait means that there are no or too few workers.
const READY_FOR: i64 = 5 * 60;

/// Runs all checks, without those that need Postgres if it is unavailable.
///
/// # Errors
/// A variable that is missing or malformed.
pub async fn examine(env: &Env, config: &WorkerConfig, clock: &Clock) -> Result<Vec<Check>, ConfigError> {
    // Works behind a pooler too, so that a wrong setting of `QUEUE_LISTEN` is found.
    let settings: DatabaseConfig = env.read()?;
    let careful = Database::new(settings.options(), Listen::Off, 2);
    let listen = settings.listen();
    let configured = Database::new(settings.options(), listen.clone(), 1);

    let mut checks = Vec::new();
    match with_timeout(reachable(&careful)).await {
        Ok(check) => {
            checks.push(check);
            checks.push(look("migrations", migrations(&careful)).await);
            checks.push(look("privileges", privileges::examine(&careful)).await);
            checks.push(look("clock", clocks::of_this_machine(&careful, clock)).await);
            checks.push(look("api clock", clocks::of_the_api(&careful, config)).await);
            checks.push(look("connections", room(&careful, settings.max_connections)).await);
            let notifications = look("notifications", limits::notifications(&careful)).await;
            // A new listener first reads all that is in the queue.
            checks.push(match notifications.status {
                CheckStatus::Fail => {
                    Check::fail("listen", "not tried, because NOTIFY does not work: see notifications")
                }
                _ => listening(&careful, &configured, &listen).await,
            });
            checks.push(notifications);
            checks.push(look("snapshots", limits::snapshots(&careful)).await);
            checks.push(look("transactions", limits::transaction_ids(&careful)).await);
            checks.push(look("schedules", overdue(&careful)).await);
            checks.push(look("queues", waiting(&careful)).await);
            checks.push(look("dead jobs", dead(&careful)).await);
            checks.push(look("payments", payments::examine(&careful, clock)).await);
        }
        Err(why) => {
            checks.push(Check::fail("database", format!("Postgres can't be used: {why}; see DATABASE_URL")));
        }
    }
    checks.push(stripe_key::examine(config, &careful).await);
    careful.close();
    configured.close();
    Ok(checks)
}

async fn with_timeout<T>(asked: impl Future<Output = sqlx::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(TIMEOUT, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {TIMEOUT:?}")),
    }
}

async fn look(name: &'static str, asked: impl Future<Output = sqlx::Result<Check>>) -> Check {
    with_timeout(asked).await.unwrap_or_else(|why| Check::fail(name, format!("can't be looked at: {why}")))
}

async fn reachable(database: &Database) -> sqlx::Result<Check> {
    let number: i32 = sqlx::query_scalar("select current_setting('server_version_num')::int")
        .fetch_one(&mut database.acquire().await?)
        .await?;
    let version = format!("Postgres {}.{}", number / 10_000, number % 10_000);
    Ok(if number >= 140_000 {
        Check::ok("database", format!("{version} answers"))
    } else {
        Check::fail("database", format!("{version} is too old: 14 or newer is needed"))
    })
}

async fn migrations(database: &Database) -> sqlx::Result<Check> {
    let pending = db::pending_migrations(&mut database.acquire().await?).await?;
    Ok(if pending.is_empty() {
        Check::ok("migrations", "the schema is current")
    } else {
        let pending = pending.join(", ");
        Check::fail("migrations", format!("not applied, or changed: {pending}; a starting api or worker applies them"))
    })
}

async fn room(database: &Database, max_connections: u32) -> sqlx::Result<Check> {
    let needed = i64::from(max_connections);
    // The minimum of what the limits of the server, the database and the role leave.
    let (free, allowed): (i64, i64) = sqlx::query_as(
        "select least(server.allowed - server.used, base.allowed - base.used, role.allowed - role.used),
                least(server.allowed, base.allowed, role.allowed)
         from (select current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint as allowed,
                      -- An ordinary role sees other roles' sessions, but not their backend_type.
                      (select count(*) from pg_stat_activity
                       where backend_type = 'client backend' or (backend_type is null and datid is not null)) as used) server,
              (select case when datconnlimit < 0 then 1000000 else datconnlimit end::bigint as allowed,
                      (select count(*) from pg_stat_activity where datname = current_database()) as used
               from pg_database where datname = current_database()) base,
              (select case when rolconnlimit < 0 then 1000000 else rolconnlimit end::bigint as allowed,
                      (select count(*) from pg_stat_activity where usename = current_user) as used
               from pg_roles where rolname = current_user) role",
    )
    .fetch_one(&mut database.acquire().await?)
    .await?;
    let text = format!("{free} of {allowed} connections are free, a worker like this takes up to {needed}");
    let advice = "raise max_connections (or the limit of the database or role), or use a pooler";
    Ok(if free < ALMOST_NONE {
        Check::fail("connections", format!("{text}: {advice}"))
    } else if free < needed {
        Check::warn("connections", format!("{text}: there is no room for another; {advice}"))
    } else {
        Check::ok("connections", text)
    })
}

async fn listening(careful: &Database, configured: &Database, listen: &Listen) -> Check {
    let name = "listen";
    if let Listen::Off = listen {
        return Check::warn(name, "QUEUE_LISTEN is off: jobs are found by polling, within a second");
    }
    let channel = format!("doctor_{}", Uuid::new_v4().simple());
    let heard = async {
        let Some(mut listener) = configured.listener(&[&channel]).await? else { return Ok(false) };
        let mut tx = careful.begin().await?;
        notify(&mut tx, &channel).await?;
        tx.commit().await?;
        Ok(tokio::time::timeout(HEARD_WITHIN, listener.recv()).await.is_ok_and(|heard| heard.is_ok()))
    };
    let advice = "a pooler in between? Set QUEUE_LISTEN=off, or DATABASE_LISTEN_URL to Postgres itself";
    match with_timeout(heard).await {
        Ok(true) => Check::ok(name, "a notification was delivered"),
        Ok(false) => Check::fail(name, format!("a notification was lost: {advice}")),
        Err(why) => Check::fail(name, format!("{why}: {advice}")),
    }
}

async fn notify(conn: &mut Connection, channel: &str) -> sqlx::Result<()> {
    sqlx::query("select pg_notify($1, '')").bind(channel).execute(conn).await?;
    Ok(())
}

async fn overdue(database: &Database) -> sqlx::Result<Check> {
    let schedules = queue::schedules(&mut database.acquire().await?).await?;
    if schedules.is_empty() {
        return Ok(Check::warn("schedules", "no worker has run here yet"));
    }
    let overdue: Vec<String> = schedules
        .iter()
        .filter_map(|schedule| schedule.overdue_slot.map(|slot| format!("{} of {slot}", schedule.name)))
        .collect();
    Ok(if overdue.is_empty() {
        Check::ok("schedules", format!("{} schedules, none overdue", schedules.len()))
    } else {
        let overdue = overdue.join(", ");
        Check::fail(
            "schedules",
            format!("overdue: {overdue}; is a worker running that serves the queue, and is it paused?"),
        )
    })
}

async fn waiting(database: &Database) -> sqlx::Result<Check> {
    let queues = queue::queues(&mut database.acquire().await?, &QUEUES).await?;
    let age = |queue: &queue::QueueSummary| queue.oldest_ready_age_seconds.unwrap_or(0);
    let late: Vec<String> = queues
        .iter()
        .filter(|queue| !queue.paused && age(queue) > READY_FOR)
        .map(|queue| format!("{} for {} s", queue.name, age(queue)))
        .collect();
    let paused: Vec<&str> = queues.iter().filter(|queue| queue.paused).map(|queue| queue.name.as_str()).collect();
    Ok(if !late.is_empty() {
        Check::fail("queues", format!("a job is ready and not taken: {}; start more workers", late.join(", ")))
    } else if !paused.is_empty() {
        Check::warn("queues", format!("paused: {}", paused.join(", ")))
    } else {
        Check::ok("queues", "no ready job waits for long")
    })
}

async fn dead(database: &Database) -> sqlx::Result<Check> {
    // Jobs that Stripe refused or an operator cancelled are no problem.
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "select kind, count(*) filter (where finished_at > now() - interval '1 day' and not ordinary), count(*) from (
             select kind, finished_at,
                    coalesce(last_error like 'Stripe refused it:%' or last_error like 'cancelled %', false) as ordinary
             from jobs where state = 'dead' order by finished_at desc limit 1000
         ) dead group by kind order by kind",
    )
    .fetch_all(&mut database.acquire().await?)
    .await?;
    let lately: Vec<String> =
        rows.iter().filter(|(_, day, _)| *day > 0).map(|(kind, day, _)| format!("{day} {kind}")).collect();
    let all: i64 = rows.iter().map(|(.., all)| all).sum();
    let advice = "`worker jobs --state dead` shows why, `worker retry` brings them back";
    Ok(if !lately.is_empty() {
        Check::fail("dead jobs", format!("within a day: {}; {advice}", lately.join(", ")))
    } else if all > 0 {
        Check::warn("dead jobs", format!("{all}: older than a day, cancelled, or refused by Stripe; {advice}"))
    } else {
        Check::ok("dead jobs", "none")
    })
}
