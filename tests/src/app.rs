//! Starts the product within a test.

use std::{net::SocketAddr, time::Duration};

use api::{ApiConfig, AppState, PgNotifications};
use chrono::{DateTime, TimeDelta, Utc};
use common::{
    clock::Clock,
    config::Env,
    db::{DatabaseConfig, Pools},
};
use reqwest::{Method, header::HeaderMap};
use sandbox::{
    proxy::Proxy,
    stripe::{FakeStripe, sign},
};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use worker::WorkerConfig;

use crate::{Contract, Door, TestDatabase, a_cart, fake_stripe};

const KEY: &str = "test-key";
const WEBHOOK_SECRET: &str = "whsec_test";

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

    /// Starts the product.
    ///
    /// # Panics
    /// If a part does not start.
    pub async fn start(self) -> App {
        App::start(self).await
    }
}

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

/// A response of the api.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as text.
    pub text: String,
    /// The body, if it is JSON; otherwise `null`.
    pub body: Value,
}

impl Answer {
    /// The `data` of a successful response.
    ///
    /// # Panics
    /// If it is an error, or has another status.
    pub fn data(self, status: u16) -> Value {
        assert_eq!((self.status, &self.body["success"]), (status, &json!(true)), "{}", self.text);
        self.body["data"].clone()
    }

    /// Checks an error response and returns it.
    ///
    /// # Panics
    /// If the status or code differs.
    pub fn is_error(&self, status: u16, code: &str) -> &Value {
        assert_eq!((self.status, &self.body["error"]["code"]), (status, &json!(code)), "{}", self.text);
        assert_eq!(self.body["success"], json!(false));
        assert!(self.body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
        assert!(self.headers.contains_key("x-request-id"));
        &self.body["error"]
    }

    /// A header's text, or an empty string.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl App {
    /// Starts the product with the default settings.
    pub async fn new() -> Self {
        Setup::default().start().await
    }

    async fn start(setup: Setup) -> Self {
        let database = TestDatabase::create().await;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let stripe = fake_stripe(&format!("http://{address}"), WEBHOOK_SECRET, setup.clock.clone()).await;

        let mut env = Env::of(setup.variables);
        // The test's own statements use the superuser; the product uses its restricted role.
        let product = database.as_product();
        env.or_set("DATABASE_URL", &product.url);
        env.or_set("STRIPE_API_URL", stripe.url());
        env.or_set("PUBLIC_URL", format!("http://{address}"));
        let config: ApiConfig = env.read().expect("a good configuration");
        let pool = database.pool(10);
        let (mut door, mut proxy, mut api_database) = (None, None, product.clone());
        if setup.door {
            let closed = Door::closed(database.server_address()).await;
            closed.open().await;
            api_database = product.by_way_of(closed.address);
            door = Some(closed);
        }
        if setup.proxy {
            let open = Proxy::start(vec![database.server_address()]).await.expect("a free port");
            api_database = product.by_way_of(open.address);
            proxy = Some(open);
        }
        let listen = env.read::<DatabaseConfig>().expect("a good configuration").listen();
        let reached = Pools::new(api_database.options(), listen, 9);
        let news = PgNotifications::start(reached.database.clone());
        let trusted_proxies = config.trusted_proxies.clone();
        let api_clock = setup.api_clock.unwrap_or_else(|| setup.clock.clone());
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
            Self { database, pool, clock: setup.clock, stripe, address, router, http, env, door, proxy, worker: None };
        if setup.worker {
            app.worker = Some(app.start_worker());
        }
        app
    }

    /// Starts a worker.
    ///
    /// # Panics
    /// If its configuration is invalid.
    pub fn start_worker(&self) -> RunningWorker {
        self.start_worker_of(&self.env)
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
        self.start_worker_of(&env)
    }

    fn start_worker_of(&self, env: &Env) -> RunningWorker {
        let mut config: WorkerConfig = env.read().expect("a good configuration");
        config.shared.shutdown_timeout = Duration::from_secs(5);
        let (stop, stopped) = oneshot::channel();
        let pools = common::db::from_env(env, queue::CONNECTIONS).expect("a good configuration");
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

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Builds a request with the API key.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, self.url(path)).header("x-api-key", KEY)
    }

