//! Postgres dies under load and its standby takes over, without a restart of the product.
//!
//! `FAIL_OVERS=20 cargo test -p tests fail_over -- --nocapture` does it twenty times in a row.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use common::{
    clock::Clock,
    db::{Database, Listen, is_unavailable},
};
use sandbox::stripe::FakeStripe;
use serde_json::Value;
use sqlx::PgPool;
use tests::{
    Door, TestDatabase,
    cluster::Cluster,
    fake_stripe,
    load::{Load, Promised},
    processes::Process,
    within,
};

use crate::processes::free_address;

const SECRET: &str = "whsec_fail_over";
const CLIENTS: usize = 8;
/// The timeout of each wait.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Two apis, two workers and a fake Stripe.
struct Shop {
    stripe: FakeStripe,
    http: reqwest::Client,
    apis: Vec<String>,
    /// The health URLs of the four processes.
    health: Vec<String>,
    processes: Vec<Process>,
}

impl Shop {
    async fn open(database_url: &str) -> Self {
        let addresses = [free_address().await, free_address().await, free_address().await, free_address().await];
        let base = |n: usize| format!("http://{}", addresses[n]);
        let stripe = fake_stripe(&base(0), SECRET, Clock::system()).await;
        let mut processes = Vec::new();
        for (n, address) in addresses.iter().enumerate() {
            let (binary, says) = if n < 2 { ("api", "api is listening") } else { ("worker", "worker is working") };
            let variables = [
                ("DATABASE_URL", database_url.to_owned()),
                ("PUBLIC_URL", base(0)),
                (if n < 2 { "BIND_ADDR" } else { "HEALTH_ADDR" }, address.to_string()),
                ("API_KEY", "key".to_owned()),
                ("RATE_LIMIT_PER_MINUTE", "0".to_owned()),
                ("PAYMENT_LINK_WAIT", "3s".to_owned()),
                ("STRIPE_WEBHOOK_SECRET", SECRET.to_owned()),
                ("STRIPE_SECRET_KEY", "sk_test_fail_over".to_owned()),
                ("STRIPE_API_URL", stripe.url()),
                ("STRIPE_RATE", "0".to_owned()),
            ];
            let mut process = Process::start(binary, variables).await;
            process.says(says).await;
            processes.push(process);
        }
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { stripe, http, apis: vec![base(0), base(1)], health: (0..4).map(base).collect(), processes }
    }

    fn load(&self) -> Load {
        Load::start(self.apis.clone(), self.stripe.clone(), CLIENTS)
    }

    async fn is_ready(&self) -> bool {
        for base in &self.health {
            let answer = self.http.get(format!("{base}/readyz")).send().await;
            if !answer.is_ok_and(|answer| answer.status() == 200) {
                return false;
            }
        }
        true
    }
}

/// Waits until this many more carts are acknowledged.
async fn more(load: &Load, carts: usize) {
    let enough = load.carts() + carts;
    within(TIMEOUT, "carts are stored", async || load.carts() >= enough).await;
}

