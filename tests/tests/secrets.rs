//! Secrets and personal data occur in no log at any level, no error, no job, no table, and no
//! `Debug` output.

use std::collections::BTreeMap;

use api::ApiConfig;
use common::{config::Env, db::DatabaseConfig};
use nix::sys::signal::Signal;
use queue::Listen;
use reqwest::Method;
use sandbox::stripe::{Fault, Operation};
use serde_json::{Value, json};
use tests::{
    Door, OF_THE_SHOPPER, a_cart, eventually,
    processes::{Process, run},
};
use worker::WorkerConfig;

use crate::processes::Shop;

const API_KEY: &str = "never-tell-the-bootstrap-key";
const STRIPE_KEY: &str = "sk_test_never_tell_the_key_to_money";
/// Personal data of the shopper.
fn personal() -> impl Iterator<Item = &'static str> {
    OF_THE_SHOPPER.into_iter().chain(["grace@example.com"])
}

/// A running product that logs everything, and its secrets.
struct Talkative {
    shop: Shop,
    door: Door,
    api: Process,
    worker: Process,
    /// The name of each secret, by its value.
    secrets: BTreeMap<String, &'static str>,
}

impl Talkative {
    async fn start() -> Self {
        let shop = Shop::open().await;
        let door = Door::closed(shop.database.server_address()).await;
        door.open().await;
        let url = shop.database.by_way_of(door.address).url;
        let password = url.split_once("://").unwrap().1.rsplit_once('@').unwrap().0.split_once(':').unwrap().1;
        let secrets = [
            (API_KEY.to_owned(), "API_KEY"),
            (STRIPE_KEY.to_owned(), "STRIPE_SECRET_KEY"),
            ("whsec_processes".to_owned(), "STRIPE_WEBHOOK_SECRET"),
            (password.to_owned(), "the password to Postgres"),
        ];
        let set = |variables: Vec<(&'static str, String)>| {
            let own = [
                ("DATABASE_URL", &*url),
                ("RUST_LOG", "trace"),
                ("LOG_FORMAT", "json"),
                ("RATE_LIMIT_PER_MINUTE", "0"),
                ("API_KEY", API_KEY),
                ("STRIPE_SECRET_KEY", STRIPE_KEY),
            ];
            let kept = variables.into_iter().filter(|(name, _)| own.iter().all(|(known, _)| known != name));
            kept.chain(own.map(|(name, value)| (name, value.to_owned()))).collect::<Vec<_>>()
        };
        let mut api = Process::start("api", set(shop.api_variables())).await;
        api.says("api is listening").await;
        let mut worker = Process::start("worker", set(shop.worker_variables())).await;
        worker.says("worker is working").await;
        Self { shop, door, api, worker, secrets: secrets.into() }
    }

    fn keep_secret(&mut self, secret: &str, what: &'static str) {
        assert!(secret.len() > 8, "{what}: {secret}");
        self.secrets.insert(secret.to_owned(), what);
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = self.shop.http.request(method, self.shop.url(path)).header("x-api-key", API_KEY);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
    }

    async fn cart(&self) -> String {
        let (status, body) = self.call(Method::POST, "/api/carts", Some(a_cart())).await;
        assert_eq!(status, 201, "{body}");
        body["data"]["id"].as_str().unwrap().to_owned()
    }

    async fn ask(&self, id: &str) -> (u16, Value) {
        self.call(Method::POST, &format!("/api/carts/{id}/payment-link"), None).await
    }

    /// Ends both processes; returns all lines they logged.
    async fn end(mut self) -> (Shop, BTreeMap<String, &'static str>, Vec<String>) {
        let mut lines = Vec::new();
        for process in [&mut self.api, &mut self.worker] {
            process.signal(Signal::SIGTERM);
            while let Some(line) = process.next_line().await {
                lines.push(line);
            }
        }
        (self.shop, self.secrets, lines)
    }
}

