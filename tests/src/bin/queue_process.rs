//! A worker process for the queue's own tests, to be killed: `abort` ends it in
//! the middle of every job, `slow` takes its time. Leases are short.

use std::time::Duration;

use apalis::prelude::{Data, Monitor, WorkerBuilder};
use queue::{Config, Database, Job, Listen, Runtime};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct InProcess {
    n: i64,
}

impl Job for InProcess {
    const QUEUE: &'static str = "tests";
    const KIND: &'static str = "in_process";
    const MAX_ATTEMPTS: i16 = 3;
}

async fn run(job: InProcess, abort: Data<bool>) {
    if *abort {
        std::process::abort();
    }
    tokio::time::sleep(Duration::from_millis(20 + job.n.unsigned_abs() % 10)).await;
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let abort = std::env::var("MODE")? == "abort";
    let database = Database::new(std::env::var("DATABASE_URL")?.parse()?, Listen::Directly, 1);
    let config = Config {
        concurrency: 8,
        lease: Duration::from_secs(2),
        renew_every: Duration::from_millis(600),
        ..Config::default()
    };
    let runtime = Runtime::start(&database, config);
    let backend = runtime.clone();
    Monitor::new()
        .register(move |_| {
            WorkerBuilder::new("in_process").backend(backend.backend::<InProcess>()).data(abort).build(run)
        })
        .run_with_signal(runtime.stop_after(common::shutdown::requested()))
        .await?;
    runtime.close().await;
    Ok(())
}
