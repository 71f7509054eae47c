//! Measures whether cost grows with table size: the same requests and jobs on a small database and
//! on one a hundred times as large, in one run.

use std::{fmt::Write, path::Path};

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use common::clock::Clock;
use sandbox::postgres::PrivatePostgres;
use sqlx::postgres::PgPoolOptions;

use crate::{
    JOBS,
    drain::{Queue, Start},
    figures::{median, milliseconds, quantile},
    http_rows, import_row,
    kit::Kit,
    link,
    machine::{Machine, fdatasync},
    pickup,
    rows::Part,
    scene::Scene,
    size_costs, size_people, size_seeds,
    size_side::{ANALYTICS, IMPORTED, LIST, SMALL, Side},
    webhooks,
    wrk::Load,
};

const BIG: &str = "big";
/// The factor between the row counts of the databases.
const TIMES: i64 = 100;
/// The maximum ratio of the times on the large and the small one.
const AT_MOST: f64 = 1.5;
const PICKUPS: i64 = 100;
/// Drains per round and side; each takes less than a second.
const DRAINS: usize = 3;

/// The sizes and durations.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Carts of the big database; the small one has a hundredth
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(i64).range(10_000..))]
    carts: i64,
    /// Done jobs of the big database; the small one has a hundredth
    #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(i64).range(10_000..))]
    jobs: i64,
    /// How often each is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each load lasts
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Only these rows, and neither what looks at every row nor what each one costs
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Row>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Row {
    Post,
    Get,
    List,
    Analytics,
    Webhooks,
    Import,
    Link,
    Enqueue,
    Drain,
    Pickup,
}

impl Row {
    /// Whether the value is a wait; otherwise it is a rate.
    fn waits(self) -> bool {
        matches!(self, Self::Link | Self::Pickup)
    }
}

const ROWS: [(Row, &str); 10] = [
    (Row::Post, "`POST /api/carts`, 32 connections"),
    (Row::Get, "`GET /api/carts/:id`, any of all, 32 connections"),
    (Row::List, "first list page with status and exact total, 8 connections"),
    (Row::Analytics, "analytics, 90 days, 8 connections"),
    (Row::Webhooks, "10,000 webhooks, one in five a repeat, 32 connections"),
    (Row::Import, "import of 40,000 carts"),
    (Row::Link, "a cart's payment link, 16 at once, median"),
    (Row::Enqueue, "enqueue by the thousand"),
    (Row::Drain, "20,000 no-op jobs, 256 at once"),
    (Row::Pickup, "idle pickup, commit to start, median"),
];

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

    /// Measures and prints the tables in Markdown, each as soon as it is complete.
    pub(crate) async fn measure(self, postgres: PrivatePostgres) -> Result<()> {
        let Self { options, machine, kit } = self;
        let mut scene = Scene::new(postgres, kit, Vec::new(), options.seconds)?;
        scene.prepare_fake_stripe().await?;
        let version = scene.postgres_version().await?;
        let small = prepare(&mut scene, SMALL, options.carts / TIMES, options.jobs / TIMES).await?;
        let big = prepare(&mut scene, BIG, options.carts, options.jobs).await?;
        let flush = fdatasync(&scene.kit.folder)?;
        println!(
            "{}: {}; fdatasync {flush:.2} ms. Rounds: {}, of {} s a load. Small: {} carts, {} done jobs; big: {} and {}; \
             a tenth of the carts have a link and an event.\n",
            Clock::system().now().format("%Y-%m-%d %H:%M UTC"),
            machine.describe(&version),
            options.rounds,
            options.seconds,
            options.carts / TIMES,
            options.jobs / TIMES,
            options.carts,
            options.jobs,
        );
        let bytes = size_seeds::bytes(&scene.product(BIG)?.pool).await?;
        println!("Bytes, big:\n\n{bytes}");
        println!("{}", rounds(&scene, &small, &big, &options).await?);
        if !options.only.is_empty() {
            return scene.end().await;
        }
        println!("Of each one, on the small database:\n\n{}", size_costs::table(&mut scene, &small).await?);
        // Last, because it erases people whom the other rows query.
        let people = size_people::table(&scene, [&small, &big], options.carts / TIMES, options.rounds).await?;
        println!("What looks at every row:\n\n{people}");
        scene.end().await
    }
}

