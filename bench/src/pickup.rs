//! Measures the time from a commit to the start of the job in an idle worker.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use apalis::prelude::{Data, Monitor, WorkerBuilder};
use queue::{Config, Database, Runtime};
use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};

use crate::drain::NoOp;

async fn tell(_: NoOp, started: Data<mpsc::UnboundedSender<Instant>>) {
    let _ = started.send(Instant::now());
}

/// Measures one wait per job; each job is enqueued while the worker is idle.
pub(crate) async fn measure(pool: &PgPool, jobs: i64) -> Result<Vec<Duration>> {
    sqlx::query("truncate jobs").execute(pool).await?;
    measure_beside(pool, jobs).await
}

/// Like `measure`, in a table with other jobs.
pub(crate) async fn measure_beside(pool: &PgPool, jobs: i64) -> Result<Vec<Duration>> {
    let (sender, mut starts) = mpsc::unbounded_channel();
    let runtime = Runtime::start(&Database::from(pool.clone()), Config::default());
    let (stop, stopped) = oneshot::channel::<()>();
    let backend = runtime.clone();
    let monitor = Monitor::new().register(move |_| {
        WorkerBuilder::new("bench").backend(backend.backend::<NoOp>()).data(sender.clone()).build(tell)
    });
    let stopping = runtime.clone();
    let monitor = tokio::spawn(monitor.run_with_signal(async move {
        stopping.stop_after(stopped).await.ok();
        Ok(())
    }));
    let database = Database::from(pool.clone());
    let mut waits: Vec<Duration> = Vec::new();
    for n in 0..jobs {
        // Wait until the worker is idle, at a different point of its poll interval each time.
        tokio::time::sleep(Duration::from_millis(40 + n.unsigned_abs() * 7 % 60)).await;
        let mut conn = database.acquire().await?;
        queue::enqueue(&mut conn, &NoOp { n }).await?;
        conn.commit().await?; // sends the notification
        let committed = Instant::now();
        let started: Instant =
            tokio::time::timeout(Duration::from_secs(10), starts.recv()).await?.context("the worker ended")?;
        waits.push(started.saturating_duration_since(committed));
    }
    let _ = stop.send(());
    monitor.await??;
    runtime.close().await;
    Ok(waits)
}
