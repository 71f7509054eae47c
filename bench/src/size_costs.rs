//! Measures the cost of one request or job: commits, WAL, flushes, and processor time.

use std::{fmt::Write, time::Duration};

use anyhow::{Context, Result};
use sqlx::PgPool;

use crate::{
    cpu, drain, http_rows, import_row, link,
    scene::{Product, Scene},
    size_side::{ANALYTICS, IMPORTED, LIST, SMALL, Side},
    webhooks,
    wrk::{self, Load},
};

/// A Postgres backend reports its statistics after ten idle seconds at the latest.
const UNTIL_TOLD: Duration = Duration::from_secs(11);
/// A number that no other round has, for names that contain the round.
const ROUND: u32 = 1_000;

/// Counters of the server and of the processes.
struct Reading {
    wal: f64,
    postgres: f64,
    processes: f64,
}

struct Meter<'a> {
    pool: &'a PgPool,
    postmaster: u32,
    /// The product's process ids.
    processes: Vec<u32>,
    /// Commits and flushes at the last reading.
    counters: (f64, f64),
}

impl<'a> Meter<'a> {
    async fn new(pool: &'a PgPool, processes: Vec<u32>) -> Result<Self> {
        let backend: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(pool).await?;
        Ok(Self { pool, postmaster: cpu::parent(backend.try_into()?)?, processes, counters: counters(pool).await? })
    }

    async fn read(&self) -> Result<Reading> {
        let wal = sqlx::query_scalar("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8");
        let mut processes = 0.0;
        for pid in &self.processes {
            processes += cpu::of_process(*pid)?;
        }
        Ok(Reading { wal: wal.fetch_one(self.pool).await?, postgres: cpu::of_family(self.postmaster)?, processes })
    }

    /// A line of the table; `work` returns the number of operations.
    async fn line(&mut self, what: &str, work: impl Future<Output = Result<f64>>) -> Result<String> {
        eprintln!("cost: {what}");
        let before = self.read().await?;
        let number = work.await?;
        let after = self.read().await?;
        let (commits, flushes) = std::mem::replace(&mut self.counters, counters(self.pool).await?);
        let (commits_after, flushes_after) = self.counters;
        let milliseconds = |seconds: f64| seconds * 1000.0 / number;
        Ok(format!(
            "| {what} | {number:.0} | {:.3} | {:.0} | {:.3} | {:.3} ms | {:.3} ms |",
            (commits_after - commits) / number,
            (after.wal - before.wal) / number,
            (flushes_after - flushes) / number,
            milliseconds(after.postgres - before.postgres),
            milliseconds(after.processes - before.processes),
        ))
    }
}

/// Commits and WAL flushes, once every backend has reported its statistics.
async fn counters(pool: &PgPool) -> Result<(f64, f64)> {
    tokio::time::sleep(UNTIL_TOLD).await;
    let query = "select sum(xact_commit)::float8, (select wal_sync::float8 from pg_stat_wal) from pg_stat_database";
    Ok(sqlx::query_as(query).fetch_one(pool).await?)
}

/// Measures the small database. Links use their own database, because they need a worker.
pub(crate) async fn table(scene: &mut Scene, small: &Side) -> Result<String> {
    let mut table = String::from(
        "| what | of them | commits | WAL, bytes | flushes | Postgres' CPU | api's, worker's CPU |\n\
         |---|--:|--:|--:|--:|--:|--:|\n",
    );
    let product = scene.product(SMALL)?;
    let mut meter = Meter::new(&product.pool, vec![product.api.process.id()?]).await?;
    let loads = [
        ("`POST /api/carts`", http_rows::creating()),
        ("`GET /api/carts/:id`", Load::by_id("/api/carts/", &product.ids, 32)),
        ("first list page with status and total", Load::of_path(LIST, 8)),
        ("analytics, 90 days", Load::of_path(ANALYTICS, 8)),
    ];
    for (what, load) in loads {
        writeln!(table, "{}", meter.line(what, requests(scene, product, &load)).await?)?;
    }
    webhooks::seed(&product.pool, ROUND).await?;
    meter.counters = counters(&product.pool).await?;
    let delivered = async {
        let deliveries = webhooks::deliveries(ROUND);
        let number = f64::from(u32::try_from(deliveries.len())?);
        webhooks::send(product.api.address.parse()?, deliveries.into()).await?;
        Ok(number)
    };
    writeln!(table, "{}", meter.line("webhook (one in five a repeat)", delivered).await?)?;
    let imported = async {
        import_row::beside(product, IMPORTED, ROUND).await?;
        Ok(f64::from(IMPORTED))
    };
    writeln!(table, "{}", meter.line("imported cart", imported).await?)?;
    let mut meter = Meter::new(&product.pool, vec![std::process::id()]).await?;
    let jobs = async {
        small.queue.drain_beside(crate::JOBS, 256, drain::Start::Cold).await?;
        Ok(f64::from(i32::try_from(crate::JOBS)?))
    };
    writeln!(table, "{}", meter.line("no-op job, enqueued by the thousand, run", jobs).await?)?;
    link::prepare(scene).await?;
    let product = scene.product(http_rows::SCRATCH)?;
    link::ours(product, "warm-up").await?; // not measured
    let worker = scene.worker.as_ref().context("there is no worker")?.id()?;
    let mut meter = Meter::new(&product.pool, vec![product.api.process.id()?, worker]).await?;
    let links = async {
        link::ours(product, "costs").await?;
        Ok(link::LINKS)
    };
    writeln!(table, "{}", meter.line("payment link (and its cart, by SQL)", links).await?)?;
    Ok(table)
}

async fn requests(scene: &Scene, product: &Product, load: &Load) -> Result<f64> {
    let report = wrk::run(&scene.kit, &product.api.address, load, scene.seconds).await?;
    Ok(f64::from(u32::try_from(report.requests)?))
}