/// Creates a database with these rows, and an api on it.
async fn prepare(scene: &mut Scene, database: &'static str, carts: i64, jobs: i64) -> Result<Side> {
    scene.postgres.ensure_database(database).await?;
    let url = scene.postgres.url(database);
    let pool = PgPoolOptions::new().max_connections(6).connect(&url).await?;
    common::db::prepare(&pool.clone().into()).await?;
    tokio::try_join!(scene.prepare_product(database, carts), size_seeds::jobs(&pool, jobs))?;
    size_seeds::links(&pool, carts / 10).await?;
    let product = scene.product(database)?;
    size_seeds::ids(&pool, carts, &product.ids).await?;
    let exact: i64 =
        sqlx::query_scalar("select count(*) from carts where status = 'abandoned'").fetch_one(&pool).await?;
    let page = http_rows::json(&product.api.address, LIST).await?;
    ensure!(page["data"]["pagination"]["total"].as_i64() == Some(exact), "the total is not {exact}: {page}");
    let address = &product.api.address;
    for load in [http_rows::creating(), Load::by_id("/api/carts/", &product.ids, 32), Load::of_path(LIST, 8)] {
        scene.warm_up(address, load).await?;
    }
    scene.warm_up(address, Load::of_path(ANALYTICS, 8)).await?;
    Ok(Side { database, queue: Queue { pool } })
}

async fn rounds(scene: &Scene, small: &Side, big: &Side, options: &Options) -> Result<String> {
    let rounds = options.rounds;
    let rows: Vec<(Row, &str)> =
        ROWS.into_iter().filter(|(row, _)| options.only.is_empty() || options.only.contains(row)).collect();
    let mut of_small = vec![Vec::new(); rows.len()];
    let mut of_big = of_small.clone();
    for round in 1..=rounds {
        for ((row, what), (of_small, of_big)) in rows.iter().zip(of_small.iter_mut().zip(&mut of_big)) {
            eprintln!("round {round} of {rounds}: {what}");
            // The first side alternates.
            if round % 2 == 1 {
                of_small.push(measure(scene, small, *row, round).await?);
                of_big.push(measure(scene, big, *row, round).await?);
            } else {
                of_big.push(measure(scene, big, *row, round).await?);
                of_small.push(measure(scene, small, *row, round).await?);
            }
        }
    }
    let mut table = String::from(
        "| what | small | big | time, big ÷ small | least – most | wanted | |\n|---|--:|--:|--:|--:|--:|---|\n",
    );
    for ((row, what), (small, big)) in rows.iter().zip(of_small.iter().zip(&of_big)) {
        // Invert rates to compare times.
        let (above, below) = if row.waits() { (big, small) } else { (small, big) };
        let times: Vec<f64> = above.iter().zip(below).map(|(above, below)| above / below).collect();
        let figure = |value| if row.waits() { format!("{value:.2} ms") } else { format!("{value:.0}/s") };
        writeln!(
            table,
            "| {what} | {} | {} | {:.2} | {:.2} – {:.2} | ≤ {AT_MOST} | {} |",
            figure(median(small)),
            figure(median(big)),
            median(&times),
            quantile(&times, 0),
            quantile(&times, 100),
            if median(&times) <= AT_MOST { "met" } else { "**MISSED**" },
        )?;
    }
    Ok(table)
}

/// A rate, or a wait in milliseconds.
async fn measure(scene: &Scene, side: &Side, row: Row, round: u32) -> Result<f64> {
    let product = scene.product(side.database)?;
    let address = &product.api.address;
    match row {
        Row::Post => scene.load(address, http_rows::creating()).await,
        Row::Get => scene.load(address, Load::by_id("/api/carts/", &product.ids, 32)).await,
        Row::List => scene.load(address, Load::of_path(LIST, 8)).await,
        Row::Analytics => scene.load(address, Load::of_path(ANALYTICS, 8)).await,
        Row::Webhooks => webhooks::lot(scene, product, round).await,
        Row::Import => {
            scene.settle().await?;
            import_row::beside(product, IMPORTED, round).await
        }
        Row::Link => {
            let worker = scene.start_worker(side.database).await?;
            scene.settle().await?;
            let waited = link::ours(product, &format!("{}-{round}", side.database)).await;
            worker.end().await?;
            waited
        }
        Row::Enqueue | Row::Drain => {
            let mut rates = Vec::new();
            for _ in 0..DRAINS {
                scene.settle().await?;
                let both = side.queue.drain_beside(JOBS, 256, Start::Cold).await?;
                rates.push(if row == Row::Enqueue { both.enqueued } else { both.drained });
            }
            Ok(median(&rates))
        }
        Row::Pickup => {
            scene.settle().await?;
            let waits = pickup::measure_beside(&side.queue.pool, PICKUPS).await?;
            Ok(median(&waits.into_iter().map(milliseconds).collect::<Vec<f64>>()))
        }
    }
}
