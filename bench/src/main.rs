//! `cargo run --release -p bench`: compares the product with its peers in one run on one Postgres
//! with default durability. Storage speed varies, so only ratios are meaningful.

#![allow(clippy::disallowed_types, reason = "it reads no untrusted input")]

mod analytics;
mod apalis_storage;
mod cpu;
mod docs;
mod drain;
mod expiry;
mod fastify;
mod figures;
mod http;
mod http_rows;
mod import;
mod import_row;
mod kit;
mod link;
mod machine;
mod memory;
mod pgbench;
mod pickup;
mod plots;
mod processes;
mod queue_rows;
mod results;
mod retention;
mod rows;
mod scene;
mod seeds;
mod size;
mod size_costs;
mod size_people;
mod size_seeds;
mod size_side;
mod snapshot;
mod speed;
mod table;
mod webhooks;
mod wrk;

use std::{path::Path, process::ExitCode};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use sandbox::postgres::{Durability, PrivatePostgres, become_ordinary_user, random_word};

/// The number of jobs that the product and the peers drain.
const JOBS: i64 = 20_000;

/// Without a command: the product's release binaries beside pgbench and other services, in interleaved rounds,
/// as one table in Markdown on standard output (about ten minutes, 10 GB); a run of all rows also writes it and its pictures into docs/. With a command: one question in detail.
///
/// Needs wrk, Postgres with pgbench, and Node with npm. The table shows which rows miss their target; the exit code is 1 only if something could not be measured.
#[derive(Debug, Parser)]
#[command(name = "bench", args_conflicts_with_subcommands = true, after_help = rows::help())]
struct CommandLine {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    speed: speed::Options,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// The queue beside apalis-postgres
    Queue,
    /// A million due carts beside plain batched updates, and the api meanwhile (about 15 minutes, 5 GB)
    Expiry,
    /// Analytics and list pages at 10,000 and at 10,000,000 carts (about 10 minutes, 15 GB)
    Analytics,
    /// The size of the tables under a steady load (6 minutes)
    Retention,
    /// Imports of 200,000 carts beside COPY of the same rows, and their export (about 3 minutes)
    Import,
    /// Whether cost grows with what is in the tables: two databases, one a hundred times the other (about 12 minutes, 20 GB)
    Size(size::Options),
    /// What an open snapshot (a backup) costs: a minute without one, then eight with it (about 11 minutes)
    Snapshot(snapshot::Options),
    /// Our side of the queue's rows, in a process of its own
    #[command(hide = true)]
    OurQueue,
}

fn main() -> ExitCode {
    let command = CommandLine::parse();
    let folder = std::env::temp_dir().join(format!("quick-checkout-bench-{}", random_word()));
    let outcome = match command.what {
        None => measure_speed(command.speed, &folder),
        Some(What::OurQueue) => until_interrupted(queue_rows::our_process()),
        Some(What::Size(options)) => {
            size::Run::plan(options, &folder).and_then(|run| with_postgres(&folder, |postgres| run.measure(postgres)))
        }
        Some(What::Snapshot(options)) => snapshot::Run::plan(options, &folder)
            .and_then(|run| with_postgres(&folder, |postgres| run.measure(postgres))),
        Some(what) => become_ordinary_user(&folder).and_then(|folder| measure_one(what, &folder)),
    };
    let _ = std::fs::remove_dir_all(&folder);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure_speed(options: speed::Options, folder: &Path) -> Result<()> {
    let docs = if options.only.is_empty() { Some(docs::Docs::open()?) } else { None };
    let run = speed::Run::plan(options, folder)?;
    let report = with_postgres(folder, |postgres| run.measure(postgres))?;
    println!("{}", report.markdown());
    if let Some(docs) = docs {
        docs.write(&report)?;
    }
    let failures = report.failures();
    if !failures.is_empty() {
        bail!("{} rows could not be measured", failures.len());
    }
    Ok(())
}

/// Gives up root, and does `measure` with a Postgres of its own.
fn with_postgres<T, F: Future<Output = Result<T>>>(
    folder: &Path,
    measure: impl FnOnce(PrivatePostgres) -> F,
) -> Result<T> {
    let folder = become_ordinary_user(folder)?;
    until_interrupted(async {
        let postgres = PrivatePostgres::start(&folder.join("postgres"), Durability::Full).await?;
        measure(postgres).await
    })
}

fn measure_one(what: What, folder: &Path) -> Result<()> {
    until_interrupted(async {
        let postgres = PrivatePostgres::start(folder, Durability::Full).await?;
        let measured = match what {
            What::Queue => apalis_storage::measure(&postgres).await,
            What::Expiry => expiry::measure(&postgres).await,
            What::Analytics => analytics::measure(&postgres).await,
            What::Retention => retention::measure(&postgres).await,
            What::Import => import::measure(&postgres).await,
            What::OurQueue | What::Size(_) | What::Snapshot(_) => bail!("it needs no Postgres of this kind"),
        };
        postgres.stop().await?;
        measured
    })
}

/// Runs `work` to its end or until Ctrl-C. Its processes and Postgres end in both cases.
fn until_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Runtime::new()?.block_on(async {
        tokio::select! {
            done = work => done,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                bail!("interrupted")
            }
        }
    })
}
