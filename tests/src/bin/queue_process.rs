//! A worker process for the queue's tests, which kill it. `MODE` is the action of each job: `abort`
//! ends the process, `hang` never finishes, `work` succeeds.

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

async fn run(_: InProcess, mode: Data<String>) {
    match mode.as_str() {
        "abort" => std::process::abort(),
        "hang" => std::future::pending().await,
        _ => {}
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mode = std::env::var("MODE")?;
    let database = Database::new(std::env::var("DATABASE_URL")?.parse()?, Listen::Directly, 1);
    let config = Config { concurrency: 8, ..Config::default() };
    let runtime = Runtime::start(&database, config);
    let backend = runtime.clone();
    Monitor::new()
        .register(move |_| {
            WorkerBuilder::new("in_process").backend(backend.backend::<InProcess>()).data(mode.clone()).build(run)
        })
        .run_with_signal(runtime.stop_after(common::shutdown::requested()))
        .await?;
    runtime.close().await;
    Ok(())
}
