//! Measures how fast jobs that do nothing are fetched, run and acknowledged.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use apalis::prelude::{Monitor, WorkerBuilder};
use queue::{Config, Database, Job, Runtime};
use sandbox::postgres::PrivatePostgres;
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::sync::oneshot;

/// More than any drain here needs.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Counts each state by its own index, whatever else is in the table.
const UNFINISHED: &str = "select (select count(*) from jobs where state = 'pending' and queue = 'bench')
                              + (select count(*) from jobs where state = 'running' and queue = 'bench')";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NoOp {
    pub(crate) n: i64,
}

impl Job for NoOp {
    const QUEUE: &'static str = "bench";
    const KIND: &'static str = "no_op";
}

/// The number of jobs that ran: polled so that the tables are left alone until all did. (Static,
/// because apalis 1.0's `concurrency` drops data handed to the workers.)
pub(crate) static RAN: AtomicI64 = AtomicI64::new(0);

pub(crate) async fn no_op(_: NoOp) {
    RAN.fetch_add(1, Ordering::Relaxed);
}

/// The queue of this repository.
pub(crate) struct Queue {
    pub(crate) pool: PgPool,
}

/// The state of a worker when the clock starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Not connected: connecting counts.
    Cold,
    /// Connected.
    Connected,
}

/// Rates in jobs per second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    /// Rate of enqueueing, a thousand jobs per statement.
    pub(crate) enqueued: f64,
    /// Rate until the last job was acknowledged durably, with leases.
    pub(crate) drained: f64,
}

impl Queue {
    pub(crate) async fn prepare(postgres: &PrivatePostgres) -> Result<Self> {
        postgres.ensure_database("queue").await?;
        let queue = Self::connect(&postgres.url("queue")).await?;
        common::db::prepare(&Database::from(queue.pool.clone())).await?;
        Ok(queue)
    }

    /// Connects to a database that is migrated.
    pub(crate) async fn connect(url: &str) -> Result<Self> {
        Ok(Self { pool: PgPoolOptions::new().max_connections(6).connect(url).await? })
    }

    pub(crate) async fn drain(&self, jobs: i64, concurrency: usize, start: Start) -> Result<Rates> {
        sqlx::query("truncate jobs").execute(&self.pool).await?;
        self.drain_beside(jobs, concurrency, start).await
    }

    /// Like `drain`, in a table that may hold finished jobs.
    pub(crate) async fn drain_beside(&self, jobs: i64, concurrency: usize, start: Start) -> Result<Rates> {
        let before = self.done().await?;
        let batch: Vec<NoOp> = (0..jobs).map(|n| NoOp { n }).collect();
        let database = Database::from(self.pool.clone());
        let begun = Instant::now();
        for batch in batch.chunks(1_000) {
            let mut conn = database.acquire().await?;
            queue::enqueue_many(&mut conn, batch).await?;
            conn.commit().await?;
        }
        let enqueued = begun.elapsed().as_secs_f64();
        sqlx::query("vacuum analyze jobs").execute(&self.pool).await?;
        RAN.store(0, Ordering::Relaxed);
        let mut started = Instant::now();
        let runtime = Runtime::start(&Database::from(self.pool.clone()), Config { concurrency, ..Config::default() });
        if start == Start::Connected {
            tokio::time::sleep(Duration::from_millis(200)).await; // the worker connects meanwhile
            started = Instant::now();
        }
        let (stop, stopped) = oneshot::channel::<()>();
        let backend = runtime.clone();
        let monitor = Monitor::new()
            .register(move |_| WorkerBuilder::new("bench").backend(backend.backend::<NoOp>()).build(no_op));
        let stopping = runtime.clone();
        let monitor = tokio::spawn(monitor.run_with_signal(async move {
            stopping.stop_after(stopped).await.ok();
            Ok(())
        }));
        let seconds = until_none(&self.pool, UNFINISHED, jobs, started).await?;
        let _ = stop.send(());
        monitor.await??;
        runtime.close().await;
        let done = self.done().await? - before;
        ensure!(done == jobs, "{done} of {jobs} jobs are done");
        let jobs = f64::from(u32::try_from(jobs)?);
        Ok(Rates { enqueued: jobs / enqueued, drained: jobs / seconds })
    }

    async fn done(&self) -> Result<i64> {
        Ok(sqlx::query_scalar("select count(*) from jobs where state = 'done'").fetch_one(&self.pool).await?)
    }
}

/// Seconds from `started` until all `jobs` ran and the count is 0.
pub(crate) async fn until_none(pool: &PgPool, count: &'static str, jobs: i64, started: Instant) -> Result<f64> {
    while RAN.load(Ordering::Relaxed) < jobs {
        ensure!(started.elapsed() < TIMEOUT, "{RAN:?} of {jobs} jobs ran within {TIMEOUT:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    loop {
        let left: i64 = sqlx::query_scalar(count).fetch_one(pool).await?;
        if left == 0 {
            return Ok(started.elapsed().as_secs_f64());
        }
        ensure!(started.elapsed() < TIMEOUT, "{left} jobs are left after {TIMEOUT:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
