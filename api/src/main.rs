//! The production api.

use std::process::ExitCode;

use api::{ApiConfig, AppState, LinkNews};
use common::{
    clock::Clock,
    config::{ConfigError, Env},
    db, shutdown,
    telemetry::{self, LogConfig},
};
use tokio::net::TcpListener;

/// Connections to Postgres: enough to keep two cores busy while some wait for their commit.
const CONNECTIONS: u32 = 20;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line that says what to set.
            eprintln!("api: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let env = Env::of_process();
    telemetry::init(&LogConfig::from_env(&env)?);
    let config = ApiConfig::from_env(&env)?;
    let database = db::from_env(&env, CONNECTIONS)?;

    let listener = TcpListener::bind(config.bind_addr).await.map_err(|error| ConfigError::Malformed {
        name: "BIND_ADDR",
        value: format!("{} ({error})", config.bind_addr),
        takes: "an address and a free port such as 0.0.0.0:3000",
    })?;
    // Signals count from here on: waiting for Postgres can be interrupted.
    let (stop, stopped) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        let _ = shutdown::requested().await;
        let _ = stop.send(true);
    });
    let stopped_by_signal = {
        let mut stopped = stopped.clone();
        async move {
            let _ = stopped.wait_for(|stopped| *stopped).await;
        }
    };
    tokio::select! {
        prepared = db::prepare(&database) => prepared?,
        () = stopped_by_signal => return Ok(()),
    }

    let news = LinkNews::start(database.clone());
    let timeout = config.shutdown_timeout;
    tracing::info!(address = %listener.local_addr()?, "api is listening");
    let router = api::router(AppState::new(database.clone(), Clock::system(), config, news));
    let mut stopped = stopped;
    let stop = async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    api::serve(listener, router, stop, timeout).await?;
    database.close().await;
    Ok(())
}
