//! The real binaries, configured by environment variables alone.

use std::{net::SocketAddr, time::Duration};

use common::clock::Clock;
use nix::sys::signal::Signal;
use sandbox::stripe::{FakeStripe, Fault, Operation};
use serde_json::{Value, json};
use tests::{Door, OF_THE_SHOPPER, TestDatabase, a_cart, eventually, fake_stripe, processes::Process, within};

pub(crate) const SECRET: &str = "whsec_processes";

/// [`tests::free_address`] on a blocking thread, because it may try many ports.
pub(crate) async fn free_address() -> SocketAddr {
    tokio::task::spawn_blocking(tests::free_address).await.unwrap()
}

/// The environment in which real processes are started.
pub(crate) struct Shop {
    pub(crate) database: TestDatabase,
    pub(crate) stripe: FakeStripe,
    pub(crate) http: reqwest::Client,
    address: SocketAddr,
}

impl Shop {
    pub(crate) async fn open() -> Self {
        let database = TestDatabase::create().await;
        let address = free_address().await;
        let stripe = fake_stripe(&format!("http://{address}"), SECRET, Clock::system()).await;
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { database, stripe, http, address }
    }

    pub(crate) fn api_variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("DATABASE_URL", self.database.url.clone()),
            ("API_KEY", "key".to_owned()),
            ("BIND_ADDR", self.address.to_string()),
            ("PUBLIC_URL", format!("http://{}", self.address)),
            ("STRIPE_WEBHOOK_SECRET", SECRET.to_owned()),
            ("LOG_FORMAT", "json".to_owned()),
            // A link may take long on a busy machine.
            ("PAYMENT_LINK_WAIT", "30s".to_owned()),
        ]
    }

    pub(crate) fn worker_variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("DATABASE_URL", self.database.url.clone()),
            ("PUBLIC_URL", format!("http://{}", self.address)),
            ("STRIPE_SECRET_KEY", "sk_test_processes".to_owned()),
            ("STRIPE_API_URL", self.stripe.url()),
        ]
    }

    pub(crate) async fn api(&self) -> Process {
        let mut api = Process::start("api", self.api_variables()).await;
        api.says("api is listening").await;
        api
    }

    pub(crate) async fn worker(&self) -> Process {
        let mut worker = Process::start("worker", self.worker_variables()).await;
        worker.says("worker is working").await;
        worker
    }

    pub(crate) async fn call(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let response = request.header("x-api-key", "key").send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn cart(&self) -> String {
        let (status, body) = self.call(self.http.post(self.url("/api/carts")).json(&a_cart())).await;
        assert_eq!(status, 201, "{body}");
        body["data"]["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn link(&self, id: &str) -> (u16, Value) {
        self.call(self.http.post(self.url(&format!("/api/carts/{id}/payment-link")))).await
    }

    async fn get(&self, path: &str) -> Value {
        self.call(self.http.get(self.url(path))).await.1["data"].clone()
    }
}

#[tokio::test]
async fn one_api_and_two_workers_go_from_a_cart_to_its_recovery() {
    let shop = Shop::open().await;
    // All three would migrate an empty schema concurrently; this database is a copy of the migrated
    // template, and `an_empty_database` starts from nothing.
    let (mut api, mut one, mut two) = tokio::join!(shop.api(), shop.worker(), shop.worker());
    let id = shop.cart().await;
    let (status, link) = shop.link(&id).await;
    assert_eq!(status, 200, "{link}");
    // A shopper presses Pay.
    let page = link["data"]["paymentLink"].as_str().unwrap();
    let paid = shop.http.post(format!("{page}/pay")).send().await.unwrap();
    assert_eq!(paid.status(), 200, "and is led to the page that says thanks");
    assert!(paid.text().await.unwrap().contains("Thank you"));
    assert_eq!(shop.get(&format!("/api/carts/{id}")).await["status"], "recovered");
    assert_eq!(shop.get("/api/analytics?period=7d").await["summary"]["totalRecovered"], json!(1));
    for process in [&mut api, &mut one, &mut two] {
        process.signal(Signal::SIGTERM);
        assert_eq!(process.ends().await, Some(0));
    }
}

#[tokio::test]
async fn an_empty_database_is_migrated_by_the_first_process() {
    let shop = Shop::open().await;
    let pool = shop.database.pool(1);
    sqlx::query("drop schema public cascade").execute(&pool).await.unwrap();
    sqlx::query("create schema public").execute(&pool).await.unwrap();
    let (_api, _one, _two) = tokio::join!(shop.api(), shop.worker(), shop.worker());
    let id = shop.cart().await;
    assert_eq!(shop.link(&id).await.0, 200);
}

/// The worker is killed after Stripe created the session and before the worker got the response.
#[tokio::test]
async fn a_worker_killed_while_making_a_link_causes_no_second_session() {
    let shop = Shop::open().await;
    let (_api, mut doomed) = tokio::join!(shop.api(), shop.worker());
    shop.stripe.fail_next(Operation::Create, Fault::Held);
    let id = shop.cart().await;
    let request = shop.http.post(shop.url(&format!("/api/carts/{id}/payment-link"))).header("prefer", "respond-async");
    assert_eq!(shop.call(request).await.0, 202);
    eventually("Stripe made the session", async || shop.stripe.sessions().len() == 1).await;
    doomed.signal(Signal::SIGKILL);
    assert_eq!(doomed.ends().await, None);
    let _other = shop.worker().await;
    // The lease of 25 s must run out, so the test has to wait for it.
    within(Duration::from_secs(120), "another worker made the link", async || {
        shop.get(&format!("/api/carts/{id}/payment-link")).await["status"] == "ready"
    })
    .await;
    let open = shop.stripe.open_sessions().len();
    assert_eq!((open, shop.stripe.sessions().len()), (1, 1));
}

#[tokio::test]
async fn the_start_waits_for_postgres() {
    let shop = Shop::open().await;
    let door = Door::closed(shop.database.server_address()).await;
    let mut variables = shop.api_variables();
    variables[0].1 = shop.database.by_way_of(door.address).url;
    let mut api = Process::start("api", variables).await;
    api.says("Postgres is unavailable; waiting").await;
    door.open().await;
    api.says("Postgres is available").await;
    eventually("it is ready", async || {
        shop.http.get(shop.url("/readyz")).send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
}

#[tokio::test]
async fn start_failures_are_reported_in_one_line() {
    let shop = Shop::open().await;
    let other_database = shop.database.url.replace(&shop.database.name, "no_such_database");
    let wrong_password = {
        let (before, after) =
            shop.database.url.split_once("postgres:").map(|_| shop.database.url.rsplit_once('@').unwrap()).unwrap();
        let (user, _) = before.rsplit_once(':').unwrap();
        format!("{user}:wrong@{after}")
    };
    let without = |variables: Vec<(&'static str, String)>, name: &str| {
        variables.into_iter().filter(|(known, _)| *known != name).collect::<Vec<_>>()
    };
    let with = |variables: Vec<(&'static str, String)>, name: &'static str, value: &str| {
        let mut variables = without(variables, name);
        variables.push((name, value.to_owned()));
        variables
    };
    let (api, worker) = (shop.api_variables(), shop.worker_variables());
    let cases = [
        (
            "api",
            without(api.clone(), "API_KEY"),
            "api: API_KEY is not set; it takes one key, or several separated by commas",
        ),
        ("api", without(api.clone(), "DATABASE_URL"), "api: DATABASE_URL is not set; it takes postgres://"),
        ("api", without(api.clone(), "STRIPE_WEBHOOK_SECRET"), "api: STRIPE_WEBHOOK_SECRET is not set"),
        ("api", with(api.clone(), "DATABASE_URL", "mysql://x"), "api: DATABASE_URL is malformed; it takes postgres://"),
        ("api", with(api.clone(), "DATABASE_URL", &other_database), "api: DATABASE_URL: Postgres refuses it"),
        ("api", with(api.clone(), "DATABASE_URL", &wrong_password), "api: DATABASE_URL: Postgres refuses it"),
        ("api", with(api.clone(), "BIND_ADDR", "3000"), r#"api: BIND_ADDR is "3000"; it takes an address and a port"#),
        ("api", with(api.clone(), "CURRENCY", "dollars"), r#"api: CURRENCY is "dollars"; it takes an ISO 4217 code"#),
        (
            "api",
            with(api.clone(), "TRUSTED_PROXIES", "10.0.0.0/33"),
            r#"api: TRUSTED_PROXIES is "10.0.0.0/33"; it takes networks"#,
        ),
        ("api", with(api.clone(), "PAYMENT_LINK_WAIT", "10"), r#"api: PAYMENT_LINK_WAIT is "10"; it takes a duration"#),
        ("worker", without(worker.clone(), "STRIPE_SECRET_KEY"), "worker: STRIPE_SECRET_KEY is not set"),
        (
            "worker",
            with(worker.clone(), "WORKER_QUEUES", "expiry,mail"),
            r#"worker: WORKER_QUEUES is "mail"; it takes queues"#,
        ),
        ("worker", with(worker.clone(), "EXPIRY_SCHEDULE", "every day"), r#"worker: EXPIRY_SCHEDULE is "every day" ("#),
        (
            "worker",
            with(worker.clone(), "WORKER_CONCURRENCY", "0"),
            r#"worker: WORKER_CONCURRENCY is "0"; it takes a whole number"#,
        ),
        (
            "worker",
            with(worker.clone(), "EXPIRY_SCHEDULE", "0 0 0 30 2 *"),
            r#"worker: EXPIRY_SCHEDULE is "0 0 0 30 2 *" (it never comes)"#,
        ),
        (
            "worker",
            with(worker.clone(), "STRIPE_RATE", "fast"),
            r#"worker: STRIPE_RATE is "fast"; it takes calls a second"#,
        ),
        (
            "worker",
            with(worker.clone(), "RETAIN_PERSONAL_DATA", "1h"),
            r#"worker: RETAIN_PERSONAL_DATA is "1h"; it takes a duration of at least 1d"#,
        ),
        (
            "worker",
            with(worker.clone(), "RETAIN_EVENTS", "1h"),
            r#"worker: RETAIN_EVENTS is "1h"; it takes a duration of at least 3d"#,
        ),
        (
            "worker",
            with(worker.clone(), "DATABASE_LISTEN_URL", "localhost"),
            "worker: DATABASE_LISTEN_URL is malformed; it takes postgres://",
        ),
        (
            "worker",
            with(worker.clone(), "CART_TTL", "forever"),
            r#"worker: CART_TTL is "forever"; it takes a duration"#,
        ),
    ];
    for (binary, variables, line) in cases {
        let mut process = Process::start(binary, variables).await;
        let said = process.says(line).await;
        assert!(said.starts_with(line) && !said.contains("wrong@"), "{said}");
        assert_eq!(process.ends().await, Some(1), "{line}");
    }
}

#[tokio::test]
async fn logs_hold_no_personal_data_and_one_line_a_request() {
    let shop = Shop::open().await;
    let mut api = shop.api().await;
    let id = shop.cart().await;
    let (_, body) = shop.call(shop.http.get(shop.url("/api/carts?email=ada@example.com"))).await;
    assert_eq!(body["data"]["carts"][0]["customerName"], "Ada Lovelace");
    let (refused, _) = shop.call(shop.http.get(shop.url(&format!("/api/carts/{id}?who=ada@example.com")))).await;
    assert_eq!(refused, 400, "an unknown parameter");
    let _ = shop.http.get(shop.url("/pay/secret-token")).send().await.unwrap();
    api.signal(Signal::SIGTERM);
    let mut lines = Vec::new();
    while let Some(line) = api.next_line().await {
        lines.push(line);
    }
    let requests: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).expect("every line is JSON"))
        .filter(|line| line["message"] == "request")
        .collect();
    assert_eq!(requests.len(), 4, "{lines:?}");
    assert_eq!((&requests[1]["route"], &requests[1]["status"]), (&json!("/api/carts"), &json!(200)));
    assert_eq!((&requests[2]["route"], &requests[2]["status"]), (&json!("/api/carts/{id}"), &json!(400)));
    // The listening address is not a client's address.
    lines.retain(|line| !line.contains("api is listening"));
    for word in OF_THE_SHOPPER.into_iter().chain(["secret-token", "127.0.0.1"]) {
        assert!(!lines.iter().any(|line| line.contains(word)), "{word}: {lines:?}");
    }
}

#[tokio::test]
async fn the_worker_serves_its_health_at_the_configured_address() {
    let shop = Shop::open().await;
    let address = free_address().await;
    let mut variables = shop.worker_variables();
    variables.push(("HEALTH_ADDR", address.to_string()));
    let mut worker = Process::start("worker", variables).await;
    worker.says("worker is working").await;
    for path in ["healthz", "readyz"] {
        assert_eq!(shop.http.get(format!("http://{address}/{path}")).send().await.unwrap().status(), 200);
    }
    #[cfg(target_os = "linux")]
    {
        assert_eq!(worker.listening_ports(), [address.port()]);
        assert!(shop.worker().await.listening_ports().is_empty());
    }
}
