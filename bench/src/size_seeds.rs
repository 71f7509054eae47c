//! Fills the tables other than carts (done jobs, paid links, events) and measures bytes per row.

use std::{fmt::Write, path::Path};

use anyhow::Result;
use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, PgPool};

/// Rows per statement.
const STATEMENT: i64 = 200_000;
/// The maximum number of ids in a load; wrk holds each of them twice.
const MOST_IDS: i64 = 1_000_000;
const TABLES: [&str; 5] = ["carts", "recovery_links", "payment_links", "stripe_events", "jobs"];

/// Creates jobs that ended within the last twenty hours, so that retention keeps them.
pub(crate) async fn jobs(pool: &PgPool, jobs: i64) -> Result<()> {
    let mut from = 1;
    while from <= jobs {
        let to = jobs.min(from + STATEMENT - 1);
        sqlx::query(include_str!("../sql/done_jobs.sql")).bind(from).bind(to).bind(jobs).execute(pool).await?;
        if to % 1_000_000 == 0 {
            eprintln!("    {to} of {jobs} jobs");
        }
        from = to + 1;
    }
    sqlx::query("vacuum analyze jobs").execute(pool).await?;
    Ok(())
}

/// Creates a recovery link, a paid link and a Stripe event for this many recovered carts.
pub(crate) async fn links(pool: &PgPool, links: i64) -> Result<()> {
    let (mut last, mut left) = ((DateTime::<Utc>::UNIX_EPOCH, String::new()), links);
    while left > 0 {
        let (created_at, id, number): (Option<DateTime<Utc>>, Option<String>, i64) =
            sqlx::query_as(include_str!("../sql/paid_links.sql"))
                .bind(last.0)
                .bind(&last.1)
                .bind(left.min(STATEMENT))
                .fetch_one(pool)
                .await?;
        let (Some(created_at), Some(id)) = (created_at, id) else { break };
        last = (created_at, id);
        left -= number;
        eprintln!("    {} of {links} links", links - left);
    }
    for table in ["recovery_links", "payment_links", "stripe_events"] {
        sqlx::query(AssertSqlSafe(format!("vacuum analyze {table}"))).execute(pool).await?;
    }
    Ok(())
}

/// Writes ids of random carts to the file, one per line.
pub(crate) async fn ids(pool: &PgPool, carts: i64, file: &Path) -> Result<()> {
    let part = (MOST_IDS * 100 / carts.max(1)).clamp(1, 100);
    let ids: Vec<String> =
        sqlx::query_scalar(AssertSqlSafe(format!("select id from carts tablesample bernoulli ({part})")))
            .fetch_all(pool)
            .await?;
    std::fs::write(file, ids.iter().flat_map(|id| [id.as_str(), "\n"]).collect::<String>())?;
    Ok(())
}

/// Bytes per row, as a table in Markdown.
pub(crate) async fn bytes(pool: &PgPool) -> Result<String> {
    let mut table = String::from(
        "| table | rows | table, bytes a row | indexes, bytes a row | together |\n|---|--:|--:|--:|--:|\n",
    );
    for name in TABLES {
        let sizes = format!(
            "select count(*)::float8, pg_table_size('{name}')::float8, pg_indexes_size('{name}')::float8,
                    pg_total_relation_size('{name}')::float8 from {name}"
        );
        let (rows, heap, indexes, total): (f64, f64, f64, f64) =
            sqlx::query_as(AssertSqlSafe(sizes)).fetch_one(pool).await?;
        let each = |bytes: f64| bytes / rows.max(1.0);
        writeln!(table, "| `{name}` | {rows:.0} | {:.0} | {:.0} | {:.0} |", each(heap), each(indexes), each(total))?;
    }
    Ok(table)
}
