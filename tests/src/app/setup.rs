//! The settings of a test.

use std::time::Duration;

use api::{ApiConfig, AppState, PgNotifications};
use chrono::TimeDelta;
use common::{
    clock::Clock,
    config::Env,
    db::{DatabaseConfig, Pools},
};
use sandbox::proxy::Proxy;
use tokio::net::TcpListener;

use super::{App, WEBHOOK_SECRET};
use crate::{Door, TestDatabase, fake_stripe};

/// The settings of a test.
#[derive(Debug, Clone)]
pub struct Setup {
    variables: Vec<(String, String)>,
    clock: Clock,
    /// The clock of the api's machine, if it is wrong.
    api_clock: Option<Clock>,
    worker: bool,
    door: bool,
    proxy: bool,
}

impl Default for Setup {
    fn default() -> Self {
        let variables = [
            ("API_KEY", "old-key, test-key"),
            ("STRIPE_WEBHOOK_SECRET", "whsec_other,whsec_test"),
            ("STRIPE_SECRET_KEY", "sk_test_1"),
            ("RATE_LIMIT_PER_MINUTE", "0"),
            // Links may take long on a busy machine. Tests of the wait set their own value.
            ("PAYMENT_LINK_WAIT", "30s"),
        ];
        Self {
            variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            clock: Clock::system(),
            api_clock: None,
            worker: true,
            door: false,
            proxy: false,
        }
    }
}

impl Setup {
    /// Sets an environment variable.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Stops the clock at this time.
    #[must_use]
    pub fn at(mut self, now: &str) -> Self {
        self.clock = Clock::stopped_at(now.parse().expect("an instant"));
        self
    }

    /// Makes the clock of the api's machine wrong; the worker, Postgres and Stripe have the right time.
    #[must_use]
    pub fn with_api_clock_wrong_by(mut self, ahead: TimeDelta) -> Self {
        self.api_clock = Some(Clock::wrong_by(ahead));
        self
    }

    /// Starts no worker.
    #[must_use]
    pub fn without_worker(mut self) -> Self {
        self.worker = false;
        self
    }

    /// Connects the api to Postgres through [`App::door`].
    #[must_use]
    pub fn behind_a_door(mut self) -> Self {
        self.door = true;
        self
    }

    /// Connects the api to Postgres through [`App::proxy`].
    #[must_use]
    pub fn behind_a_proxy(mut self) -> Self {
        self.proxy = true;
        self
    }

    /// Starts the product, and waits for the runs that its schedules start with.
    ///
    /// # Panics
    /// If a part does not start.
    pub async fn start(self) -> App {
        let database = TestDatabase::create().await;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let stripe = fake_stripe(&format!("http://{address}"), WEBHOOK_SECRET, self.clock.clone()).await;

        let mut env = Env::of(self.variables);
        // The test's own statements use the superuser; the product uses its restricted role.
        let product = database.as_product();
        env.or_set("DATABASE_URL", &product.url);
        env.or_set("STRIPE_API_URL", stripe.url());
        env.or_set("PUBLIC_URL", format!("http://{address}"));
        let config: ApiConfig = env.read().expect("a good configuration");
        let pool = database.pool(10);
        let (mut door, mut proxy, mut api_database) = (None, None, product.clone());
        if self.door {
            let closed = Door::closed(database.server_address()).await;
            closed.open().await;
            api_database = product.by_way_of(closed.address);
            door = Some(closed);
        }
        if self.proxy {
            let open = Proxy::start(vec![database.server_address()]).await.expect("a free port");
            api_database = product.by_way_of(open.address);
            proxy = Some(open);
        }
        let listen = env.read::<DatabaseConfig>().expect("a good configuration").listen();
        let reached = Pools::new(api_database.options(), listen, 9);
        let news = PgNotifications::start(reached.database.clone());
        let trusted_proxies = config.trusted_proxies.clone();
        let api_clock = self.api_clock.unwrap_or_else(|| self.clock.clone());
        let router = api::router(AppState::new(reached, api_clock, config, news));
        tokio::spawn(api::serve(
            listener,
            router.clone(),
            trusted_proxies,
            std::future::pending(),
            Duration::from_secs(1),
        ));

        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(90))
            .build()
            .expect("a client");
        let mut app =
            App { database, pool, clock: self.clock, stripe, address, router, http, env, door, proxy, worker: None };
        if self.worker {
            app.worker = Some(app.start_worker());
            app.first_runs_have_ended().await;
        }
        app
    }
}
