//! `cargo run`: a private Postgres, a fake Stripe with a payment page, the api and a worker in one
//! process, without setup. `sandbox stripe` is the fake Stripe alone.

#![allow(clippy::disallowed_types, reason = "it reads no untrusted input")]

use std::{net::SocketAddr, path::Path, process::ExitCode};

use anyhow::{Context, Result};
use api::{ApiConfig, AppState, PgNotifications};
use clap::Parser;
use common::{
    clock::Clock,
    config::{Env, parsed, value, web_address},
    db::{self, Database},
    observability::{self, traces::TraceConfig},
    shutdown,
};
use sandbox::{
    postgres::{Durability, PrivatePostgres, become_ordinary_user, random_word, remember},
    stripe::{FakeStripe, FakeStripeConfig},
};
use tokio::{net::TcpListener, sync::watch};
use worker::WorkerConfig;

/// The folder for data that is kept across restarts.
const FOLDER: &str = ".local";
const DATABASE: &str = "checkout";

/// Runs a private Postgres, a fake Stripe, the api and a worker until Ctrl-C
#[derive(Debug, Parser)]
#[command(name = "sandbox", version)]
#[command(after_help = "Reads the optional environment variables of api and worker (see their --help), \
    SANDBOX_STRIPE_ADDR, SANDBOX_STRIPE_URL and SANDBOX_WEBHOOK_URL. Keeps its data in .local.")]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Part>,
}

/// A part of the sandbox that runs alone.
#[derive(Debug, Clone, Copy, clap::Subcommand)]
enum Part {
    /// Runs the fake Stripe alone
    Stripe,
}

/// The variables that only this program reads.
#[derive(Debug, clap::Args)]
struct SandboxConfig {
    /// Where the fake Stripe listens
    #[arg(long, env = "SANDBOX_STRIPE_ADDR", default_value = "127.0.0.1:12111", value_name = "an address and a port")]
    #[arg(value_parser = parsed::<SocketAddr>)]
    bind_addr: SocketAddr,
    /// Where browsers reach its payment pages, if not there
    #[arg(long, env = "SANDBOX_STRIPE_URL", value_name = "an address such as http://localhost:12111")]
    #[arg(value_parser = value(web_address))]
    public_url: Option<String>,
    /// Where it sends events, if not to the api of this machine
    #[arg(long, env = "SANDBOX_WEBHOOK_URL", value_name = "an address such as http://api:3000/api/webhooks/stripe")]
    #[arg(value_parser = value(web_address))]
    webhook_url: Option<String>,
}

