//! Compares an import of carts as lines with `COPY` of the same rows.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use common::{carts::CartId, clock::Clock};
use reqwest::{Body, Method, Response, StatusCode};
use sqlx::PgPool;

use crate::{
    http_rows::{self, SCRATCH, empty},
    results::{Sample, Trouble},
    scene::{Product, Scene, both},
};

const LINES: u32 = 200_000;
const ITEMS: &str =
    r#"[{"name":"Blue T-shirt","quantity":2,"price":19.90},{"name":"Running shoes","quantity":1,"price":89.00}]"#;
/// The columns, with `external_id` if the schema has it.
const COLUMNS: &str = "id, customer_email, customer_name, items, total_minor, currency, status, abandoned_at, \
                       recovered_at, expired_at, created_at, updated_at";

pub(crate) async fn prepare(scene: &mut Scene) -> Result<()> {
    scene.prepare_product(SCRATCH, 0).await?;
    // An empty request first: a refusal of all lines would arrive while they are sent.
    let response = post(&scene.product(SCRATCH)?.api.address, String::new()).await?;
    if matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
        bail!(Trouble::NotThereYet);
    }
    Ok(())
}

async fn post(address: &str, lines: String) -> Result<Response> {
    let request = http_rows::request(Method::POST, address, "/api/carts/import")?;
    let sent = request.header("content-type", "application/x-ndjson").body(Body::from(lines)).send().await;
    sent.context("the import was not answered")
}

pub(crate) async fn take(scene: &Scene, round: u32) -> Result<Sample> {
    let product = scene.product(SCRATCH)?;
    let now = Clock::system().now();
    let with_external_id: bool = sqlx::query_scalar(
        "select exists (select from pg_attribute where attrelid = 'carts'::regclass and attname = 'external_id')",
    )
    .fetch_one(&product.pool)
    .await?;
    let (lines, rows) = (lines(now, LINES, "order"), rows(now, with_external_id));
    let copy = format!("copy carts ({COLUMNS}{}) from stdin", if with_external_id { ", external_id" } else { "" });
    let ours = async {
        empty(&product.pool).await?;
        scene.settle().await?;
        let rate = import(&product.api.address, lines, LINES).await?;
        stored(&product.pool).await?;
        eprintln!("    {rate:.0}/s (import)");
        Ok(rate)
    };
    let theirs = async {
        empty(&product.pool).await?;
        scene.settle().await?;
        let begun = Instant::now();
        let mut conn = product.pool.acquire().await?;
        let mut into = conn.copy_in_raw(&copy).await?;
        into.send(rows).await?;
        into.finish().await?;
        let rate = f64::from(LINES) / begun.elapsed().as_secs_f64();
        drop(conn);
        stored(&product.pool).await?;
        eprintln!("    {rate:.0}/s (COPY)");
        Ok(rate)
    };
    both(round, ours, theirs).await
}

/// Imports this many new carts into a table with other rows; returns lines per second.
pub(crate) async fn beside(product: &Product, number: u32, round: u32) -> Result<f64> {
    import(&product.api.address, lines(Clock::system().now(), number, &format!("round-{round}")), number).await
}

async fn import(address: &str, lines: String, number: u32) -> Result<f64> {
    let begun = Instant::now();
    let response = post(address, lines).await?;
    let status = response.status();
    let text = response.text().await?;
    let rate = f64::from(number) / begun.elapsed().as_secs_f64();
    let created = text.lines().filter(|line| line.contains(r#""status":"created""#)).count();
    ensure!(
        status == StatusCode::OK && u32::try_from(created)? == number,
        "the import answers {status}, {created} carts created: {}",
        text.chars().take(300).collect::<String>()
    );
    Ok(rate)
}

async fn stored(pool: &PgPool) -> Result<()> {
    let stored: i64 = sqlx::query_scalar("select count(*) from carts").fetch_one(pool).await?;
    ensure!(stored == i64::from(LINES), "{stored} carts are stored, not {LINES}");
    Ok(())
}

/// When cart `n` was abandoned, recovered and expired: of five, two are abandoned and two expired.
fn times(n: u32, now: DateTime<Utc>) -> (DateTime<Utc>, Option<DateTime<Utc>>, Option<DateTime<Utc>>) {
    let left = now - TimeDelta::days(60) - TimeDelta::seconds(i64::from(n) * 100);
    let after = |days| Some(left + TimeDelta::days(days));
    match n % 5 {
        0 | 1 => (left, None, None),
        2 => (left, after(1), None),
        _ => (left, None, after(30)),
    }
}

fn written(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Lines for an import. The ids of different lots are different.
fn lines(now: DateTime<Utc>, number: u32, lot: &str) -> String {
    let line = |n: u32| {
        let (left, recovered, expired) = times(n, now);
        let became = match (recovered, expired) {
            (Some(recovered), _) => format!(r#","status":"recovered","recoveredAt":"{}""#, written(recovered)),
            (None, Some(_)) => r#","status":"expired""#.to_owned(),
            (None, None) => String::new(),
        };
        format!(
            r#"{{"externalId":"{lot}-{n}","customerEmail":"user{n}@example.com","customerName":"User {n}","items":{ITEMS},"abandonedAt":"{}"{became}}}{}"#,
            written(left),
            "\n"
        )
    };
    (0..number).map(line).collect()
}

/// The rows for `COPY`.
fn rows(now: DateTime<Utc>, with_external_id: bool) -> Vec<u8> {
    let moment = |time: Option<DateTime<Utc>>| time.map_or_else(|| r"\N".to_owned(), written);
    let row = |n: u32| {
        let (left, recovered, expired) = times(n, now);
        let status = if recovered.is_some() {
            "recovered"
        } else if expired.is_some() {
            "expired"
        } else {
            "abandoned"
        };
        let (id, now) = (CartId::generate(), written(now));
        let external_id = if with_external_id { format!("\torder-{n}") } else { String::new() };
        format!(
            "{id}\tuser{n}@example.com\tUser {n}\t{ITEMS}\t12880\tusd\t{status}\t{}\t{}\t{}\t{now}\t{now}{external_id}\n",
            written(left),
            moment(recovered),
            moment(expired)
        )
    };
    (0..LINES).map(row).collect::<String>().into_bytes()
}
