//! `cargo run --release -p bench [-- queue|expiry|analytics|retention|import]`: measurements, each
//! in one run on one Postgres with default durability. Storage swings; only ratios count.

mod analytics;
mod drain;
mod expiry;
mod figures;
mod http;
mod import;
mod pickup;
mod retention;

use std::process::ExitCode;

use anyhow::{Context, Result};
use figures::{median, milliseconds};
use sandbox::postgres::{Durability, PrivatePostgres, become_ordinary_user, random_word};

const JOBS: i64 = 20_000;
const ROUNDS: usize = 3;

const USAGE: &str = "cargo run --release -p bench [-- WHAT]
  queue      the queue beside apalis-postgres; this without WHAT
  expiry     a million due carts beside plain batched updates, and the api meanwhile (about 15 minutes, 5 GB)
  analytics  analytics and list pages at 10,000 and at 10,000,000 carts (about 10 minutes, 15 GB)
  retention  the size of the tables under a steady load (6 minutes)
  import     imports of 200,000 carts beside COPY of the same rows, and their export (about 3 minutes)";

#[derive(Clone, Copy)]
enum What {
    Queue,
    Expiry,
    Analytics,
    Retention,
    Import,
}

fn main() -> ExitCode {
    let what = match std::env::args().nth(1).as_deref() {
        None | Some("queue") => What::Queue,
        Some("expiry") => What::Expiry,
        Some("analytics") => What::Analytics,
        Some("retention") => What::Retention,
        Some("import") => What::Import,
        Some("--help" | "-h") => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Some(other) => {
            eprintln!("bench: {other} is none of these\n{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    let folder = std::env::temp_dir().join(format!("quick-checkout-bench-{}", random_word()));
    let outcome = become_ordinary_user(&folder).and_then(|folder| {
        let runtime = tokio::runtime::Runtime::new()?;
        runtime.block_on(async {
            let postgres = PrivatePostgres::start(&folder, Durability::Full).await?;
            let measured = match what {
                What::Queue => measure_queue(&postgres).await,
                What::Expiry => expiry::measure(&postgres).await,
                What::Analytics => analytics::measure(&postgres).await,
                What::Retention => retention::measure(&postgres).await,
                What::Import => import::measure(&postgres).await,
            };
            postgres.stop().await?;
            measured
        })
    });
    let _ = std::fs::remove_dir_all(&folder);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure_queue(postgres: &PrivatePostgres) -> Result<()> {
    let queue = drain::Queue::prepare(postgres).await?;
    let peer = drain::ApalisPostgres::prepare(postgres).await?;
    println!("Drain of {JOBS} no-op jobs, jobs a second, {ROUNDS} interleaved rounds\n");
    let mut ours: Vec<(usize, Vec<f64>)> = [16, 64, 256].map(|concurrency| (concurrency, Vec::new())).to_vec();
    let mut peers: Vec<(drain::Peer, Vec<f64>)> = drain::PEERS.map(|peer| (peer, Vec::new())).to_vec();
    for round in 1..=ROUNDS {
        for (concurrency, rates) in &mut ours {
            eprintln!("round {round}: queue, {concurrency} at once");
            rates.push(queue.drain(JOBS, *concurrency).await.context("queue")?);
        }
        for (settings, rates) in &mut peers {
            eprintln!("round {round}: {settings}");
            rates.push(peer.drain(JOBS, *settings).await.context("apalis-postgres")?);
        }
    }
    println!("| what | rounds | median |\n|---|---|---|");
    for (concurrency, rates) in &ours {
        print_row(&format!("queue, {concurrency} at once"), rates);
    }
    for (settings, rates) in &peers {
        print_row(&settings.to_string(), rates);
    }
    let best_peer = peers.iter().map(|(_, rates)| median(rates)).fold(0.0, f64::max);
    let at_64 = ours.iter().find(|(concurrency, _)| *concurrency == 64).map_or(0.0, |(_, rates)| median(rates));
    println!("\nqueue at 64 ÷ the best of apalis-postgres: {:.2} (should be at least 2)\n", at_64 / best_peer);

    let mut waits = pickup::measure(&queue.pool, 500).await?;
    waits.sort_unstable();
    let at = |part: usize| milliseconds(waits[(waits.len() - 1) * part / 100]);
    println!(
        "Idle pickup, commit to start, {} jobs: median {:.2} ms, p99 {:.2} ms (the median should be under 2 ms)",
        waits.len(),
        at(50),
        at(99)
    );
    Ok(())
}

fn print_row(what: &str, rates: &[f64]) {
    let rounds: Vec<String> = rates.iter().map(|rate| format!("{rate:.0}")).collect();
    println!("| {what} | {} | {:.0} |", rounds.join(", "), median(rates));
}