fn main() -> ExitCode {
    let CommandLine { command } = CommandLine::parse();
    let outcome = Env::of_process().map_err(Into::into).and_then(|env| {
        let needs_postgres = command.is_none() && env.get("DATABASE_URL").is_none();
        let folder = prepare(needs_postgres)?;
        let runtime = tokio::runtime::Runtime::new().context("can't start tokio")?;
        match command {
            None => runtime.block_on(run(env, &folder)),
            Some(Part::Stripe) => runtime.block_on(run_stripe(env, &folder)),
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sandbox: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Preparations that need a single-threaded process.
fn prepare(needs_postgres: bool) -> Result<std::path::PathBuf> {
    if needs_postgres {
        return become_ordinary_user(Path::new(FOLDER));
    }
    std::fs::create_dir_all(FOLDER)?;
    Ok(FOLDER.into())
}

async fn run_stripe(mut env: Env, folder: &Path) -> Result<()> {
    observability::logs::init(&env.read()?);
    let stop = tokio::spawn(shutdown::requested());
    let stripe = start_stripe(&mut env, folder).await?;
    println!("the fake Stripe is listening on {}", stripe.url());
    let _ = stop.await;
    Ok(())
}

async fn run(mut env: Env, folder: &Path) -> Result<()> {
    env.or_set("RUST_LOG", "info,sqlx=warn,postgresql_embedded=warn");
    let traces = observability::logs::init_with_traces(&env.read()?, &TraceConfig::from_env(&env, "quick-checkout")?);
    let mut stop = tokio::spawn(shutdown::requested());

    let postgres = private_postgres(&mut env, folder).await?;
    env.or_set("API_KEY", remember(&folder.join("api_key"), random_word)?);
    env.or_set("BIND_ADDR", "127.0.0.1:3000");
    env.or_set("PUBLIC_URL", format!("http://localhost:{}", api_port(&env)));
    let fake_stripe = fake_stripe(&mut env, folder).await?;
    let api: ApiConfig = env.read()?;
    let worker: WorkerConfig = env.read()?;
    worker.check()?;

    let (pools, worker_pools) = (db::from_env(&env, 0)?, db::from_env(&env, queue::CONNECTIONS)?);
    let database = pools.database.clone();
    tokio::select! {
        prepared = db::prepare(&database) => prepared?,
        _ = &mut stop => return Ok(()),
    }
    serve_metrics_and_health(&api, &worker, &database).await?;
    let listener = TcpListener::bind(api.bind_addr)
        .await
        .with_context(|| format!("can't listen on {}; set BIND_ADDR to a free address", api.bind_addr))?;
    say_where_everything_is(&env, &api, fake_stripe.as_ref());

    let (stopping, stopped) = watch::channel(false);
    let until_stopped = |mut stopped: watch::Receiver<bool>| async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let clock = Clock::system();
    let news = PgNotifications::start(database.clone());
    let (timeout, trusted_proxies) = (api.shared.shutdown_timeout, api.trusted_proxies.clone());
    let state = AppState::new(pools, clock.clone(), api, news);
    let working = worker::run(worker_pools, clock, worker, until_stopped(stopped.clone()));
    let serving_stops = state.stopping(until_stopped(stopped));
    let serving = api::serve(listener, api::router(state), trusted_proxies, serving_stops, timeout);
    let (served, (), ()) = tokio::join!(serving, working, async {
        let _ = stop.await;
        let _ = stopping.send(true);
    });
    served?;
    traces.end().await;
    database.close();
    if let Some(postgres) = postgres {
        postgres.stop().await?;
    }
    eprintln!("stopped");
    Ok(())
}

/// Serves metrics and health checks if `METRICS_ADDR` and `HEALTH_ADDR` are set, like the
/// production binaries.
async fn serve_metrics_and_health(api: &ApiConfig, worker: &WorkerConfig, database: &Database) -> Result<()> {
    let bind = async |name, address| {
        TcpListener::bind(address)
            .await
            .with_context(|| format!("can't listen on {address}; set {name} to a free address"))
    };
    if let Some(address) = api.metrics_addr {
        tokio::spawn(api::serve_metrics(bind("METRICS_ADDR", address).await?, database.clone()));
    }
    if let Some(address) = worker.health_addr {
        tokio::spawn(worker::serve_health(bind("HEALTH_ADDR", address).await?, database.clone()));
    }
    Ok(())
}

/// Starts a private Postgres, unless `DATABASE_URL` is set.
async fn private_postgres(env: &mut Env, folder: &Path) -> Result<Option<PrivatePostgres>> {
    if env.get("DATABASE_URL").is_some() {
        return Ok(None);
    }
    eprintln!("starting a private Postgres in {} …", folder.join("postgres").display());
    let postgres = PrivatePostgres::start(&folder.join("postgres"), Durability::Full).await?;
    postgres.ensure_database(DATABASE).await?;
    env.or_set("DATABASE_URL", postgres.url(DATABASE));
    Ok(Some(postgres))
}

/// Starts a fake Stripe, unless `STRIPE_SECRET_KEY` is set.
async fn fake_stripe(env: &mut Env, folder: &Path) -> Result<Option<FakeStripe>> {
    if env.get("STRIPE_SECRET_KEY").is_some() {
        return Ok(None);
    }
    let stripe = start_stripe(env, folder)
        .await
        .context("set SANDBOX_STRIPE_ADDR to a free address, or STRIPE_SECRET_KEY to use the real Stripe")?;
    env.or_set("STRIPE_SECRET_KEY", "sk_test_fake");
    env.or_set("STRIPE_API_URL", stripe.url());
    Ok(Some(stripe))
}

/// Starts a fake Stripe and sets `STRIPE_WEBHOOK_SECRET`.
async fn start_stripe(env: &mut Env, folder: &Path) -> Result<FakeStripe> {
    let SandboxConfig { bind_addr, public_url, webhook_url } = env.read()?;
    let webhook_secret = match env.get("STRIPE_WEBHOOK_SECRET") {
        Some(secrets) => secrets.split(',').next().unwrap_or_default().to_owned(),
        None => remember(&folder.join("webhook_secret"), || format!("whsec_{}", random_word()))?,
    };
    let webhook_url = webhook_url.unwrap_or_else(|| format!("http://127.0.0.1:{}/api/webhooks/stripe", api_port(env)));
    env.or_set("STRIPE_WEBHOOK_SECRET", webhook_secret.clone());
    FakeStripe::start(FakeStripeConfig {
        bind_addr,
        public_url,
        webhook_url: Some(webhook_url),
        webhook_secret,
        file: Some(folder.join("stripe.json")),
        clock: Clock::system(),
    })
    .await
}

/// The port of `BIND_ADDR`, which the api's own configuration checks later.
fn api_port(env: &Env) -> u16 {
    env.get("BIND_ADDR").and_then(|address| address.parse::<SocketAddr>().ok()).map_or(3000, |address| address.port())
}

fn say_where_everything_is(env: &Env, api: &ApiConfig, fake_stripe: Option<&FakeStripe>) {
    let key = env.get("API_KEY").and_then(|keys| keys.split(',').next()).unwrap_or_default();
    let url = &api.shared.public_url;
    let stripe = fake_stripe.map_or_else(
        || "the real one: have it send webhooks to /api/webhooks/stripe".to_owned(),
        |fake_stripe| format!("{} (a fake; no money moves)", fake_stripe.url()),
    );
    println!(
        r#"
Quick Checkout Tracker is running.

  Dashboard  {url}/   (sign in with the API key)
  API        {url}/api
  API key    {key}
  Postgres   {database}
  Stripe     {stripe}

Try it, in another terminal:

  KEY={key}
  curl -s {url}/api/carts -H "x-api-key: $KEY" -H 'content-type: application/json' -d '{{
    "customerEmail": "ada@example.com", "customerName": "Ada Lovelace",
    "items": [{{"name": "Teapot", "quantity": 2, "price": 49.99}}]}}' | tee /tmp/cart.json
  ID=$(sed 's/.*"id":"\(cart_[^"]*\)".*/\1/' /tmp/cart.json)
  curl -s -X POST {url}/api/carts/$ID/payment-link -H "x-api-key: $KEY"
      # open the paymentLink (or the recoveryUrl) in a browser and press Pay, then:
  curl -s "{url}/api/analytics?period=7d" -H "x-api-key: $KEY"

Ctrl-C stops everything; the data stays in {FOLDER}/ for the next time.
"#,
        database = env.get("DATABASE_URL").unwrap_or_default(),
    );
}
