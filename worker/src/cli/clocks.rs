//! `worker doctor`: the clocks. Carts have the times of the processes, leases and schedules those of
//! Postgres.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use common::{clock::Clock, db::Database, http_client::HttpClient};
use http::header;

use super::check::Check;
use crate::WorkerConfig;

/// Maximum difference of this machine's clock.
const SKEW: TimeDelta = TimeDelta::seconds(5);
/// Maximum difference of an api's clock. It is measured less exactly: the `Date` header has whole
/// seconds, and an id is older or newer than its transaction by the time spent waiting for locks.
const API_SKEW: TimeDelta = TimeDelta::minutes(1);
/// Timeout of the request to the api.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Compares the clock of this machine with that of Postgres.
pub(super) async fn of_this_machine(database: &Database, clock: &Clock) -> sqlx::Result<Check> {
    let mut conn = database.acquire().await?;
    let before = clock.now();
    let theirs: DateTime<Utc> = sqlx::query_scalar("select clock_timestamp()").fetch_one(&mut conn).await?;
    let ours = before + (clock.now() - before) / 2;
    let skew = ours - theirs;
    let text = format!("this machine's clock is {} ms ahead of Postgres'", skew.num_milliseconds());
    Ok(if skew.abs() > SKEW {
        Check::fail("clock", format!("{text}: carts get wrong times and expire wrongly; synchronise the clocks"))
    } else {
        Check::ok("clock", text)
    })
}

/// Compares the clocks of the apis' machines with that of Postgres: by the requests for links that
/// they stored within the last hour, and by the `Date` header of `PUBLIC_URL`.
pub(super) async fn of_the_api(database: &Database, config: &WorkerConfig) -> sqlx::Result<Check> {
    let name = "api clock";
    let (stored, asked) = (of_stored_requests(database).await?, of_public_url(database, config).await?);
    let (asked, why) = asked.map_or_else(|why| (None, why), |skew| (Some(skew), ""));
    Ok(match stored.into_iter().chain(asked).max_by_key(TimeDelta::abs) {
        Some(skew) if skew.abs() > API_SKEW => {
            let side = if skew > TimeDelta::zero() { "ahead of" } else { "behind" };
            let seconds = (skew.num_milliseconds().abs() + 500) / 1000;
            let text = format!("the clock of an api's machine is {seconds} s {side} Postgres'");
            Check::warn(name, format!("{text}: carts and links get wrong times; synchronise it (NTP)"))
        }
        Some(_) => Check::ok(name, "the clocks of the api and of Postgres agree within a minute"),
        None => Check::warn(name, format!("unknown: no link was requested within the last hour, and PUBLIC_URL {why}")),
    })
}

/// The largest difference among the newest requests for links: their jobs' ids have the time of the
/// api (<https://www.rfc-editor.org/rfc/rfc9562#name-uuid-version-7>), and `created_at` has that of
/// Postgres. `None` if there are none.
async fn of_stored_requests(database: &Database) -> sqlx::Result<Option<TimeDelta>> {
    let milliseconds: Option<i64> = sqlx::query_scalar(
        "select ahead from (
             select ('x' || translate(left(id::text, 13), '-', ''))::bit(48)::bigint
                    - (extract(epoch from created_at) * 1000)::bigint as ahead
             from (select id, kind, created_at from jobs where state = 'done' order by finished_at desc limit 1000) newest
             where kind = 'create_payment_link' and created_at > now() - interval '1 hour'
         ) measured order by abs(ahead) desc limit 1",
    )
    .fetch_optional(&mut database.acquire().await?)
    .await?;
    Ok(milliseconds.map(TimeDelta::milliseconds))
}

/// The difference of the clock behind `PUBLIC_URL`, or why it is unknown.
async fn of_public_url(database: &Database, config: &WorkerConfig) -> sqlx::Result<Result<TimeDelta, &'static str>> {
    let url = &config.shared.public_url;
    let http = HttpClient::new(url, TIMEOUT, &config.proxy);
    let response = http.inner().get(format!("{url}/healthz")).send().await;
    let Ok(response) = response.and_then(reqwest::Response::error_for_status) else {
        return Ok(Err("can't be reached from here"));
    };
    let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok());
    let Some(theirs) = date.and_then(|date| DateTime::parse_from_rfc2822(date).ok()) else {
        return Ok(Err("sends no time"));
    };
    let ours: DateTime<Utc> =
        sqlx::query_scalar("select clock_timestamp()").fetch_one(&mut database.acquire().await?).await?;
    Ok(Ok(theirs.to_utc() - ours))
}
