//! The metrics that Prometheus reads from the real binaries.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    time::Instant,
};

use common::db::DEFAULT_MAX_CONNECTIONS;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tests::{DEADLINE, Door, OF_THE_SHOPPER, eventually, processes::Process};

use crate::processes::{Shop, free_address};

/// A strict parser: every sample belongs to a family with a type and a help text, and occurs once.
#[derive(Debug)]
struct Scraped {
    text: String,
    samples: HashMap<(String, BTreeMap<String, String>), f64>,
}

impl Scraped {
    fn parse(text: String) -> Self {
        let (mut types, mut helped, mut samples) = (HashMap::new(), Vec::new(), HashMap::new());
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').expect("a help");
                assert!(!help.is_empty() && !helped.contains(&name.to_owned()), "{line}");
                helped.push(name.to_owned());
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a type");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(types.insert(name.to_owned(), kind.to_owned()), None, "{line}");
            } else {
                let (name, labels, value) = sample(line);
                let suffixes = ["_bucket", "_sum", "_count"];
                let family = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(&name);
                let kind = types.get(family).unwrap_or_else(|| panic!("no type of {line}"));
                assert!(helped.contains(&family.to_owned()), "no help for {line}");
                assert_eq!(kind == "histogram", family != name, "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert_eq!(samples.insert((name, labels), value), None, "{line} comes twice");
            }
        }
        Self { text, samples }
    }

    fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }

    fn is(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        assert_eq!(self.value(name, labels), Some(value), "{name} {labels:?} in\n{}", self.text);
    }
}

/// `name{label="value",…} number`; the values need no escapes.
fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').expect("closed labels")),
        None => (series, ""),
    };
    let is_word = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    assert!(is_word(name), "{line}");
    let mut rest = labels;
    let mut named = BTreeMap::new();
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"").expect("a label's value");
        let (value, after) = after.split_once('"').expect("a closed value");
        assert!(is_word(label) && !value.contains('\\'), "{line}");
        assert_eq!(named.insert(label.to_owned(), value.to_owned()), None, "{line}");
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    (name.to_owned(), named, value.parse().expect("a number"))
}

