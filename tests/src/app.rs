//! Starts the product within a test.

mod requests;
mod setup;

use std::{net::SocketAddr, time::Duration};

use api::{ApiConfig, AppState, PgNotifications};
use chrono::{DateTime, Utc};
use common::{clock::Clock, config::Env};
use sandbox::{proxy::Proxy, stripe::FakeStripe};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use worker::WorkerConfig;

pub use requests::Answer;
pub use setup::Setup;

use crate::{Door, TestDatabase};

const KEY: &str = "test-key";
const WEBHOOK_SECRET: &str = "whsec_test";

/// The running product.
#[derive(Debug)]
pub struct App {
    /// Its database.
    pub database: TestDatabase,
    /// Connections for the test itself.
    pub pool: PgPool,
    /// The product's clock.
    pub clock: Clock,
    /// The fake Stripe.
    pub stripe: FakeStripe,
    /// The address of the api.
    pub address: SocketAddr,
    /// The api's router.
    pub router: axum::Router,
    http: reqwest::Client,
    /// The api's connection to Postgres, for tests that close it.
    pub door: Option<Door>,
    /// The api's connection to Postgres, for tests that drop packets silently.
    pub proxy: Option<Proxy>,
    env: Env,
    worker: Option<RunningWorker>,
}

/// A worker in this process.
#[derive(Debug)]
pub struct RunningWorker {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl RunningWorker {
    /// Stops the worker and waits for it.
    ///
    /// # Panics
    /// If it panicked.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.expect("a worker does not panic");
    }
}

impl App {
    /// Starts the product with the default settings.
    pub async fn new() -> Self {
        Setup::default().start().await
    }

    /// Starts a worker.
    ///
    /// # Panics
    /// If its configuration is invalid.
    pub fn start_worker(&self) -> RunningWorker {
        self.start_worker_with(&[])
    }

    /// Starts a worker with other values of these variables; an empty one is not set.
    ///
    /// # Panics
    /// If its configuration is invalid.
    pub fn start_worker_with(&self, variables: &[(&str, &str)]) -> RunningWorker {
        let mut env = self.env.clone();
        for (name, value) in variables {
            env.set(name, *value);
        }
        let mut config: WorkerConfig = env.read().expect("a good configuration");
        config.shared.shutdown_timeout = Duration::from_secs(5);
        let (stop, stopped) = oneshot::channel();
        let pools = common::db::from_env(&env, queue::CONNECTIONS).expect("a good configuration");
        let clock = self.clock.clone();
        let task = tokio::spawn(async move {
            worker::run(pools, clock, config, async {
                let _ = stopped.await;
            })
            .await;
        });
        RunningWorker { stop, task }
    }

    /// Starts a second api on the same database, with one more variable; returns its address.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn api_beside(&self, name: &str, value: &str) -> SocketAddr {
        let mut env = self.env.clone();
        env.or_set(name, value);
        let config: ApiConfig = env.read().expect("a good configuration");
        let pools = common::db::from_env(&env, 0).expect("a good configuration");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let news = PgNotifications::start(pools.database.clone());
        let trusted_proxies = config.trusted_proxies.clone();
        let router = api::router(AppState::new(pools, self.clock.clone(), config, news));
        tokio::spawn(api::serve(listener, router, trusted_proxies, std::future::pending(), Duration::from_secs(1)));
        address
    }

    /// The current time of the product's clock.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// The number of jobs that are neither done nor dead, without those of schedules.
    ///
    /// # Panics
    /// If Postgres is unavailable.
    pub async fn unfinished_jobs(&self) -> i64 {
        sqlx::query_scalar("select count(*) from jobs where state in ('pending', 'running') and slot is null")
            .fetch_one(&self.pool)
            .await
            .expect("Postgres is there")
    }

    /// Runs these statements as the superuser.
    ///
    /// # Panics
    /// If one fails.
    pub async fn sql(&self, statements: &str) {
        sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&self.pool).await.expect("good statements");
    }

    /// Runs the pending jobs now, whenever they would run.
    ///
    /// # Panics
    /// If Postgres is unavailable.
    pub async fn hurry(&self) {
        sqlx::query("update jobs set run_at = now() where state = 'pending' and run_at > now() and slot is null")
            .execute(&self.pool)
            .await
            .expect("Postgres is there");
    }

    /// Waits until nothing is in progress: no job is running or pending (scheduled jobs may be
    /// pending), no session is open past its end, and every Stripe event has arrived. After that,
    /// state changes only if the test changes it.
    pub async fn idle(&self) {
        crate::eventually("no job is left and no event is on its way", async || {
            self.stripe.expire_due().await;
            // Events enqueue jobs and jobs cause events, so neither may have started between the
            // two checks.
            let delivered = self.stripe.all_delivered();
            delivered.is_some() && !self.is_working().await && self.stripe.all_delivered() == delivered
        })
        .await;
    }

    /// Waits until the first run of each schedule has ended. It begins as soon as the worker starts, and
    /// would find the rows of a test before the test has done with them.
    pub async fn first_runs_have_ended(&self) {
        let anonymizes = self.env.get("RETAIN_PERSONAL_DATA").is_some();
        let schedules = crate::SCHEDULES.len() + usize::from(anonymizes);
        crate::eventually("the first run of each schedule has ended", async || {
            let (known, is_one_left): (i64, bool) = sqlx::query_as(
                "select (select count(*) from schedules),
                        exists (select from jobs where slot is not null and state in ('pending', 'running'))",
            )
            .fetch_one(&self.pool)
            .await
            .expect("Postgres is there");
            usize::try_from(known) == Ok(schedules) && !is_one_left
        })
        .await;
    }

    async fn is_working(&self) -> bool {
        sqlx::query_scalar(
            // Exclude repeated searches for a session, which wait longer than a test.
            "select exists (select from jobs where state = 'running' or (state = 'pending' and slot is null
                and not (coalesce(last_error, '') like '%Stripe may still make it' and run_at > now() + interval '5 s')))",
        )
        .fetch_one(&self.pool)
        .await
        .expect("Postgres is there")
    }
}
