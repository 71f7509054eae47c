//! The `worker` binary: runs jobs, or one command of an operator.

use std::process::ExitCode;

use clap::Parser;
use common::{
    clock::Clock,
    config::{ConfigError, Env},
    db,
    observability::{self, traces::TraceConfig},
    shutdown,
};
use tokio::net::TcpListener;
use worker::{CommandLine, WorkerConfig};

#[tokio::main]
async fn main() -> ExitCode {
    let command = CommandLine::parse();
    let outcome = if command.is_command() { answer(command).await } else { run().await.map(|()| ExitCode::SUCCESS) };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            // One line, which names the variable to set.
            eprintln!("worker: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn answer(command: CommandLine) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut env = Env::of_process()?;
    env.or_set("RUST_LOG", "error"); // only the output matters
    observability::logs::init(&env.read()?);
    command.answer(&env).await.map_err(|error| match error.downcast::<sqlx::Error>() {
        Ok(error) => format!("Postgres can't be used: {error}; see DATABASE_URL, and `worker doctor`").into(),
        Err(other) => other,
    })
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let env = Env::of_process()?;
    let traces =
        observability::logs::init_with_traces(&env.read()?, &TraceConfig::from_env(&env, "quick-checkout-worker")?);
    let config = env.read::<WorkerConfig>()?;
    config.check()?;
    let pools = db::from_env(&env, queue::CONNECTIONS)?;

    if let Some(address) = config.health_addr {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            let takes = "an address and a free port such as 0.0.0.0:9090";
            ConfigError::malformed("HEALTH_ADDR", format_args!("{address} ({error})"), takes)
        })?;
        tokio::spawn(worker::serve_health(listener, pools.database.clone()));
    }
    let mut stop = tokio::spawn(shutdown::requested());
    tokio::select! {
        prepared = db::prepare(&pools.database) => prepared?,
        _ = &mut stop => return Ok(()),
    }
    tracing::info!(jobs = config.concurrency, "worker is working");
    worker::run(pools, Clock::system(), config, async {
        let _ = stop.await;
    })
    .await;
    traces.end().await;
    Ok(())
}