async fn scrape(shop: &Shop, address: SocketAddr) -> Scraped {
    let answer = shop.http.get(format!("http://{address}/metrics")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    Scraped::parse(answer.text().await.unwrap())
}

/// Starts an api; returns the address of its metrics.
async fn api_with_metrics(shop: &Shop, database_url: &str) -> (Process, SocketAddr) {
    let address = free_address().await;
    let mut variables = shop.api_variables();
    variables[0].1 = database_url.to_owned();
    variables.push(("METRICS_ADDR", address.to_string()));
    let mut api = Process::start("api", variables).await;
    api.says("api is listening").await;
    (api, address)
}

#[tokio::test]
async fn requests_jobs_and_calls_to_stripe_are_counted() {
    let shop = Shop::open().await;
    let worker_address = free_address().await;
    let mut variables = shop.worker_variables();
    variables.push(("HEALTH_ADDR", worker_address.to_string()));
    let mut worker = Process::start("worker", variables).await;
    let (_api, api_address) = api_with_metrics(&shop, &shop.database.url).await;
    worker.says("worker is working").await;

    let id = shop.cart().await;
    let (status, link) = shop.link(&id).await;
    assert_eq!(status, 200, "{link}");
    let refused = shop.http.get(shop.url("/api/carts?search=ada@example.com")).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    let invented = reqwest::Method::from_bytes(b"LOVELACE").unwrap();
    let nowhere = shop.http.request(invented, shop.url("/ada@example.com")).send().await.unwrap();
    assert_eq!(nowhere.status(), 404);

    let api = scrape(&shop, api_address).await;
    let requests = |method, route, status| [("method", method), ("route", route), ("status", status)];
    api.is("http_requests_total", &requests("POST", "/api/carts", "201"), 1.0);
    api.is("http_requests_total", &requests("POST", "/api/carts/{id}/payment-link", "200"), 1.0);
    api.is("http_requests_total", &requests("GET", "/api/carts", "401"), 1.0);
    api.is("http_requests_total", &requests("other", "none", "404"), 1.0);
    let route = [("method", "POST"), ("route", "/api/carts")];
    api.is("http_request_duration_seconds_count", &route, 1.0);
    api.is("http_request_duration_seconds_bucket", &[route[0], route[1], ("le", "+Inf")], 1.0);
    assert!(api.value("http_request_duration_seconds_sum", &route).is_some_and(|seconds| seconds > 0.0));
    api.is("postgres_up", &[], 1.0);
    eventually("a connection is idle", async || {
        let api = scrape(&shop, api_address).await;
        api.value("database_connections", &[("state", "idle")]).is_some_and(|idle| idle >= 1.0)
    })
    .await;

    let done = [("queue", "payment-links"), ("kind", "create_payment_link"), ("outcome", "done")];
    eventually("the worker has counted the job", async || {
        scrape(&shop, worker_address).await.value("jobs_finished_total", &done) == Some(1.0)
    })
    .await;
    let worker = scrape(&shop, worker_address).await;
    worker.is("job_duration_seconds_count", &[("kind", "create_payment_link")], 1.0);
    worker.is("stripe_requests_total", &[("operation", "create"), ("outcome", "ok")], 1.0);
    worker.is("postgres_up", &[], 1.0);
    assert!(worker.value("jobs_running", &[]).is_some());
    for scraped in [&api, &worker] {
        let [used, idle, max] = ["used", "idle", "max"]
            .map(|state| scraped.value("database_connections", &[("state", state)]).expect("a number of connections"));
        assert!((1.0..=f64::from(DEFAULT_MAX_CONNECTIONS)).contains(&max), "at most {max}");
        assert!(used + idle <= max, "{used} and {idle} of {max}");
    }

    let link = &link["data"]["recoveryUrl"].as_str().unwrap();
    let token = link.rsplit('/').next().unwrap();
    for word in OF_THE_SHOPPER.into_iter().chain(["LOVELACE", &id, token, "cs_test_"]) {
        assert!(!api.text.contains(word) && !worker.text.contains(word), "{word}");
    }
    assert_eq!(shop.http.get(shop.url("/metrics")).send().await.unwrap().status(), 404, "not for the public");
}

#[tokio::test]
async fn queue_and_schedule_metrics_are_exported() {
    let shop = Shop::open().await;
    let pool = shop.database.pool(1);
    for planted in [
        "insert into jobs (id, queue, kind, payload, max_attempts, run_at)
         values (gen_random_uuid(), 'payment-links', 'planted', '{}', 1, now() - interval '1 hour')",
        "insert into jobs (id, queue, kind, payload, max_attempts, run_at)
         values (gen_random_uuid(), 'analytics', 'planted', '{}', 1, now() + interval '1 hour')",
        "insert into jobs (id, queue, kind, payload, max_attempts, state, finished_at)
         select gen_random_uuid(), 'maintenance', 'planted', '{}', 1, 'dead', now() - interval '1 hour'
         from generate_series(1, 1200)",
        "insert into jobs (id, queue, kind, payload, max_attempts, state, finished_at)
         values (gen_random_uuid(), 'expiry', 'planted', '{}', 1, 'dead', now())",
        "insert into queues (name, paused_at) values ('expiry', now())",
        "insert into schedules (name, cron, catch_up, queue) values ('nightly', '0 0 0 * * *', 'latest', 'expiry'),
            ('yearly', '0 0 0 1 1 *', 'latest', 'expiry')",
        "insert into schedule_slots (schedule, slot) values ('nightly', now() - interval '10 days'), ('yearly', now())",
    ] {
        sqlx::query(planted).execute(&pool).await.unwrap();
    }
    let (_api, address) = api_with_metrics(&shop, &shop.database.url).await;
    let api = scrape(&shop, address).await;
    let age = |queue| api.value("queue_oldest_ready_age_seconds", &[("queue", queue)]).unwrap();
    assert!((3600.0..7200.0).contains(&age("payment-links")), "{}", age("payment-links"));
    assert_eq!((age("analytics"), age("expiry"), age("maintenance")), (0.0, 0.0, 0.0));
    for (queue, paused, dead) in [("payment-links", 0.0, 0.0), ("expiry", 1.0, 1.0), ("maintenance", 0.0, 999.0)] {
        api.is("queue_paused", &[("queue", queue)], paused);
        api.is("jobs_dead", &[("queue", queue)], dead);
    }
    api.is("schedule_overdue", &[("schedule", "nightly")], 1.0);
    api.is("schedule_overdue", &[("schedule", "yearly")], 0.0);
}

#[tokio::test]
async fn the_oldest_snapshot_is_exported_and_named_once_it_is_old() {
    let shop = Shop::open().await;
    let options = shop.database.options().application_name("a forgotten backup");
    let mut backup = PgConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("begin isolation level repeatable read; select 1").execute(&mut backup).await.unwrap();
    // Sessions from now on find a clock that is eleven minutes ahead.
    let mut admin = PgConnection::connect_with(&shop.database.options()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!(
        "create schema odd;
         create function odd.now() returns timestamptz language sql return pg_catalog.now() + interval '11 minutes';
         alter database {} set search_path = odd, pg_catalog, public",
        shop.database.name
    )))
    .execute(&mut admin)
    .await
    .unwrap();
    let (_api, address) = api_with_metrics(&shop, &shop.database.url).await;
    let named = |scraped: &Scraped| {
        let named = scraped.samples.iter().find(|((name, labels), _)| {
            name == "postgres_oldest_snapshot_info" && labels["application"] == "a forgotten backup"
        });
        named.map(|((_, labels), value)| (labels["state"].clone(), labels["client"].is_empty(), *value))
    };
    // Another test's transaction may be older for a moment.
    eventually("it is the oldest", async || {
        let scraped = scrape(&shop, address).await;
        let age = scraped.value("postgres_oldest_snapshot_age_seconds", &[]).unwrap();
        age >= 660.0 && named(&scraped) == Some(("idle in transaction".to_owned(), false, 1.0))
    })
    .await;
    backup.close().await.unwrap();
    eventually("it has ended", async || {
        named(&scrape(&shop, address).await) == Some(("idle in transaction".to_owned(), false, 0.0))
    })
    .await;
}

