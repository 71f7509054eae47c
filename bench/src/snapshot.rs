//! Measures what an open snapshot costs, as a backup holds one: no dead row of its database can be removed
//! meanwhile. The same loads run in two databases of one server, and a snapshot is open in one of them, so that
//! growing tables and other work of the machine affect both.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use apalis::prelude::{Monitor, WorkerBuilder};
use clap::Args;
use common::{analytics, clock::Clock, db::Database};
use queue::{Config, RateLimit, Runtime};
use sandbox::postgres::PrivatePostgres;
use sqlx::{Connection, PgConnection, PgPool, postgres::PgPoolOptions};
use tokio::{sync::oneshot, task::JoinSet};

use crate::{
    JOBS,
    drain::{NoOp, RAN, no_op},
    figures::{median, milliseconds, quantile, ratios},
    http_rows,
    kit::Kit,
    machine::{Machine, fdatasync},
    pickup,
    rows::Part,
    scene::Scene,
    size_side::{ANALYTICS, LIST},
    webhooks,
    wrk::{self, Load},
};

/// The databases: without a snapshot, and with one.
const DATABASES: [&str; 2] = ["alone", "snapshot"];
/// Carts at the start.
const CARTS: i64 = 100_000;
/// Turns per window; a turn runs each load once in each database.
const TURNS: u32 = 2;
/// More than a drain needs.
const LONGEST_DRAIN: Duration = Duration::from_secs(120);
/// Pickups per second of a load; each waits until the worker is idle.
const PICKUPS_A_SECOND: u32 = 12;
/// Concurrent callers that take permits.
const CALLERS: usize = 16;
/// A rate a second that the database can't reach. (0 would store nothing.)
const UNLIMITED: u32 = 10_000_000;
/// The number of last windows whose turns are compared.
const LAST: u32 = 3;
/// The minimum ratio of rates, with a snapshot ÷ without.
const RATE_AT_LEAST: f64 = 0.9;
/// The maximum ratio of waits, with a snapshot ÷ without.
const WAIT_AT_MOST: f64 = 1.5;

/// The durations.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Windows with the snapshot open, after one without
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=600))]
    windows: u32,
    /// How long a load lasts; a window has two turns in each database, of five loads, 10,000 webhooks and 20,000 jobs
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
}

#[derive(Debug, Clone, Copy)]
enum Row {
    Post,
    Webhooks,
    Drain,
    Pickup,
    Permits,
    Analytics,
    List,
}

const ROWS: [(Row, &str); 7] = [
    (Row::Post, "`POST /api/carts`, 32 connections"),
    (Row::Webhooks, "10,000 webhooks, one in five a repeat, 32 connections"),
    (Row::Drain, "20,000 no-op jobs, enqueued and run, 256 at once"),
    (Row::Pickup, "idle pickups, commit to start"),
    (Row::Permits, "permits of an all but unlimited rate, 16 callers"),
    (Row::Analytics, "analytics, 90 days, 8 connections"),
    (Row::List, "first list page with status and exact total, 8 connections"),
];

/// The result of a load; `None` where a load has no such value.
#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    per_second: Option<f64>,
    /// In milliseconds.
    p99: Option<f64>,
}

/// A prepared run.
pub(crate) struct Run {
    options: Options,
    machine: Machine,
    kit: Kit,
}

impl Run {
    /// Prepares the run while the process still has root.
    pub(crate) fn plan(options: Options, folder: &Path) -> Result<Self> {
        let machine = Machine::look();
        Ok(Self { options, machine, kit: Kit::pack(folder, &[Part::Pages])? })
    }

    /// Measures and prints a table in Markdown, and the dead rows at the end.
    pub(crate) async fn measure(self, postgres: PrivatePostgres) -> Result<()> {
        let Self { options, machine, kit } = self;
        let mut scene = Scene::new(postgres, kit, Vec::new(), options.seconds)?;
        let version = scene.postgres_version().await?;
        scene.prepare_fake_stripe().await?;
        let (mut pools, mut workers) = (Vec::new(), Vec::new());
        for database in DATABASES {
            scene.prepare_product(database, CARTS).await?;
            workers.push(scene.start_worker(database).await?);
            pools.push(PgPoolOptions::new().max_connections(6).connect(&scene.postgres.url(database)).await?);
            let address = &scene.product(database)?.api.address;
            for load in [http_rows::creating(), Load::of_path(LIST, 8), Load::of_path(ANALYTICS, 8)] {
                scene.warm_up(address, load).await?;
            }
        }
        println!(
            "{}: {}; fdatasync {:.2} ms. {} windows, {} s a load, {CARTS} carts at the start.\n",
            Clock::system().now().format("%Y-%m-%d %H:%M UTC"),
            machine.describe(&version),
            fdatasync(&scene.kit.folder)?,
            options.windows,
            options.seconds,
        );
        let sides = [Side::of(&scene, &pools, 0)?, Side::of(&scene, &pools, 1)?];
        for turn in 0..TURNS {
            self::turn(&scene, &sides, turn).await?;
        }
        let mut snapshot = PgConnection::connect(&scene.postgres.url(DATABASES[1])).await?;
        sqlx::raw_sql("begin isolation level repeatable read; select count(*) from carts")
            .execute(&mut snapshot)
            .await?;
        let opened = Instant::now();
        let mut turns = Vec::new();
        for number in 0..options.windows * TURNS {
            eprintln!("window {}, turn {}", number / TURNS + 1, number % TURNS + 1);
            turns.push(self::turn(&scene, &sides, TURNS + number).await?);
        }
        let open_for = opened.elapsed();
        let dead = dead_rows(&pools[1]).await?;
        snapshot.close().await?;
        println!("{}\nThe snapshot was open for {:.1} min. {dead}", table(&turns), open_for.as_secs_f64() / 60.0);
        for (worker, pool) in workers.into_iter().zip(pools) {
            worker.end().await?;
            pool.close().await;
        }
        scene.end().await
    }
}