    /// Builds a request without headers.
    pub fn bare_request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, self.url(path))
    }

    /// Sends a request and checks the response against the OpenAPI document.
    ///
    /// # Errors
    /// If there is no response.
    pub async fn execute(&self, request: reqwest::Request) -> reqwest::Result<reqwest::Response> {
        self.http.execute(request).await
    }

    /// Sends a request.
    ///
    /// # Panics
    /// If there is no response, or it does not match the OpenAPI document.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let request = request.build().expect("a good request");
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let response = self.http.execute(request).await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("a whole answer");
        Contract::get().hold(&method, &path, status, &headers, &text);
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status, headers, text, body }
    }

    /// `GET`
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// `POST` with a body of JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// `PATCH` with a body of JSON.
    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::PATCH, path).json(body)).await
    }

    /// `DELETE`
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// Creates a cart; returns its id.
    pub async fn cart(&self) -> String {
        self.cart_of(&a_cart()).await
    }

    /// Creates a cart with this body; returns its id.
    ///
    /// # Panics
    /// If the request is refused.
    pub async fn cart_of(&self, body: &Value) -> String {
        let cart = self.post("/api/carts", body).await.data(201);
        cart["id"].as_str().expect("an id").to_owned()
    }

    /// The current state of the cart.
    pub async fn show(&self, id: &str) -> Value {
        self.get(&format!("/api/carts/{id}")).await.data(200)
    }

    /// Requests a payment link.
    pub async fn ask(&self, id: &str) -> Answer {
        self.send(self.request(Method::POST, &format!("/api/carts/{id}/payment-link"))).await
    }

    /// Requests a payment link; returns the id of its session.
    ///
    /// # Panics
    /// If there is no link.
    pub async fn session(&self, id: &str) -> String {
        let link = self.ask(id).await.data(200);
        let url = link["paymentLink"].as_str().expect("a link");
        url.rsplit('/').next().expect("a path").to_owned()
    }

    /// Pays on the fake Stripe's page at `url`.
    ///
    /// # Panics
    /// If the page refuses the payment.
    pub async fn pay(&self, url: &str) {
        let paid = self.http.post(format!("{url}/pay")).send().await.expect("the fake Stripe responds");
        assert!(paid.status().is_success() || paid.status().is_redirection(), "{}", paid.status());
    }

    /// Presses a button on the fake Stripe's page of a session; returns the status of the response.
    ///
    /// # Panics
    /// If there is no response.
    pub async fn press(&self, session: &str, action: &str) -> u16 {
        let url = format!("{}/c/pay/{session}/{action}", self.stripe.url());
        self.http.post(url).send().await.expect("the fake Stripe responds").status().as_u16()
    }

    /// Sends an event, signed like Stripe's.
    pub async fn webhook(&self, event: &Value) -> Answer {
        let body = event.to_string();
        let signature = sign(&body, WEBHOOK_SECRET, self.now().timestamp());
        self.signed_webhook(&body, &signature).await
    }

    /// Sends an event with this signature.
    pub async fn signed_webhook(&self, body: &str, signature: &str) -> Answer {
        let request = self.bare_request(Method::POST, "/api/webhooks/stripe");
        self.send(request.header("stripe-signature", signature).body(body.to_owned())).await
    }

    /// The names of all schedules that workers have registered, sorted.
    ///
    /// # Panics
    /// If the request fails.
    pub async fn schedules(&self) -> Vec<String> {
        let data = self.get("/api/schedules").await.data(200);
        let schedules = data["schedules"].as_array().expect("schedules");
        let mut names: Vec<String> =
            schedules.iter().map(|schedule| schedule["name"].as_str().expect("a name").to_owned()).collect();
        names.sort_unstable();
        names
    }

    /// Waits until a worker has registered [`SCHEDULES`](crate::SCHEDULES).
    pub async fn schedules_are_known(&self) {
        crate::eventually("the schedules are known", async || self.schedules().await == crate::SCHEDULES).await;
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
