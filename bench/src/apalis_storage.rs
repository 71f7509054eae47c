//! Compares the queue with the storage that comes with apalis.

use std::{fmt, sync::atomic::Ordering, time::Instant};

use anyhow::{Context, Result};
use apalis::prelude::{BoxDynError, Monitor, TaskSink, WorkerBuilder, WorkerBuilderExt};
use apalis_postgres::PostgresStorage;
use futures_util::stream;
use sandbox::postgres::PrivatePostgres;
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::sync::oneshot;

use crate::{
    JOBS,
    drain::{NoOp, Queue, RAN, Start, until_none},
    figures::{median, milliseconds},
    pickup,
};

const ROUNDS: usize = 3;

pub(crate) async fn measure(postgres: &PrivatePostgres) -> Result<()> {
    let queue = Queue::prepare(postgres).await?;
    let peer = ApalisPostgres::prepare(postgres).await?;
    println!("Drain of {JOBS} no-op jobs, jobs a second, {ROUNDS} interleaved rounds\n");
    let mut ours: Vec<(usize, Vec<f64>)> = [16, 64, 256].map(|concurrency| (concurrency, Vec::new())).to_vec();
    let mut peers: Vec<(Peer, Vec<f64>)> = PEERS.map(|peer| (peer, Vec::new())).to_vec();
    for round in 1..=ROUNDS {
        for (concurrency, rates) in &mut ours {
            eprintln!("round {round}: queue, {concurrency} at once");
            rates.push(queue.drain(JOBS, *concurrency, Start::Connected).await.context("queue")?.drained);
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

/// A way to run apalis-postgres.
#[derive(Debug, Clone, Copy)]
struct Peer {
    batch: usize,
    at_once: Option<usize>,
    locks: bool,
}

const PEERS: [Peer; 5] = [
    Peer { batch: 100, at_once: Some(64), locks: true },
    Peer { batch: 100, at_once: None, locks: true },
    Peer { batch: 1_000, at_once: None, locks: true },
    Peer { batch: 1_000, at_once: None, locks: false },
    Peer { batch: 5_000, at_once: None, locks: false },
];

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at_once = self.at_once.map_or("no limit".to_owned(), |at_once| format!("{at_once} at once"));
        let locks = if self.locks { "" } else { ", locks off" };
        write!(f, "apalis-postgres, batches of {}, {at_once}{locks}", self.batch)
    }
}

/// The storage that comes with apalis.
struct ApalisPostgres {
    pool: PgPool,
}

impl ApalisPostgres {
    async fn prepare(postgres: &PrivatePostgres) -> Result<Self> {
        postgres.ensure_database("apalis").await?;
        let pool = PgPoolOptions::new().max_connections(10).connect(&postgres.url("apalis")).await?;
        PostgresStorage::<()>::setup(&pool).await?;
        Ok(Self { pool })
    }

    async fn drain(&self, jobs: i64, peer: Peer) -> Result<f64> {
        sqlx::query("truncate apalis.jobs").execute(&self.pool).await?;
        let config = apalis_postgres::Config::default().queue("bench").batch_size(peer.batch).lock_tasks(peer.locks);
        let storage = PostgresStorage::<NoOp>::new(&self.pool).with_config(config);
        let mut sink = storage.clone();
        sink.push_stream(&mut stream::iter((0..jobs).map(|n| NoOp { n })))
            .await
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        sqlx::query("vacuum analyze apalis.jobs").execute(&self.pool).await?;
        RAN.store(0, Ordering::Relaxed);
        let started = Instant::now();
        let (stop, stopped) = oneshot::channel::<()>();
        let signal = async move {
            let _ = stopped.await;
            Ok(())
        };
        let worker = match peer.at_once {
            None => tokio::spawn(
                Monitor::new()
                    .register(move |_| WorkerBuilder::new(worker_name()).backend(storage.clone()).build(peer_no_op))
                    .run_with_signal(signal),
            ),
            Some(at_once) => tokio::spawn(
                Monitor::new()
                    .register(move |_| {
                        WorkerBuilder::new(worker_name())
                            .backend(storage.clone())
                            .concurrency(at_once)
                            .build(peer_no_op)
                    })
                    .run_with_signal(signal),
            ),
        };
        let seconds =
            until_none(&self.pool, "select count(*) from apalis.jobs where status <> 'Done'", jobs, started).await?;
        let _ = stop.send(());
        worker.await??;
        Ok(f64::from(u32::try_from(jobs)?) / seconds)
    }
}

async fn peer_no_op(_: NoOp) -> Result<(), BoxDynError> {
    RAN.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// A unique name: the storage treats a second worker with the same name as the first.
fn worker_name() -> String {
    format!("bench-{}", sandbox::postgres::random_word())
}
