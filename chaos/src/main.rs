//! Runs the product under faults of every kind and checks its promises.
//!
//! `cargo run --package chaos` starts real processes on its own durable Postgres, sends them all
//! kinds of requests at once, injects faults chosen by a seed, waits until everything has settled,
//! and reports what was lost. Linux only, because it reads `/proc`.

#![allow(clippy::disallowed_types, reason = "it reads no untrusted input")]

mod book;
mod checks;
mod checks_of_payments;
mod checks_of_tables;
mod faults;
mod injections;
mod kit;
mod load;
mod members;
mod points;
mod report;
mod scene;
mod server;
mod settle;
mod stage;
mod states;
mod stored_cart;
mod stripe_faults;
mod weather;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Parser;

use kit::Kit;
use load::Client;
use stage::Scene;

const API_KEY: &str = "chaos";
/// The duration of the load before the first fault.
const WARM_UP: Duration = Duration::from_secs(5);

/// How long, how hard, and in which order.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "chaos")]
struct Options {
    /// How long faults are injected; settling and checking come after that.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Decides what goes wrong, in which order, and what each client does. Without one it is left to chance, and printed.
    #[arg(long)]
    seed: Option<u64>,
    /// How many apis.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=5))]
    apis: u64,
    /// How many workers.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=8))]
    workers: u64,
    /// How many clients.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=500))]
    clients: u64,
    /// How long a client waits between two requests, in milliseconds, on average.
    #[arg(long, default_value_t = 60)]
    pause: u64,
    /// Keeps the folder with the logs also if nothing failed.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let outcome = prepare(Options::parse()).and_then(|prepared| {
        let runtime = tokio::runtime::Runtime::new().context("can't start tokio")?;
        runtime.block_on(async {
            tokio::select! {
                outcome = run(prepared) => outcome,
                // Dropping the run ends its processes, Postgres included.
                _ = common::shutdown::requested() => bail!("stopped before its end"),
            }
        })
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The preparation done while the process has one thread.
#[derive(Debug)]
struct Prepared {
    kit: Kit,
    options: Options,
    seed: u64,
}

/// Builds the product, mounts a small disk where that is permitted, and gives up root.
///
/// # Errors
/// If the product can't be built, or there is no user for Postgres.
fn prepare(options: Options) -> Result<Prepared> {
    tidy_up_after_others();
    let seed = options.seed.unwrap_or_else(|| rand::random::<u32>().into());
    let folder = PathBuf::from(format!("{FOLDERS}{}", std::process::id()));
    // The data that the load writes per minute, plus Postgres' own files.
    let disk_mib = 320 + (options.minutes.max(0.0) * 40.0) as u64;
    let kit = Kit::pack(&folder, disk_mib)?;
    Ok(Prepared { kit, options, seed })
}

const FOLDERS: &str = "/var/tmp/quick-checkout-tracker-chaos-";

/// Removes empty folders of earlier runs, which could not unmount their disks without root.
fn tidy_up_after_others() {
    let folders = fs::read_dir("/var/tmp").into_iter().flatten().flatten().map(|entry| entry.path());
    for folder in folders.filter(|folder| folder.to_string_lossy().starts_with(FOLDERS)) {
        let _ = fs::remove_dir(folder.join("disk")); // fails for a folder that is not empty
        let _ = fs::remove_dir(folder);
    }
}

/// Runs everything; `false` if a promise was broken.
///
/// # Errors
/// If the run can't be completed.
async fn run(prepared: Prepared) -> Result<bool> {
    let Prepared { kit, options, seed } = prepared;
    let profile = if cfg!(debug_assertions) { "" } else { "--release " };
    let repeat = format!("cargo run {profile}--package chaos -- --minutes {} --seed {seed}", options.minutes);
    println!("seed {seed}; the same again: {repeat}");
    for why in [kit.disk.as_ref().err(), kit.faketime.as_ref().err()].into_iter().flatten() {
        println!("left out: {why}");
    }
    let begun = Instant::now();
    let scene = Arc::new(scene::set(&kit, &options, seed).await?);
    eprintln!("{:.0} s: everything runs; logs are in {}", begun.elapsed().as_secs_f64(), kit.folder.display());

    let clients = strain(&scene, &options, seed).await?;
    eprintln!("settling …");
    let settled = settle::settle(&scene).await;
    let mut report = report::Report::default();
    match settled {
        Ok(()) => checks::all(&scene, &kit, &clients, &mut report).await?,
        Err(error) => report.failed("everything settles once faults have ended", "", &[format!("{error:#}")]),
    }
    checks::stop(&scene, &mut report).await?;
    report.print(&scene, &clients, &repeat, begun.elapsed());
    let kept = report.is_well();
    if kept && !options.keep {
        // Postgres ends when its last owner is dropped.
        drop((clients, scene));
        clean(&kit.folder);
    } else {
        println!("logs and data are in {}", kit.folder.display());
    }
    Ok(kept)
}

/// Runs the load with faults, then without them for a while.
async fn strain(scene: &Arc<Scene>, options: &Options, seed: u64) -> Result<Vec<Client>> {
    let (stop_load, stop_faults) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..options.clients)
        .map(|number| Client::new(scene.clone(), number as usize, seed).run(stop_load.clone(), options.pause))
        .map(tokio::spawn)
        .collect();
    // Wait until there are connections, sessions and jobs to lose.
    tokio::time::sleep(WARM_UP).await;
    let faults = tokio::spawn(faults::run(scene.clone(), seed, stop_faults.clone()));
    let stripe_faults = tokio::spawn(stripe_faults::rain(scene.clone(), seed, stop_faults.clone()));
    let progress = tokio::spawn(tell_progress(scene.clone()));
    tokio::time::sleep(Duration::from_secs_f64(options.minutes.max(0.0) * 60.0)).await;
    stop_faults.store(true, Ordering::Release);
    eprintln!("no more faults: repairing those in progress …");
    faults.await?;
    stripe_faults.await?;
    settle::mend(scene).await?;
    eprintln!("all is well: the load goes on for a while …");
    tokio::time::sleep(settle::FAIR_WEATHER).await;
    stop_load.store(true, Ordering::Release);
    let mut ended = Vec::new();
    for client in clients {
        ended.push(client.await?);
    }
    progress.abort();
    Ok(ended)
}

async fn tell_progress(scene: Arc<Scene>) {
    let begun = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_secs(10)).await;
        eprintln!(
            "{:4.0} s: {} requests, {} sessions at Stripe, {} faults, {} times against a promise",
            begun.elapsed().as_secs_f64(),
            scene.book.requests(),
            scene.stripe.sessions().len(),
            scene.tally.tried(),
            scene.book.violation_count(),
        );
    }
}

/// Empties the disk, which stays mounted as long as this process lives.
fn clean(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let _ = if path.ends_with("disk") { remove_within(&path) } else { remove(&path) };
    }
    let _ = fs::remove_dir(folder);
}

fn remove_within(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        remove(&entry?.path())?;
    }
    Ok(())
}

fn remove(path: &Path) -> std::io::Result<()> {
    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}
