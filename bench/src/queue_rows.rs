//! The queue beside graphile-worker: both in a process of their own that
//! enqueues, drains and picks up, and prints what it measured as lines of JSON.

use std::{collections::BTreeMap, process::Stdio};

use anyhow::{Context, Result, ensure};
use queue::Database;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgPoolOptions;
use tokio::process::Command;

use crate::{
    JOBS,
    drain::{Queue, Start},
    figures::{milliseconds, quantile},
    pickup,
    results::Sample,
    scene::Scene,
};

const DATABASE: &str = "queues";
/// Of which the median and the 99th percentile are taken, a round.
const PICKUPS: i64 = 200;
/// Jobs at once in our process; the first is the one that is compared.
const AT_ONCE: [usize; 2] = [256, 64];

/// A line of what such a process prints.
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
    database.close().await;
    Ok(())
}

pub(crate) async fn take(scene: &Scene, round: u32) -> Result<Vec<(&'static str, Sample)>> {
    let (ours, theirs) = if round % 2 == 1 {
        let ours = ours(scene).await?;
        (ours, theirs(scene).await?)
    } else {
        let theirs = theirs(scene).await?;
        (ours(scene).await?, theirs)
    };
    let sample = |row: &'static str, of_theirs: &str| {
        let both = ours.get(row).zip(theirs.get(of_theirs));
        both.map(|(ours, theirs)| (row, Sample { ours: *ours, theirs: *theirs }))
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

async fn ours(scene: &Scene) -> Result<BTreeMap<&'static str, f64>> {
    let mut process = Command::new(scene.kit.folder.join("bench"));
    process.arg("our-queue");
    figures(scene, process).await
}

async fn theirs(scene: &Scene) -> Result<BTreeMap<&'static str, f64>> {
    let mut process = Command::new(scene.kit.node());
    process.arg("graphile_worker.mjs").current_dir(scene.kit.folder.join("peers"));
    process.envs([("CFG", "batch"), ("C", "24"), ("LQ", "2000"), ("CB", "0"), ("N", &JOBS.to_string())]);
    figures(scene, process).await
}

/// By row, what the process says.
async fn figures(scene: &Scene, mut process: Command) -> Result<BTreeMap<&'static str, f64>> {
    scene.checkpoint().await?;
    let pickups = if scene.wants("pickup") || scene.wants("pickup-p99") { PICKUPS } else { 0 };
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
    let mut figures = BTreeMap::new();
    for line in text.lines() {
        eprintln!("    {line}");
        let line: Line = serde_json::from_str(line)?;
        match line.what.as_str() {
            "enqueue" => figures.insert("enqueue", line.jobs_s),
            "drain" if figures.contains_key("drain") => figures.insert("drain-64", line.jobs_s),
            "drain" => figures.insert("drain", line.jobs_s),
            _ => {
                figures.insert("pickup", line.from_commit_ack.p50_ms);
                figures.insert("pickup-p99", line.from_commit_ack.p99_ms)
            }
        };
    }
    Ok(figures)
}

/// What our process does: the hidden command `our-queue`, with the same variables as the peer.
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
