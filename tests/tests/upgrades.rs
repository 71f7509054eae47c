//! An upgrade from the last release under load: both versions serve side by side on one database,
//! and no acknowledged change is lost.

mod shop;

use std::{net::SocketAddr, sync::atomic::Ordering, time::Duration};

use common::db::{
    Listen,
    migrations::{self, RetryLimits},
};
use nix::sys::signal::Signal;
use reqwest::{Method, StatusCode};
use sandbox::stripe::{Fault, Operation};
use serde_json::Value;
use sqlx::{
    AssertSqlSafe, SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};
use tests::{Binaries, within};

use self::shop::{Shop, Version};
use crate::processes::free_address;

/// Data of the last release: carts in every state, links, pending and dead jobs.
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
    shop.wrong.lock().unwrap().clear(); // expected
    within(Duration::from_secs(60), "the job is dead", async || {
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

/// Applies a possible migration of the next release: this release's processes serve on its schema.
async fn migrate_further(shop: &Shop) {
    let sql = "alter table carts add column made_up text; alter table payment_links add column made_up text;
               alter table jobs add column made_up text; alter table cart_events add column made_up text";
    let sql = AssertSqlSafe(sql).into_sql_str();
    let later = Migration::new(99_990_101_000_000, "made up".into(), MigrationType::Simple, sql, false);
    let all = migrations::all().migrations.into_owned().into_iter().chain([later]).collect();
    let reached = shop.database.reach(Listen::Directly, 2);
    migrations::migrate(&reached, Migrator::with_migrations(all), RetryLimits::default()).await.unwrap();
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
    // A restarted old process finds a schema that it does not know.
    shop.serves_no_more(old);
    shop.goes_on_for(10).await; // requests in flight have arrived
    old_api.signal(Signal::SIGTERM);
    assert_eq!(old_api.ends().await, Some(0));
    old_worker.signal(Signal::SIGKILL); // another worker takes over its jobs
    let mut old_api = shop.start(Version::Last, "api", old).await;
    let mut old_worker = shop.start(Version::Last, "worker", old).await;
    shop.serves(old);
    shop.goes_on_for(100).await;
    migrate_further(&shop).await;
    shop.goes_on_for(100).await;
    // Stop the old processes.
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
