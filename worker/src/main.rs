//! The production worker.

use std::process::ExitCode;

use common::{
    clock::Clock,
    config::{ConfigError, Env},
    db, shutdown,
    telemetry::{self, LogConfig},
};
use tokio::net::TcpListener;
use worker::WorkerConfig;

/// Connections of the handlers, who wait for Stripe without one; the queue has its own.
fn connections(concurrency: usize) -> u32 {
    u32::try_from(concurrency / 2).unwrap_or(u32::MAX).clamp(4, 20)
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line that says what to set.
            eprintln!("worker: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let env = Env::of_process();
    telemetry::init(&LogConfig::from_env(&env)?);
    let config = WorkerConfig::from_env(&env)?;
    let database = db::from_env(&env, connections(config.concurrency))?;

    if let Some(address) = config.health_addr {
        let listener = TcpListener::bind(address).await.map_err(|error| ConfigError::Malformed {
            name: "HEALTH_ADDR",
            value: format!("{address} ({error})"),
            takes: "an address and a free port such as 0.0.0.0:9090",
        })?;
        tokio::spawn(worker::serve_health(listener, database.clone()));
    }
    let mut stop = tokio::spawn(shutdown::requested());
    tokio::select! {
        prepared = db::prepare(&database) => prepared?,
        _ = &mut stop => return Ok(()),
    }
    tracing::info!(jobs = config.concurrency, "worker is working");
    worker::run(database, Clock::system(), config, async {
        let _ = stop.await;
    })
    .await;
    Ok(())
}
