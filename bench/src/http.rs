//! An api in this process, and a client for it over loopback.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use api::{ApiConfig, AppState, PgNotifications};
use axum::body::Bytes;
use common::{
    clock::Clock,
    config::Env,
    db::{self, Listen, Pools},
};
use sqlx::postgres::PgConnectOptions;
use tokio::{net::TcpListener, sync::oneshot, task::JoinSet, time::MissedTickBehavior};

/// The interval of requests in [`Api::at_a_steady_rate`].
const PACE: Duration = Duration::from_millis(20);

/// A running api with its own connections to Postgres.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    address: SocketAddr,
    client: reqwest::Client,
}

impl Api {
    /// Starts an api that serves until the process ends.
    pub(crate) async fn start(options: PgConnectOptions) -> Result<Self> {
        let env =
            Env::of([("API_KEY", "bench"), ("STRIPE_WEBHOOK_SECRET", "whsec_bench"), ("RATE_LIMIT_PER_MINUTE", "0")]);
        let config: ApiConfig = env.read()?;
        let pools = Pools::new(options, Listen::Directly, db::DEFAULT_MAX_CONNECTIONS - 1);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let news = PgNotifications::start(pools.database.clone());
        let router = api::router(AppState::new(pools, Clock::system(), config, news));
        tokio::spawn(api::serve(listener, router, Vec::new(), std::future::pending(), Duration::from_secs(1)));
        sandbox::choose_cryptography();
        Ok(Self { address, client: reqwest::Client::builder().no_proxy().build()? })
    }

    /// Measures a `GET`, including its body.
    pub(crate) async fn get(&self, path: &str) -> Result<Duration> {
        let sent = Instant::now();
        let response =
            self.client.get(format!("http://{}{path}", self.address)).header("x-api-key", "bench").send().await?;
        let status = response.status();
        response.bytes().await?;
        ensure!(status.is_success(), "GET {path} answers {status}");
        Ok(sent.elapsed())
    }

    /// Imports a file whose lines must all be stored, and reads the whole response.
    pub(crate) async fn import(&self, kind: &str, file: Bytes) -> Result<()> {
        let request =
            self.client.post(format!("http://{}/api/carts/import", self.address)).header("x-api-key", "bench");
        let mut response = request.header("content-type", kind).body(file).send().await?.error_for_status()?;
        let mut end = Vec::new();
        while let Some(piece) = response.chunk().await? {
            end.extend_from_slice(&piece);
            end.drain(..end.len().saturating_sub(200));
        }
        let end = String::from_utf8_lossy(&end);
        ensure!(end.ends_with("\"exists\":0,\"errors\":0}}\n"), "the import ended with {end}");
        Ok(())
    }

    /// Requests the carts in turn until `stop` resolves. A slow response does not delay the next
    /// request.
    pub(crate) async fn at_a_steady_rate(self, ids: Arc<Vec<String>>, stop: oneshot::Receiver<()>) -> Result<Vec<f64>> {
        let mut clock = tokio::time::interval(PACE);
        clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut requests = JoinSet::new();
        let mut paths = ids.iter().cycle().map(|id| format!("/api/carts/{id}"));
        tokio::pin!(stop);
        loop {
            tokio::select! {
                _ = &mut stop => break,
                _ = clock.tick() => {
                    let (api, path) = (self.clone(), paths.next().unwrap_or_default());
                    requests.spawn(async move { api.get(&path).await });
                }
            }
        }
        let mut waits = Vec::new();
        while let Some(wait) = requests.join_next().await {
            waits.push(crate::figures::milliseconds(wait??));
        }
        Ok(waits)
    }
}
