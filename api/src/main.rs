//! Entry point of the api.

use std::{net::SocketAddr, process::ExitCode};

use api::{ApiConfig, AppState, CommandLine, PgNotifications};
use chrono_tz::Tz;
use clap::Parser;
use common::{
    analytics,
    clock::Clock,
    config::{ConfigError, Env},
    db::{self, Database},
    observability::{self, traces::TraceConfig},
    shutdown,
};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> ExitCode {
    let command = CommandLine::parse();
    let outcome = if command.is_command() { answer(command).await } else { run().await };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line; a configuration error names the variable to set.
            eprintln!("api: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn answer(command: CommandLine) -> Result<(), Box<dyn std::error::Error>> {
    let mut env = Env::of_process()?;
    env.or_set("RUST_LOG", "error"); // only the output matters
    observability::logs::init(&env.read()?);
    command.answer(&env).await
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    api::raise_file_limit();
    let env = Env::of_process()?;
    let traces =
        observability::logs::init_with_traces(&env.read()?, &TraceConfig::from_env(&env, "quick-checkout-api")?);
    let config = env.read::<ApiConfig>()?;
    let pools = db::from_env(&env, 0)?;
    let database = pools.database.clone();

    let listener = bind("BIND_ADDR", config.bind_addr).await?;
    if let Some(address) = config.metrics_addr {
        tokio::spawn(api::serve_metrics(bind("METRICS_ADDR", address).await?, database.clone()));
    }
    // Handle signals from here on, so that waiting for Postgres can be interrupted.
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

    count_days(&database, config.time_zone).await?;

    let news = PgNotifications::start(database.clone());
    let (timeout, trusted_proxies) = (config.shared.shutdown_timeout, config.trusted_proxies.clone());
    tracing::info!(address = %listener.local_addr()?, "api is listening");
    let state = AppState::new(pools, Clock::system(), config, news);
    let mut stopped = stopped;
    let stop = state.stopping(async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    });
    api::serve(listener, api::router(state), trusted_proxies, stop, timeout).await?;
    traces.end().await;
    database.close();
    Ok(())
}

/// Adds up the days of the time zone before the first request for them, and checks the zone. An
/// unavailable Postgres is not waited for: the first request adds them up as well.
async fn count_days(database: &Database, zone: Tz) -> Result<(), ConfigError> {
    let counted = async { analytics::count_days(&mut database.acquire().await?, zone).await };
    match counted.await {
        Err(error) if db::has_sql_state(&error, &["22023"]) => Err(ConfigError::malformed(
            "TIME_ZONE",
            format_args!("{zone}, which Postgres does not know"),
            "another time zone",
        )),
        _ => Ok(()),
    }
}

async fn bind(name: &'static str, address: SocketAddr) -> Result<TcpListener, ConfigError> {
    TcpListener::bind(address).await.map_err(|error| {
        let takes = "an address and a free port such as 0.0.0.0:3000";
        ConfigError::malformed(name, format_args!("{address} ({error})"), takes)
    })
}
