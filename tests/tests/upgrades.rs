//! From the last release to this one while shoppers come: both serve side by
//! side on one database, and nothing that was answered is lost.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::{
    clock::Clock,
    db::Listen,
    migrations::{self, Patience},
};
use nix::sys::signal::Signal;
use reqwest::{Method, RequestBuilder, StatusCode};
use sandbox::stripe::{Fault, Operation, StandIn, StandInConfig};
use serde_json::{Value, json};
use sqlx::{
    AssertSqlSafe, PgPool, SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};
use tests::{Binaries, TestDatabase, a_cart, processes::Process, within};
use tokio::task::JoinSet;

use crate::processes::free_address;

const SECRET: &str = "whsec_upgrades";

/// Which version a process is of.
#[derive(Clone, Copy)]
enum Version {
    Last,
    This,
}

/// What shoppers and the shop see of it all.
struct Shop {
    database: TestDatabase,
    pool: PgPool,
    stripe: StandIn,
    http: reqwest::Client,
    last: Binaries,
    /// Apis that requests go to now, as a load balancer knows them.
    serving: Mutex<Vec<SocketAddr>>,
    turns: AtomicUsize,
    /// The carts that were answered, and what became of each.
    known: Mutex<BTreeMap<String, &'static str>>,
    wrong: Mutex<Vec<String>>,
    closed: AtomicBool,
}

