//! The real binaries behind PgBouncer in transaction mode.

use common::{clock::Clock, config::Env};
use sandbox::stripe::FakeStripe;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tests::{TestDatabase, a_cart, eventually, fake_stripe, free_address, pooler::Pooler, processes::Process};
use worker::{CheckStatus, WorkerConfig};

const SECRET: &str = "whsec_pooler";

struct Shop {
    stripe: FakeStripe,
    http: reqwest::Client,
    base: String,
    _processes: Vec<Process>,
}

/// Starts an api and two workers that reach Postgres through the pooler, with these additional
/// variables.
async fn open(database_url: &str, more: &[(&'static str, String)]) -> Shop {
    let address = free_address();
    let base = format!("http://{address}");
    let stripe = fake_stripe(&base, SECRET, Clock::system()).await;
    let mut variables = vec![
        ("DATABASE_URL", database_url.to_owned()),
        ("API_KEY", "key".to_owned()),
        ("BIND_ADDR", address.to_string()),
        ("PUBLIC_URL", base.clone()),
        ("RATE_LIMIT_PER_MINUTE", "0".to_owned()),
        ("PAYMENT_LINK_WAIT", "30s".to_owned()),
        ("STRIPE_WEBHOOK_SECRET", SECRET.to_owned()),
        ("STRIPE_SECRET_KEY", "sk_test_pooler".to_owned()),
        ("STRIPE_API_URL", stripe.url()),
        ("EXPIRY_SCHEDULE", "* * * * * *".to_owned()),
    ];
    variables.extend_from_slice(more);
    let mut api = Process::start("api", variables.clone()).await;
    let mut one = Process::start("worker", variables.clone()).await;
    let mut two = Process::start("worker", variables).await;
    api.says("api is listening").await;
    one.says("worker is working").await;
    two.says("worker is working").await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    Shop { stripe, http, base, _processes: vec![api, one, two] }
}

impl Shop {
    async fn call(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let response = request.header("x-api-key", "key").send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(self.http.get(format!("{}{path}", self.base))).await;
        assert_eq!(status, 200, "{body}");
        body["data"].clone()
    }

    /// Creates a cart and recovers it.
    async fn sell(&self) {
        let (status, cart) = self.call(self.http.post(format!("{}/api/carts", self.base)).json(&a_cart())).await;
        assert_eq!(status, 201, "{cart}");
        let id = cart["data"]["id"].as_str().unwrap();
        let ask = format!("{}/api/carts/{id}/payment-link", self.base);
        let (status, link) = self.call(self.http.post(ask)).await;
        assert_eq!(status, 200, "{link}");
        let page = link["data"]["paymentLink"].as_str().unwrap();
        let paid = self.http.post(format!("{page}/pay")).send().await.unwrap();
        assert_eq!(paid.status(), 200);
        assert_eq!(self.get(&format!("/api/carts/{id}")).await["status"], "recovered");
    }
}

/// Twenty-four concurrent shoppers over four server connections, a database migrated through the
/// pooler, schedules every second: nothing may depend on a session.
#[tokio::test]
async fn everything_works_without_listen() {
    let template = TestDatabase::create().await;
    let Some(pooler) = Pooler::start(&template).await else { return };
    let database = template.empty().await;
    let shop = std::sync::Arc::new(open(&pooler.url(&database), &[("QUEUE_LISTEN", "off".to_owned())]).await);
    let shoppers: Vec<_> = (0..24)
        .map(|_| {
            let shop = shop.clone();
            tokio::spawn(async move { shop.sell().await })
        })
        .collect();
    for shopper in shoppers {
        shopper.await.unwrap();
    }
    let summary = shop.get("/api/analytics?period=7d").await["summary"].clone();
    assert_eq!((&summary["totalAbandoned"], &summary["totalRecovered"]), (&json!(24), &json!(24)));
    assert_eq!(shop.get("/api/carts?status=recovered").await["pagination"]["total"], json!(24));
    assert_eq!(shop.stripe.sessions().len(), 24);

    let mut direct = PgConnection::connect(&database.url).await.unwrap();
    let pool = database.pool(1);
    eventually("ten slots ran", async || {
        sqlx::query_scalar::<_, i64>("select count(*) from jobs where kind = 'expire_carts' and state = 'done'")
            .fetch_one(&pool)
            .await
            .unwrap()
            >= 10
    })
    .await;
    let failed: i64 = sqlx::query_scalar("select count(*) from jobs where last_error is not null or attempts > 1")
        .fetch_one(&mut direct)
        .await
        .unwrap();
    assert_eq!(failed, 0);
    for call in ["/api/jobs", "/api/queues", "/api/schedules", "/readyz"] {
        shop.get(call).await;
    }
}

/// LISTEN connects to Postgres directly, everything else through the pooler: nothing waits for a
/// poll.
#[tokio::test]
async fn listen_can_use_its_own_url() {
    let database = TestDatabase::create().await;
    let Some(pooler) = Pooler::start(&database).await else { return };
    let shop = open(&pooler.url(&database), &[("DATABASE_LISTEN_URL", database.url.clone())]).await;
    for _ in 0..5 {
        shop.sell().await;
    }
    let pool = database.pool(1);
    eventually("the api and both workers listen, on connections that live", async || {
        let listening =
            "select count(*) from pg_stat_activity where datname = current_database() and query ilike 'listen %'";
        sqlx::query_scalar::<_, i64>(listening).fetch_one(&pool).await.unwrap() == 3
    })
    .await;
}

/// The variable for a pooler is not set.
#[tokio::test]
async fn the_doctor_reports_a_lost_listen() {
    let database = TestDatabase::create().await;
    let Some(pooler) = Pooler::start(&database).await else { return };
    let env = |more: &[(&str, String)]| {
        let mut variables = vec![
            ("DATABASE_URL", pooler.url(&database)),
            ("STRIPE_SECRET_KEY", "sk_test_pooler".to_owned()),
            ("STRIPE_API_URL", "http://127.0.0.1:9".to_owned()),
        ];
        variables.extend_from_slice(more);
        Env::of(variables)
    };
    let listen = async |env: &Env| {
        let config: WorkerConfig = env.read().unwrap();
        let checks = worker::examine(env, &config, &Clock::system()).await.unwrap();
        checks.into_iter().find(|check| check.name == "listen").unwrap()
    };
    let lost = listen(&env(&[])).await;
    assert_eq!(lost.status, CheckStatus::Fail, "{}", lost.text);
    assert!(lost.text.contains("DATABASE_LISTEN_URL"), "{}", lost.text);
    assert_eq!(listen(&env(&[("QUEUE_LISTEN", "off".to_owned())])).await.status, CheckStatus::Warn);
    let direct = listen(&env(&[("DATABASE_LISTEN_URL", database.url.clone())])).await;
    assert_eq!(direct.status, CheckStatus::Ok, "{}", direct.text);
}
