//! Compares an import with COPY of the same rows into the same table, and measures their export.

use std::{fmt::Write as _, time::Instant};

use anyhow::{Context, Result, ensure};
use axum::body::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use common::{carts::CartId, clock::Clock};
use sandbox::postgres::PrivatePostgres;
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::{
    figures::{print_row, ratios},
    http::Api,
};

const ROUNDS: usize = 3;
const CARTS: usize = 200_000;
/// Bytes per COPY message.
const MESSAGE: usize = 1024 * 1024;
const COPY: &str = "copy carts (id, customer_email, customer_name, items, total_minor, currency, status, abandoned_at, \
                    recovered_at, expired_at, external_id, created_at, updated_at) from stdin";

/// The same carts in each format.
struct Files {
    copy: Bytes,
    ndjson: Bytes,
    csv: Bytes,
}

pub(crate) async fn measure(postgres: &PrivatePostgres) -> Result<()> {
    postgres.ensure_database("import").await?;
    let pool = PgPoolOptions::new().max_connections(2).connect(&postgres.url("import")).await?;
    common::db::prepare(&pool.clone().into()).await?;
    let api = Api::start(postgres.url("import").parse()?).await?;
    let files = files(Clock::system().now())?;
    let (mut copied, mut from_ndjson, mut from_csv, mut exported) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        copied.push(rate(&pool, copy(&pool, &files.copy)).await?);
        from_ndjson.push(rate(&pool, api.import("application/x-ndjson", files.ndjson.clone())).await?);
        from_csv.push(rate(&pool, api.import("text/csv", files.csv.clone())).await?);
        exported.push(carts_a_second(api.get("/api/carts/export").await?.as_secs_f64()));
    }
    println!("{CARTS} carts, carts a second, {ROUNDS} interleaved rounds\n");
    println!("| what | rounds | median | spread |\n|---|---|---|---|");
    print_row("COPY", &copied);
    print_row("import of NDJSON", &from_ndjson);
    print_row("import of CSV", &from_csv);
    print_row("export as NDJSON", &exported);
    print_row("import of NDJSON ÷ COPY (at least 0.25)", &ratios(&from_ndjson, &copied));
    print_row("import of CSV ÷ COPY (at least 0.25)", &ratios(&from_csv, &copied));
    Ok(())
}

fn carts_a_second(seconds: f64) -> f64 {
    CARTS as f64 / seconds
}

/// Empties the table and measures `work`, which fills it.
async fn rate(pool: &PgPool, work: impl Future<Output = Result<()>>) -> Result<f64> {
    for statement in ["truncate carts cascade", "vacuum analyze cart_counts, cart_count_deltas", "checkpoint"] {
        sqlx::query(statement).execute(pool).await?;
    }
    let started = Instant::now();
    work.await?;
    let seconds = started.elapsed().as_secs_f64();
    let stored: i64 = sqlx::query_scalar("select count(*) from carts").fetch_one(pool).await?;
    ensure!(usize::try_from(stored) == Ok(CARTS), "{stored} carts were stored");
    Ok(carts_a_second(seconds))
}

async fn copy(pool: &PgPool, rows: &[u8]) -> Result<()> {
    let mut conn = pool.acquire().await?;
    let mut copy = conn.copy_in_raw(COPY).await?;
    for message in rows.chunks(MESSAGE) {
        copy.send(message).await?;
    }
    copy.finish().await.context("COPY")?;
    Ok(())
}

/// Carts of 400 days: of five carts, two are abandoned, one was recovered a day later, two expired.
fn files(now: DateTime<Utc>) -> Result<Files> {
    const ITEMS: &str =
        r#"[{"name":"Blue T-shirt","quantity":2,"price":19.90},{"name":"Running shoes","quantity":1,"price":89.00}]"#;
    let quoted = ITEMS.replace('"', "\"\"");
    let mut copy = String::new();
    let mut ndjson = String::new();
    let mut csv = "customerEmail,customerName,items,abandonedAt,status,recoveredAt,expiredAt,externalId\n".to_owned();
    let step = TimeDelta::days(400) / i32::try_from(CARTS)?;
    for n in 0..CARTS {
        let left = now - step * i32::try_from(CARTS - n)?;
        let (status, later) = match n % 5 {
            0 | 1 => ("abandoned", None),
            2 => ("recovered", Some((left + TimeDelta::days(1)).min(now))),
            _ => ("expired", Some((left + TimeDelta::days(30)).min(now))),
        };
        let (left, later) = (left.to_rfc3339(), later.map(|later| later.to_rfc3339()));
        let at = |of: &str| if status == of { later.as_deref() } else { None };
        let (recovered_at, expired_at) = (at("recovered"), at("expired"));
        let null = |at: Option<&str>| at.unwrap_or("\\N").to_owned();
        writeln!(
            copy,
            "{}\tuser{n}@example.com\tUser {n}\t{ITEMS}\t12880\tusd\t{status}\t{left}\t{}\t{}\torder {n}\t{now}\t{now}",
            CartId::generate(),
            null(recovered_at),
            null(expired_at),
        )?;
        let json = |at: Option<&str>| at.map_or("null".to_owned(), |at| format!("\"{at}\""));
        writeln!(
            ndjson,
            r#"{{"customerEmail":"user{n}@example.com","customerName":"User {n}","items":{ITEMS},"abandonedAt":"{left}","status":"{status}","recoveredAt":{},"expiredAt":{},"externalId":"order {n}"}}"#,
            json(recovered_at),
            json(expired_at),
        )?;
        writeln!(
            csv,
            "user{n}@example.com,User {n},\"{quoted}\",{left},{status},{},{},order {n}",
            recovered_at.unwrap_or_default(),
            expired_at.unwrap_or_default(),
        )?;
    }
    Ok(Files { copy: copy.into(), ndjson: ndjson.into(), csv: csv.into() })
}