/// One of the databases.
struct Side {
    pool: PgPool,
    /// Of its api.
    address: String,
}

impl Side {
    fn of(scene: &Scene, pools: &[PgPool], place: usize) -> Result<Self> {
        let address = scene.product(DATABASES[place])?.api.address.clone();
        Ok(Self { pool: pools[place].clone(), address })
    }
}

/// Each load once in both databases; the figures of each load without and with a snapshot. The first side
/// alternates.
async fn turn(scene: &Scene, sides: &[Side; 2], number: u32) -> Result<Vec<[Figures; 2]>> {
    let mut turn = Vec::new();
    for (row, what) in ROWS {
        eprintln!("{what}");
        let mut both = [Figures::default(); 2];
        let order = if number.is_multiple_of(2) { [0, 1] } else { [1, 0] };
        for place in order {
            sqlx::query("checkpoint").execute(&sides[place].pool).await?;
            let measured = measure(scene, &sides[place], row, number).await?;
            let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
            eprintln!("    {}: {}/s, p99 {} ms", DATABASES[place], shown(measured.per_second), shown(measured.p99));
            both[place] = measured;
        }
        turn.push(both);
    }
    Ok(turn)
}

async fn measure(scene: &Scene, side: &Side, row: Row, turn: u32) -> Result<Figures> {
    let Side { pool, address } = side;
    let load = match row {
        Row::Post => http_rows::creating(),
        Row::List => Load::of_path(LIST, 8),
        Row::Analytics => Load::of_path(ANALYTICS, 8),
        Row::Webhooks => {
            webhooks::seed(pool, turn).await?;
            let address: SocketAddr = address.parse()?;
            let sent = webhooks::send(address, Arc::new(webhooks::deliveries(turn))).await?;
            webhooks::check(pool, turn).await?;
            return Ok(Figures { per_second: Some(sent.per_second), p99: Some(quantile(&sent.waits, 99)) });
        }
        Row::Drain => {
            return Ok(Figures { per_second: Some(drain_beside(pool).await?), p99: None });
        }
        Row::Pickup => {
            let waits = pickup::measure_beside(pool, (PICKUPS_A_SECOND * scene.seconds + 1).into()).await?;
            // The first fetch of a process reads the whole index.
            let waits: Vec<f64> = waits.into_iter().skip(1).map(milliseconds).collect();
            return Ok(Figures { per_second: None, p99: Some(quantile(&waits, 99)) });
        }
        Row::Permits => return permits(pool, Duration::from_secs(scene.seconds.into())).await,
    };
    if matches!(row, Row::Analytics | Row::List) {
        // As the worker does once a minute: the turns differ in how long ago that was.
        analytics::add_up(&mut Database::from(pool.clone()).acquire().await?).await?;
    }
    let report = wrk::run(&scene.kit, address, &load, scene.seconds).await?;
    Ok(Figures { per_second: Some(report.per_second()), p99: Some(report.p99_ms) })
}

/// The rate at which a running worker takes and ends jobs that are enqueued by the thousand.
/// Its first fetch has read the whole index.
async fn drain_beside(pool: &PgPool) -> Result<f64> {
    let database = Database::from(pool.clone());
    let runtime = Runtime::start(&database, Config { concurrency: 256, ..Config::default() });
    let (stop, stopped) = oneshot::channel::<()>();
    let (backend, stopping) = (runtime.clone(), runtime.clone());
    let monitor =
        Monitor::new().register(move |_| WorkerBuilder::new("bench").backend(backend.backend::<NoOp>()).build(no_op));
    let monitor = tokio::spawn(monitor.run_with_signal(async move {
        stopping.stop_after(stopped).await.ok();
        Ok(())
    }));
    drain(pool, &database, 1).await?;
    let rate = drain(pool, &database, JOBS).await?;
    let _ = stop.send(());
    monitor.await??;
    runtime.close().await;
    Ok(rate)
}