/// Sends requests that succeed, and all kinds that fail.
async fn live(product: &mut Talkative) {
    // From a cart to its recovery.
    let id = product.cart().await;
    let (status, link) = product.ask(&id).await;
    assert_eq!(status, 200, "{link}");
    let (page, recovery) =
        (link["data"]["paymentLink"].as_str().unwrap(), link["data"]["recoveryUrl"].as_str().unwrap());
    let token = recovery.rsplit('/').next().unwrap();
    product.keep_secret(token, "a recovery token");
    product.keep_secret(page.split_once("//").unwrap().1, "the address of a session");
    let opened = product.shop.http.get(recovery).send().await.unwrap();
    assert_eq!(opened.status(), 200, "the fake Stripe's page");
    assert_eq!(product.shop.http.post(format!("{page}/pay")).send().await.unwrap().status(), 200);

    // Stripe fails in each way, the last time for good.
    for fault in [
        Fault::RateLimited { retry_after: 1 },
        Fault::Unavailable { retry_after: 1 },
        Fault::ServerError,
        Fault::ResetAfter,
        Fault::Garbage,
        Fault::HtmlBadGateway,
        Fault::NoUrl,
        Fault::ForeignUrl,
        Fault::Refused,
        Fault::Repeats { status: 400 },
        Fault::Repeats { status: 403 },
        Fault::Unauthorized,
    ] {
        product.shop.stripe.fail_next(Operation::Create, fault);
        let id = product.cart().await;
        // A permanent failure is not waited for as long as a temporary one.
        let request = product.shop.http.post(product.shop.url(&format!("/api/carts/{id}/payment-link")));
        let request = request.header("x-api-key", API_KEY).header("prefer", "wait=10");
        let _ = request.send().await.unwrap().bytes().await;
    }
    // A key of the database is created, used and revoked.
    let made =
        run("api", &["keys", "add", "shop", "--scope", "read"], [("DATABASE_URL", product.shop.database.url.clone())])
            .await;
    let key = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    product.keep_secret(&key, "a key of the database");
    eventually("it is known", async || {
        let request = product.shop.http.get(product.shop.url("/api/carts")).bearer_auth(&key);
        request.send().await.unwrap().status() == 200
    })
    .await;
    let sign_in = async |key: &str| {
        let form = product
            .shop
            .http
            .post(product.shop.url("/sign-in"))
            .header("content-type", "application/x-www-form-urlencoded");
        form.body(format!("key={key}")).send().await.unwrap()
    };
    assert_eq!(sign_in(&key).await.status(), 403);
    let signed_in = sign_in(API_KEY).await;
    let _ = signed_in.bytes().await;
    // Refused requests.
    product.call(Method::GET, "/api/carts?email=ada@example.com", None).await;
    product.call(Method::GET, "/api/carts?status=ada@example.com", None).await;
    product.call(Method::GET, "/api/carts/ada@example.com", None).await;
    product
        .call(Method::POST, "/api/carts", Some(json!({"customerEmail": "ada@example.com", "items": "Teapot"})))
        .await;
    let import = "{\"customerEmail\":\"grace@example.com\",\"customerName\":\"Ada Lovelace\",\"items\":[]}\nnot json of ada@example.com\n";
    let request = product.shop.http.post(product.shop.url("/api/carts/import")).header("x-api-key", API_KEY);
    request.header("content-type", "application/x-ndjson").body(import).send().await.unwrap().bytes().await.unwrap();
    let forged =
        product.shop.http.post(product.shop.url("/api/webhooks/stripe")).header("stripe-signature", "t=1,v1=00");
    forged.body(json!({"id": "evt_1", "customer_email": "ada@example.com"}).to_string()).send().await.unwrap();
    product.shop.http.get(product.shop.url("/api/carts/export")).header("x-api-key", API_KEY).send().await.unwrap();
    product.call(Method::DELETE, &format!("/api/carts/{id}"), None).await;
    // Postgres becomes unavailable, and returns.
    let id = product.cart().await;
    product.door.close().await;
    product.ask(&id).await;
    product.call(Method::POST, "/api/carts", Some(a_cart())).await;
    product.shop.http.get(recovery).send().await.unwrap();
    product.door.open().await;
    eventually("it goes on", async || product.ask(&id).await.0 == 200).await;
}

#[tokio::test]
async fn secrets_and_personal_data_are_neither_logged_nor_stored_elsewhere() {
    let mut product = Talkative::start().await;
    live(&mut product).await;
    let (shop, secrets, lines) = product.end().await;
    assert!(lines.len() > 500, "they were to say all they can: {}", lines.len());
    for (secret, what) in secrets
        .iter()
        .map(|(secret, what)| (secret.as_str(), *what))
        .chain(personal().map(|word| (word, "the shopper's")))
    {
        let leak = lines.iter().find(|line| line.contains(secret));
        assert!(leak.is_none(), "{what} is in the log: {leak:?}");
    }
    // Each secret is only in its own table.
    let pool = shop.database.pool(1);
    let tables: Vec<String> = sqlx::query_scalar(
        "select table_name::text from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE'",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert!(tables.len() > 12, "{tables:?}");
    for table in tables {
        let search = sqlx::AssertSqlSafe(format!("select t::text from {table} t"));
        let rows: Vec<String> = sqlx::query_scalar(search).fetch_all(&pool).await.unwrap();
        let all = rows.join("\n");
        for (secret, what) in &secrets {
            let own = match *what {
                "a recovery token" => "recovery_links",
                "the address of a session" => "payment_links",
                _ => "",
            };
            assert!(table == own || !all.contains(secret), "{what} is in {table}: {all}");
        }
        if !["carts", "cart_search"].contains(&table.as_str()) {
            for word in personal() {
                assert!(!all.contains(word), "{word} is in {table}: {all}");
            }
        }
    }
}

#[test]
fn debug_output_has_no_secrets() {
    let variables = [
        ("API_KEY", "hush-one,hush-two"),
        ("STRIPE_WEBHOOK_SECRET", "whsec_hush"),
        ("STRIPE_SECRET_KEY", "sk_hush"),
        ("DATABASE_URL", "postgres://user:hush@localhost/db"),
        ("DATABASE_LISTEN_URL", "postgres://user:hush@localhost/db"),
    ];
    let env = Env::of(variables);
    let listen = env.read::<DatabaseConfig>().unwrap().listen();
    assert!(matches!(listen, Listen::At(_)));
    for shown in [
        format!("{env:?}"),
        format!("{:?}", env.read::<ApiConfig>().unwrap()),
        format!("{:?}", env.read::<WorkerConfig>().unwrap()),
        format!("{listen:?}"),
    ] {
        assert!(shown.len() > 1 && !shown.contains("hush"), "{shown}");
    }
}