impl Shop {
    async fn open(last: Binaries) -> Arc<Self> {
        let database = TestDatabase::create().await.empty().await;
        let stripe = StandIn::start(StandInConfig {
            bind_addr: "127.0.0.1:0".parse().unwrap(),
            webhook_url: None,
            webhook_secret: SECRET.to_owned(),
            file: None,
            clock: Clock::system(),
        })
        .await
        .unwrap();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap();
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

    async fn start(&self, version: Version, name: &'static str, address: SocketAddr) -> Process {
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

    /// Requests go there, too, and Stripe's events from now on.
    fn serves(&self, api: SocketAddr) {
        self.serving.lock().unwrap().push(api);
        self.stripe.send_webhooks_to(Some(format!("http://{api}/api/webhooks/stripe")));
    }

    /// Nothing new goes there; Stripe's events go to the one that is left.
    fn serves_no_more(&self, api: SocketAddr) {
        self.serving.lock().unwrap().retain(|other| *other != api);
        let left = *self.serving.lock().unwrap().first().unwrap();
        self.stripe.send_webhooks_to(Some(format!("http://{left}/api/webhooks/stripe")));
    }

    /// Asks one of the apis, in turns; one that goes is not asked again.
    async fn call(
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

    async fn get(&self, path: &str) -> Value {
        self.call(Method::GET, path, |request| request).await.1["data"].clone()
    }

    async fn create(&self, key: &str) -> String {
        let create = |request: RequestBuilder| request.header("idempotency-key", key).json(&a_cart());
        let (status, body) = self.call(Method::POST, "/api/carts", create).await;
        assert_eq!(status, 201, "{body}");
        body["data"]["id"].as_str().unwrap().to_owned()
    }

    fn knows(&self, id: &str, status: &'static str) {
        self.known.lock().unwrap().insert(id.to_owned(), status);
    }

    async fn patch(&self, id: &str, status: &'static str) {
        let change = |request: RequestBuilder| request.json(&json!({"status": status}));
        let (answered, body) = self.call(Method::PATCH, &format!("/api/carts/{id}"), change).await;
        assert_eq!(answered, 200, "{body}");
        self.knows(id, status);
    }

    /// Asks for a link and, if it is there in time, pays.
    async fn pay(&self, id: &str) {
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

    /// Comes, and does one of the things that happen to carts.
    async fn visit(&self, number: usize) {
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

    /// Shoppers come, four at a time, until the shop closes.
    fn shoppers(self: &Arc<Self>) -> JoinSet<()> {
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

    /// So many more carts were answered.
    async fn goes_on_for(&self, carts: usize) {
        let begun = self.known.lock().unwrap().len();
        within(Duration::from_secs(120), &format!("{carts} more carts were answered"), async || {
            self.known.lock().unwrap().len() >= begun + carts
        })
        .await;
    }

    async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }
}

/// Data of the last release: carts in every state, links, jobs that wait and that died.
async fn history(shop: &Shop, api: SocketAddr) -> (String, Value) {
    let mut worker = shop.start(Version::Last, "worker", api).await;
    for number in 0..21 {
        shop.visit(number).await;
    }
    let refused = shop.create("refused").await;
    shop.knows(&refused, "abandoned");
    shop.stripe.fail_next(Operation::Create, Fault::Refused);
    let (status, body) =
        shop.call(Method::POST, &format!("/api/carts/{refused}/payment-link"), |request| request).await;
    assert_eq!(status, 502, "{body}");
    shop.wrong.lock().unwrap().clear(); // that was wanted
    within(Duration::from_secs(20), "the job is dead", async || {
        shop.count("select count(*) from jobs where state = 'dead'").await == 1
    })
    .await;
    worker.signal(Signal::SIGTERM);
    assert_eq!(worker.ends().await, Some(0));
    // Without a worker these wait for the next one.
    for number in 0..5 {
        let id = shop.create(&format!("waits {number}")).await;
        shop.knows(&id, "abandoned");
        let path = format!("/api/carts/{id}/payment-link");
        let (status, _) = shop.call(Method::POST, &path, |request| request.header("prefer", "respond-async")).await;
        assert_eq!(status, 202);
    }
    let timeline = shop.get(&format!("/api/carts/{refused}/timeline")).await;
    assert!(timeline["events"].as_array().unwrap().len() >= 3, "{timeline}");
    (refused, timeline)
}

/// What a release after this one may do: this one's processes serve on its schema.
async fn migrate_further(shop: &Shop) {
    let sql = "alter table carts add column made_up text; alter table payment_links add column made_up text;
               alter table jobs add column made_up text; alter table cart_events add column made_up text";
    let sql = AssertSqlSafe(sql).into_sql_str();
    let later = Migration::new(99_990_101_000_000, "made up".into(), MigrationType::Simple, sql, false);
    let all = migrations::all().migrations.into_owned().into_iter().chain([later]).collect();
    let reached = shop.database.reach(Listen::Directly, 2);
    migrations::migrate(&reached, Migrator::with_migrations(all), Patience::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_release_and_this_one_serve_side_by_side_and_lose_nothing() {
    let Some(last) = Binaries::of_last_release().await else { return };
    let shop = Shop::open(last).await;
    let (old, new) = (free_address().await, free_address().await);
    let mut old_api = shop.start(Version::Last, "api", old).await;
    shop.serves(old);
    let (refused, timeline) = history(&shop, old).await;
    let applied = shop.count("select count(*) from _sqlx_migrations").await;

    let mut shoppers = shop.shoppers();
    let old_worker = shop.start(Version::Last, "worker", old).await;
    shop.goes_on_for(50).await;
    // The new api migrates while the old one serves.
    let mut new_api = shop.start(Version::This, "api", new).await;
    let migrated = shop.count("select count(*) from _sqlx_migrations").await;
    let ours = i64::try_from(migrations::all().iter().count()).unwrap();
    assert!(applied <= migrated && migrated == ours, "{applied} migrations became {migrated} of {ours}");
    shop.serves(new);
    let mut new_worker = shop.start(Version::This, "worker", new).await;
    shop.goes_on_for(100).await;
    // An old process that starts again finds a schema that it does not know.
    shop.serves_no_more(old);
    shop.goes_on_for(10).await; // what was on its way there has arrived
    old_api.signal(Signal::SIGTERM);
    assert_eq!(old_api.ends().await, Some(0));
    old_worker.signal(Signal::SIGKILL); // its jobs are found again by whoever is there
    let mut old_api = shop.start(Version::Last, "api", old).await;
    let mut old_worker = shop.start(Version::Last, "worker", old).await;
    shop.serves(old);
    shop.goes_on_for(100).await;
    migrate_further(&shop).await;
    shop.goes_on_for(100).await;
    // The old ones go.
    shop.serves_no_more(old);
    shop.goes_on_for(10).await;
    for process in [&mut old_api, &mut old_worker] {
        process.signal(Signal::SIGTERM);
        assert_eq!(process.ends().await, Some(0));
    }
    shop.goes_on_for(50).await;
    shop.closed.store(true, Ordering::Relaxed);
    while let Some(shopper) = shoppers.join_next().await {
        shopper.unwrap();
    }
    within(Duration::from_secs(60), "no job is left", async || {
        shop.count("select count(*) from jobs where state in ('pending', 'running') and slot is null").await == 0
    })
    .await;

    assert_eq!(*shop.wrong.lock().unwrap(), [""; 0]);
    nothing_is_lost(&shop).await;
    assert_eq!(shop.create("refused").await, refused, "a key of before means the same cart");
    let now = shop.get(&format!("/api/carts/{refused}/timeline")).await;
    assert_eq!(now["events"], timeline["events"]);
    let variables = [
        ("DATABASE_URL", shop.database.url.clone()),
        ("STRIPE_SECRET_KEY", "sk_test_upgrades".to_owned()),
        ("STRIPE_API_URL", shop.stripe.url()),
    ];
    let doctor = tests::processes::run("worker", &["doctor"], variables).await;
    assert_eq!(doctor.status.code(), Some(0), "{}", String::from_utf8_lossy(&doctor.stdout));
    for process in [&mut new_api, &mut new_worker] {
        process.signal(Signal::SIGTERM);
        assert_eq!(process.ends().await, Some(0));
    }
}

async fn nothing_is_lost(shop: &Shop) {
    let known = shop.known.lock().unwrap().clone();
    let (mut carts, mut recovered, mut recovered_value) = (0, 0, 0_i64);
    for (id, status) in &known {
        let (answered, body) = shop.call(Method::GET, &format!("/api/carts/{id}"), |request| request).await;
        if *status == "deleted" {
            assert_eq!(StatusCode::from_u16(answered).unwrap(), StatusCode::NOT_FOUND, "{id}: {body}");
            continue;
        }
        carts += 1;
        let cart = &body["data"];
        assert_eq!(cart["totalValue"].to_string(), "99.98", "{id}");
        assert_eq!(cart["status"], *status, "{id}: {body}");
        if *status == "recovered" {
            recovered += 1;
            recovered_value += 9_998;
        }
    }
    println!("{} carts were answered, {carts} are there, {recovered} of them recovered", known.len());
    assert_eq!(shop.count("select count(*) from carts").await, carts, "and no others");
    let list = shop.get("/api/carts?limit=1").await;
    assert_eq!(list["pagination"]["total"], carts);
    let analytics = shop.get("/api/analytics?period=7d").await;
    assert_eq!(analytics["summary"]["totalAbandoned"], carts);
    assert_eq!(analytics["summary"]["totalRecovered"], recovered);
    let value = rust_decimal::Decimal::new(recovered_value, 2);
    assert_eq!(analytics["summary"]["totalRecoveredValue"].to_string(), value.to_string());
    let open = shop
        .count(
            "select count(*) from (select from payment_links where status in ('open', 'closing', 'processing')
             group by cart_id having count(*) > 1) twice",
        )
        .await;
    assert_eq!(open, 0, "no cart has two open sessions");
    let paid = shop.count("select count(*) from payment_links where status = 'paid'").await;
    let by_payment = shop.count("select count(*) from carts where status_reason = 'payment'").await;
    assert_eq!(paid, by_payment, "each payment recovered its cart, once");
    let slots = shop.count("select count(*) - count(distinct (schedule, slot)) from schedule_slots").await;
    assert_eq!(slots, 0);
}