/// Jobs per second, from the first one enqueued to the last one acknowledged.
async fn drain(pool: &PgPool, database: &Database, jobs: i64) -> Result<f64> {
    RAN.store(0, Ordering::Relaxed);
    let jobs: Vec<NoOp> = (0..jobs).map(|n| NoOp { n }).collect();
    let mut ids = Vec::with_capacity(jobs.len());
    let begun = Instant::now();
    for batch in jobs.chunks(1_000) {
        let mut conn = database.acquire().await?;
        ids.extend(queue::enqueue_many(&mut conn, batch).await?);
        conn.commit().await?;
    }
    // By key: an index of unfinished jobs has an entry for each that is finished.
    let left = "select count(*) from jobs where id = any ($1) and state <> 'done'";
    loop {
        tokio::time::sleep(Duration::from_millis(1)).await;
        ensure!(begun.elapsed() < LONGEST_DRAIN, "{RAN:?} of {} jobs ran within {LONGEST_DRAIN:?}", jobs.len());
        if RAN.load(Ordering::Relaxed) >= i64::try_from(jobs.len())?
            && sqlx::query_scalar::<_, i64>(left).bind(&ids).fetch_one(pool).await? == 0
        {
            return Ok(f64::from(u32::try_from(jobs.len())?) / begun.elapsed().as_secs_f64());
        }
    }
}

/// Takes permits for as long, as fast as the database allows.
async fn permits(pool: &PgPool, length: Duration) -> Result<Figures> {
    let rate = RateLimit::start(Database::from(pool.clone()).planned_once(1, ""), "bench", UNLIMITED);
    let begun = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let rate = rate.clone();
        callers.spawn(async move {
            let mut waits = Vec::new();
            while begun.elapsed() < length {
                let asked = Instant::now();
                rate.turn().await?;
                waits.push(milliseconds(asked.elapsed()));
            }
            anyhow::Ok(waits)
        });
    }
    let mut waits = Vec::new();
    while let Some(ended) = callers.join_next().await {
        waits.extend(ended??);
    }
    let taken = f64::from(u32::try_from(waits.len())?);
    Ok(Figures { per_second: Some(taken / begun.elapsed().as_secs_f64()), p99: Some(quantile(&waits, 99)) })
}

/// The tables with most dead rows.
async fn dead_rows(pool: &PgPool) -> Result<String> {
    tokio::time::sleep(Duration::from_secs(2)).await; // sessions report their counts once a second
    let tables: Vec<(String, i64)> = sqlx::query_as(
        "select relname::text, n_dead_tup from pg_stat_user_tables where n_dead_tup > 100 order by n_dead_tup desc",
    )
    .fetch_all(pool)
    .await?;
    let tables: Vec<String> = tables.iter().map(|(table, rows)| format!("`{table}` {rows}")).collect();
    Ok(format!("Dead rows: {}.\n", tables.join(", ")))
}

/// A line for each value of each load: the medians of the last windows, and of the ratios of their turns.
fn table(turns: &[Vec<[Figures; 2]>]) -> String {
    let last = &turns[turns.len().saturating_sub((LAST * TURNS) as usize)..];
    let mut table = "| what | | ratio, turn by turn | without, last turns | with | ratio | wanted | |\n\
                     |---|---|---|--:|--:|--:|---|---|\n"
        .to_owned();
    for (place, (_, what)) in ROWS.iter().enumerate() {
        let mut line = |name: &str,
                        of: fn(&Figures) -> Option<f64>,
                        decimals: usize,
                        wanted: &str,
                        met: fn(f64) -> bool| {
            let values = |turns: &[Vec<[Figures; 2]>], side: usize| -> Vec<f64> {
                turns.iter().filter_map(|turn| of(&turn[place][side])).collect()
            };
            let (without, with) = (values(last, 0), values(last, 1));
            if without.is_empty() {
                return;
            }
            let ratio = median(&ratios(&with, &without));
            let each: Vec<String> =
                ratios(&values(turns, 1), &values(turns, 0)).iter().map(|ratio| format!("{ratio:.2}")).collect();
            let (without, with, each) = (median(&without), median(&with), each.join(" "));
            let verdict = if met(ratio) { "met" } else { "**MISSED**" };
            table.push_str(&format!(
                "| {what} | {name} | {each} | {without:.decimals$} | {with:.decimals$} | {ratio:.2} | {wanted} | {verdict} |\n"
            ));
        };
        line("/s", |figures| figures.per_second, 0, &format!("≥ {RATE_AT_LEAST}"), |ratio| ratio >= RATE_AT_LEAST);
        line("p99, ms", |figures| figures.p99, 2, &format!("≤ {WAIT_AT_MOST}"), |ratio| ratio <= WAIT_AT_MOST);
    }
    table
}
