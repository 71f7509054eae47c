//! Compares the queue with graphile-worker. Each runs in its own process, which enqueues, drains
//! and picks up jobs, and prints its results as lines of JSON.

use std::{collections::BTreeMap, process::Stdio};

use anyhow::{Context, Result, ensure};
use queue::Database;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgPoolOptions;
use tokio::process::Command;

use crate::{
    JOBS,
    drain::{Queue, Start},
    figures::{median, milliseconds, quantile},
    pickup,
    results::Sample,
    scene::Scene,
};

const DATABASE: &str = "queues";
/// Pickups per round, for the median and the 99th percentile.
const PICKUPS: i64 = 200;
/// Turns of each side per round; a drain takes less than a second.
const TURNS: u32 = 3;
/// The concurrency of our process; the first value is the one compared.
const AT_ONCE: [usize; 2] = [256, 64];

/// The values by row, one per turn.
type Figures = BTreeMap<&'static str, Vec<f64>>;

/// A line that such a process prints.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    /// `enqueue`, `drain` or `pickup`.
    what: String,
    #[serde(default, rename = "C")]
    at_once: usize,
    #[serde(default)]
    jobs_s: f64,
    #[serde(default)]
    from_commit_ack: Waits,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Waits {
    p50_ms: f64,
    p99_ms: f64,
}

pub(crate) async fn prepare(scene: &mut Scene) -> Result<()> {
    scene.prepare_peer(DATABASE, &[]).await?;
    let database = Database::from(PgPoolOptions::new().connect(&scene.postgres.url(DATABASE)).await?);
    common::db::prepare(&database).await?;
    database.close();
    Ok(())
}

pub(crate) async fn take(scene: &Scene, round: u32) -> Result<Vec<(&'static str, Sample)>> {
    let pickups = if scene.wants("pickup") || scene.wants("pickup-p99") { PICKUPS } else { 0 };
    let (mut ours, mut theirs) = (Figures::new(), Figures::new());
    // Alternate, and begin with the other side in every other round.
    for turn in 0..2 * TURNS {
        let (process, figures) = if (turn + round).is_multiple_of(2) {
            (their_process(scene), &mut theirs)
        } else {
            (our_own(scene), &mut ours)
        };
        run(scene, process, if turn < 2 { pickups } else { 0 }, figures).await?;
    }
    let sample = |row: &'static str, of_theirs: &str| {
        let both = ours.get(row).zip(theirs.get(of_theirs));
        both.map(|(ours, theirs)| (row, Sample { ours: median(ours), theirs: median(theirs) }))
    };
    let rows = [
        sample("drain", "drain"),
        sample("drain-64", "drain"),
        sample("enqueue", "enqueue"),
        sample("pickup", "pickup"),
        sample("pickup-p99", "pickup-p99"),
    ];
    Ok(rows.into_iter().flatten().filter(|(row, _)| scene.wants(row)).collect())
}

fn our_own(scene: &Scene) -> Command {
    let mut process = Command::new(scene.kit.folder.join("bench"));
    process.arg("our-queue");
    process
}

fn their_process(scene: &Scene) -> Command {
    let mut process = Command::new(scene.kit.node());
    process.arg("graphile_worker.mjs").current_dir(scene.kit.folder.join("peers"));
    process.envs([("CFG", "batch"), ("C", "24"), ("LQ", "2000"), ("CB", "0"), ("N", &JOBS.to_string())]);
    process
}

/// Runs the process and adds its results.
async fn run(scene: &Scene, mut process: Command, pickups: i64, figures: &mut Figures) -> Result<()> {
    scene.settle().await?;
    let output = process
        .env("DATABASE_URL", scene.postgres.url(DATABASE))
        .env("LATN", pickups.to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("the queue's process can't be run")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{}{text}", String::from_utf8_lossy(&output.stderr));
    for line in text.lines() {
        eprintln!("    {line}");
        let line: Line = serde_json::from_str(line)?;
        let mut add = |row, figure| figures.entry(row).or_default().push(figure);
        match line.what.as_str() {
            "enqueue" => add("enqueue", line.jobs_s),
            "drain" if line.at_once == AT_ONCE[1] => add("drain-64", line.jobs_s),
            "drain" => add("drain", line.jobs_s),
            _ => {
                add("pickup", line.from_commit_ack.p50_ms);
                add("pickup-p99", line.from_commit_ack.p99_ms);
            }
        }
    }
    Ok(())
}

/// Our process: the hidden command `our-queue`, with the same variables as the peer.
pub(crate) async fn our_process() -> Result<()> {
    let variable = |name| std::env::var(name).with_context(|| format!("{name} is missing"));
    let queue = Queue::connect(&variable("DATABASE_URL")?).await?;
    for (place, at_once) in AT_ONCE.into_iter().enumerate() {
        let drained = queue.drain(JOBS, at_once, Start::Cold).await?;
        if place == 0 {
            print("enqueue", at_once, drained.enqueued, Waits::default())?;
        }
        print("drain", at_once, drained.drained, Waits::default())?;
    }
    let pickups = variable("LATN")?.parse()?;
    if pickups > 0 {
        let waits: Vec<f64> = pickup::measure(&queue.pool, pickups).await?.into_iter().map(milliseconds).collect();
        print("pickup", 0, 0.0, Waits { p50_ms: quantile(&waits, 50), p99_ms: quantile(&waits, 99) })?;
    }
    Ok(())
}

fn print(what: &str, at_once: usize, jobs_s: f64, from_commit_ack: Waits) -> Result<()> {
    println!("{}", serde_json::to_string(&Line { what: what.to_owned(), at_once, jobs_s, from_commit_ack })?);
    Ok(())
}