#[tokio::test]
async fn a_scrape_works_while_postgres_is_unavailable() {
    let shop = Shop::open().await;
    let door = Door::closed(shop.database.server_address()).await;
    door.open().await;
    let (_api, address) = api_with_metrics(&shop, &shop.database.by_way_of(door.address).url).await;
    let before = scrape(&shop, address).await;
    before.is("postgres_up", &[], 1.0);
    door.close().await;
    eventually("the scrape reports that Postgres is unavailable", async || {
        let asked = Instant::now();
        let scraped = scrape(&shop, address).await;
        assert!(asked.elapsed() < DEADLINE, "it waits for Postgres for two seconds, and the machine may be busy");
        scraped.is("queue_paused", &[("queue", "expiry")], 0.0); // the value from before
        scraped.value("postgres_up", &[]) == Some(0.0)
    })
    .await;
    door.open().await;
    eventually("Postgres is there again", async || scrape(&shop, address).await.value("postgres_up", &[]) == Some(1.0))
        .await;
}

#[tokio::test]
async fn a_malformed_metrics_address_fails_the_start() {
    let shop = Shop::open().await;
    let mut variables = shop.api_variables();
    variables.push(("METRICS_ADDR", "9091".to_owned()));
    let mut api = Process::start("api", variables).await;
    api.says(r#"api: METRICS_ADDR is "9091"; it takes an address and a port"#).await;
    assert_eq!(api.ends().await, Some(1));
}
