//! The shop during the upgrade: processes, shoppers, and responses.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::clock::Clock;
use reqwest::{Method, RequestBuilder};
use sandbox::stripe::{FakeStripe, FakeStripeConfig};
use serde_json::{Value, json};
use sqlx::PgPool;
use tests::{
    Binaries, TestDatabase, a_cart,
    processes::{self, Process},
    within,
};
use tokio::task::JoinSet;

const SECRET: &str = "whsec_upgrades";

/// The version of a process.
#[derive(Clone, Copy)]
pub(super) enum Version {
    Last,
    This,
}

/// The state of the shop.
pub(super) struct Shop {
    pub(super) database: TestDatabase,
    pub(super) pool: PgPool,
    pub(super) stripe: FakeStripe,
    http: reqwest::Client,
    last: Binaries,
    /// The apis behind the load balancer.
    serving: Mutex<Vec<SocketAddr>>,
    turns: AtomicUsize,
    /// The acknowledged carts, with their last known status.
    pub(super) known: Mutex<BTreeMap<String, &'static str>>,
    pub(super) wrong: Mutex<Vec<String>>,
    pub(super) closed: AtomicBool,
}

impl Shop {
    pub(super) async fn open(last: Binaries) -> Arc<Self> {
        processes::program("api").await; // build before the test starts
        let database = TestDatabase::create().await.empty().await;
        let stripe = FakeStripe::start(FakeStripeConfig {
            bind_addr: "127.0.0.1:0".parse().unwrap(),
            public_url: None,
            webhook_url: None,
            webhook_secret: SECRET.to_owned(),
            file: None,
            clock: Clock::system(),
        })
        .await
        .unwrap();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(90)).build().unwrap();
        Arc::new(Self {
            pool: database.pool(4),
            database,
            stripe,
            http,
            last,
            serving: Mutex::default(),
            turns: AtomicUsize::new(0),
            known: Mutex::default(),
            wrong: Mutex::default(),
            closed: AtomicBool::new(false),
        })
    }

    pub(super) async fn start(&self, version: Version, name: &'static str, address: SocketAddr) -> Process {
        let mut variables = vec![
            ("DATABASE_URL", self.database.url.clone()),
            ("PUBLIC_URL", "http://shop.example".to_owned()),
            ("RUST_LOG", "info".to_owned()),
        ];
        variables.extend(match name {
            "api" => vec![
                ("API_KEY", "key".to_owned()),
                ("BIND_ADDR", address.to_string()),
                ("STRIPE_WEBHOOK_SECRET", SECRET.to_owned()),
                ("RATE_LIMIT_PER_MINUTE", "0".to_owned()),
                ("PAYMENT_LINK_WAIT", "30s".to_owned()),
            ],
            _ => vec![
                ("STRIPE_SECRET_KEY", "sk_test_upgrades".to_owned()),
                ("STRIPE_API_URL", self.stripe.url()),
                ("STRIPE_RATE", "0".to_owned()),
                ("EXPIRY_SCHEDULE", "* * * * * *".to_owned()),
            ],
        });
        let mut process = match version {
            Version::Last => Process::start_program(&self.last.program(name), variables),
            Version::This => Process::start(name, variables).await,
        };
        process.says(if name == "api" { "api is listening" } else { "worker is working" }).await;
        process
    }

    /// Adds the api to the load balancer, and sends Stripe's events to it.
    pub(super) fn serves(&self, api: SocketAddr) {
        self.serving.lock().unwrap().push(api);
        self.stripe.send_webhooks_to(Some(format!("http://{api}/api/webhooks/stripe")));
    }

    /// Removes the api; Stripe's events go to the remaining one.
    pub(super) fn serves_no_more(&self, api: SocketAddr) {
        self.serving.lock().unwrap().retain(|other| *other != api);
        let left = *self.serving.lock().unwrap().first().unwrap();
        self.stripe.send_webhooks_to(Some(format!("http://{left}/api/webhooks/stripe")));
    }

    /// Sends a request to the apis in turn, except those being removed.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        change: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> (u16, Value) {
        loop {
            let serving = self.serving.lock().unwrap().clone();
            let api = serving[self.turns.fetch_add(1, Ordering::Relaxed) % serving.len()];
            let request = self.http.request(method.clone(), format!("http://{api}{path}")).header("x-api-key", "key");
            let Ok(response) = change(request).send().await else {
                assert!(!self.serving.lock().unwrap().contains(&api), "{api} serves, and did not answer {path}");
                continue;
            };
            let status = response.status();
            let body = response.json().await.unwrap_or(Value::Null);
            if status.is_server_error() {
                self.wrong.lock().unwrap().push(format!("{method} {path} at {api}: {status} {body}"));
            }
            return (status.as_u16(), body);
        }
    }

    pub(super) async fn get(&self, path: &str) -> Value {
        self.call(Method::GET, path, |request| request).await.1["data"].clone()
    }

    pub(super) async fn create(&self, key: &str) -> String {
        let create = |request: RequestBuilder| request.header("idempotency-key", key).json(&a_cart());
        let (status, body) = self.call(Method::POST, "/api/carts", create).await;
        assert_eq!(status, 201, "{body}");
        body["data"]["id"].as_str().unwrap().to_owned()
    }

    pub(super) fn knows(&self, id: &str, status: &'static str) {
        self.known.lock().unwrap().insert(id.to_owned(), status);
    }

    pub(super) async fn patch(&self, id: &str, status: &'static str) {
        let change = |request: RequestBuilder| request.json(&json!({"status": status}));
        let (answered, body) = self.call(Method::PATCH, &format!("/api/carts/{id}"), change).await;
        assert_eq!(answered, 200, "{body}");
        self.knows(id, status);
    }

    /// Requests a link and pays it if it is made in time.
    pub(super) async fn pay(&self, id: &str) {
        let path = format!("/api/carts/{id}/payment-link");
        let (status, link) = self.call(Method::POST, &path, |request| request).await;
        assert!(matches!(status, 200 | 202), "{link}");
        let Some(session) = link["data"]["paymentLink"].as_str().and_then(|url| url.rsplit('/').next()) else { return };
        let deliveries = self.stripe.pay(session).await.unwrap();
        if !deliveries.iter().all(|delivery| delivery.status == Some(200)) {
            self.wrong.lock().unwrap().push(format!("Stripe's events of {id} were not taken: {deliveries:?}"));
        }
        self.knows(id, "recovered");
    }

    /// A visit of a shopper, with one of the usual actions.
    pub(super) async fn visit(&self, number: usize) {
        let id = self.create(&format!("visit {number}")).await;
        self.knows(&id, "abandoned");
        match number % 7 {
            0 => self.patch(&id, "expired").await,
            1 => self.patch(&id, "recovered").await,
            2 | 3 => self.pay(&id).await,
            4 => {
                self.patch(&id, "expired").await;
                self.patch(&id, "abandoned").await;
            }
            5 => {
                let (status, body) = self.call(Method::DELETE, &format!("/api/carts/{id}"), |request| request).await;
                assert_eq!(status, 200, "{body}");
                self.knows(&id, "deleted");
            }
            _ => {}
        }
    }

    /// Starts four concurrent shoppers, who visit until the shop closes.
    pub(super) fn shoppers(self: &Arc<Self>) -> JoinSet<()> {
        let numbers = Arc::new(AtomicUsize::new(1000));
        let mut shoppers = JoinSet::new();
        for _ in 0..4 {
            let (shop, numbers) = (self.clone(), numbers.clone());
            shoppers.spawn(async move {
                while !shop.closed.load(Ordering::Relaxed) {
                    shop.visit(numbers.fetch_add(1, Ordering::Relaxed)).await;
                }
            });
        }
        shoppers
    }

    /// Waits until this many more carts are acknowledged.
    pub(super) async fn goes_on_for(&self, carts: usize) {
        let begun = self.known.lock().unwrap().len();
        within(Duration::from_secs(120), &format!("{carts} more carts were answered"), async || {
            self.known.lock().unwrap().len() >= begun + carts
        })
        .await;
    }

    pub(super) async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }
}