/// Checks that the current primary has every acknowledged change exactly once.
async fn check(shop: &mut Shop, database: &PgPool, promised: &Promised) {
    let said: Vec<String> = shop.processes.iter_mut().flat_map(Process::said).collect();
    assert!(promised.wrong.is_empty(), "{:?}\n{}", promised.wrong, said.join("\n"));
    within(TIMEOUT, "no job is left", async || {
        let left = "select count(*) from jobs where state in ('pending', 'running') and slot is null";
        sqlx::query_scalar::<_, i64>(left).fetch_one(database).await.unwrap() == 0
    })
    .await;
    let stored: Vec<(String, String)> =
        sqlx::query_as("select id, status from carts").fetch_all(database).await.unwrap();
    let stored: BTreeMap<String, String> = stored.into_iter().collect();
    let lost: Vec<&String> = promised.carts.iter().filter(|id| !stored.contains_key(*id)).collect();
    assert!(lost.is_empty(), "acknowledged, and lost: {lost:?}");
    for (id, status) in &promised.statuses {
        assert_eq!(stored[id], *status, "{id}");
    }
    for id in &promised.paid {
        assert_eq!(stored[id], "recovered", "{id} was paid");
    }
    let mut open: BTreeMap<String, usize> = BTreeMap::new();
    for session in shop.stripe.open_sessions() {
        *open.entry(session.client_reference_id.clone().unwrap()).or_default() += 1;
    }
    open.retain(|_, sessions| *sessions > 1);
    assert!(open.is_empty(), "more than one open session: {open:?}");
    let dead: i64 =
        sqlx::query_scalar("select count(*) from jobs where state = 'dead'").fetch_one(database).await.unwrap();
    assert_eq!(dead, 0, "no job was given up");
    let summary = shop.http.get(format!("{}/api/analytics?period=7d", shop.apis[1])).header("x-api-key", "key");
    let summary: Value = summary.send().await.unwrap().json().await.unwrap();
    let recovered = stored.values().filter(|status| *status == "recovered").count();
    assert_eq!(summary["data"]["summary"]["totalAbandoned"], stored.len());
    assert_eq!(summary["data"]["summary"]["totalRecovered"], recovered);
    within(TIMEOUT, "all four are ready", async || shop.is_ready().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_under_load_loses_no_acknowledged_change() {
    let Some(mut cluster) = Cluster::start().await else { return };
    let mut shop = Shop::open(&cluster.url()).await;
    let ids: Vec<u32> = shop.processes.iter().map(Process::id).collect();
    let times: usize = std::env::var("FAIL_OVERS").map_or(1, |times| times.parse().expect("a number"));
    for time in 1..=times {
        let load = shop.load();
        more(&load, 100).await;
        within(TIMEOUT, "carts are paid", async || load.paid() > 0).await;
        let killed = Instant::now();
        cluster.fail_over().await;
        let promoted = killed.elapsed();
        more(&load, 1).await;
        let served = killed.elapsed();
        more(&load, 100).await;
        let promised = load.stop().await;
        check(&mut shop, &cluster.pool(), &promised).await;
        println!(
            "fail-over {time} of {times}: promoted after {promoted:.1?}, served after {served:.1?} (longest time without a \
             cart {:.1?}), {} requests put off; of {} carts, {} links and {} payments acknowledged none was lost",
            promised.longest_gap,
            promised.put_off,
            promised.carts.len(),
            promised.links,
            promised.paid.len(),
        );
        if time < times {
            cluster.add_standby().await;
        }
    }
    assert_eq!(shop.processes.iter().map(Process::id).collect::<Vec<_>>(), ids, "none was restarted");
}

/// A proxy without a server accepts connections and closes them.
#[tokio::test]
async fn a_proxy_without_a_server_counts_as_unavailable() {
    let nowhere = free_address().await;
    let door = Door::closed(nowhere).await;
    door.open().await;
    let database = TestDatabase::create().await.by_way_of(door.address);
    for mode in ["disable", "prefer", "require"] {
        let options = format!("{}?sslmode={mode}", database.url).parse().unwrap();
        let error = Database::new(options, Listen::Off, 1).acquire().await.unwrap_err();
        assert!(is_unavailable(&error), "{mode}: {error:?}");
    }
    let variables = [("DATABASE_URL", database.url.clone()), ("STRIPE_SECRET_KEY", "sk_test_fail_over".to_owned())];
    let mut worker = Process::start("worker", variables).await;
    worker.says("Postgres is unavailable; waiting").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_switchover_loses_no_acknowledged_change() {
    let Some(mut cluster) = Cluster::start().await else { return };
    let mut shop = Shop::open(&cluster.url()).await;
    let load = shop.load();
    more(&load, 50).await;
    let fenced = Instant::now();
    cluster.switch_over().await;
    more(&load, 1).await;
    let served = fenced.elapsed();
    more(&load, 50).await;
    let promised = load.stop().await;
    check(&mut shop, &cluster.pool(), &promised).await;
    println!(
        "switch-over: served after {served:.1?}, {} requests put off, {} carts acknowledged",
        promised.put_off,
        promised.carts.len(),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_standby_commits_wait_for_an_operator() {
    let Some(mut cluster) = Cluster::start().await else { return };
    let mut shop = Shop::open(&cluster.url()).await;
    let load = shop.load();
    more(&load, 30).await;
    cluster.lose_standby().await;
    let pool = cluster.pool();
    within(TIMEOUT, "commits wait for the standby", async || {
        let waiting = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
        sqlx::query_scalar::<_, i64>(waiting).fetch_one(&pool).await.unwrap() > 0
    })
    .await;
    cluster.go_on_alone().await;
    more(&load, 50).await;
    let promised = load.stop().await;
    check(&mut shop, &pool, &promised).await;
    // Everything works again with a new standby.
    cluster.add_standby().await;
    let load = shop.load();
    more(&load, 30).await;
    cluster.fail_over().await;
    more(&load, 30).await;
    check(&mut shop, &cluster.pool(), &load.stop().await).await;
}
