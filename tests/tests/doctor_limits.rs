//! `worker doctor` reports what ends in trouble later: limits of Postgres, the rights of Stripe's
//! key, clocks of other machines.

use chrono::TimeDelta;
use common::{clock::Clock, config::Env};
use sandbox::stripe::{Fault, Operation};
use sqlx::Connection;
use tests::{App, Setup, eventually};
use worker::{Check, CheckStatus, examine};

async fn app() -> App {
    Setup::default().without_worker().start().await
}

/// The check of this name, with these variables besides the usual ones.
async fn check_with(app: &App, database: &str, name: &str, variables: &[(&str, &str)]) -> Check {
    let mut env = Env::of(variables.iter().copied());
    env.or_set("DATABASE_URL", database);
    env.or_set("STRIPE_SECRET_KEY", "sk_test_1");
    env.or_set("STRIPE_API_URL", app.stripe.url());
    let checks = examine(&env, &env.read().unwrap(), &Clock::system()).await.unwrap();
    checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("no {name} in {checks:?}")).clone()
}

/// The check of this name, by the product's restricted role.
async fn check(app: &App, name: &str) -> Check {
    check_with(app, &app.database.as_product().url, name, &[]).await
}

/// Replaces a function of Postgres for new sessions of the test's database.
async fn replace(app: &App, signature: &str, returns: &str, value: &str) {
    let database = &app.database.name;
    let function = format!("create or replace function odd.{signature} returns {returns} language sql return {value}");
    app.sql(&format!("create schema if not exists odd; grant usage on schema odd to public; {function}")).await;
    app.sql(&format!("alter database {database} set search_path = odd, pg_catalog, public")).await;
}

#[tokio::test]
async fn a_notify_queue_that_fills_up_is_reported_before_it_is_full() {
    let app = app().await;
    assert_eq!(check(&app, "notifications").await.status, CheckStatus::Ok);
    for (used, status) in [("0.09", CheckStatus::Ok), ("0.2", CheckStatus::Warn), ("0.6", CheckStatus::Fail)] {
        replace(&app, "pg_notification_queue_usage()", "float8", used).await;
        let check = check(&app, "notifications").await;
        assert_eq!(check.status, status, "{check:?}");
    }
    let text = check(&app, "notifications").await.text;
    assert!(text.contains("60 % full") && text.contains("pg_stat_activity"), "{text}");
}

#[tokio::test]
async fn old_transaction_ids_are_reported_long_before_writes_are_refused() {
    let app = app().await;
    assert_eq!(check(&app, "transactions").await.status, CheckStatus::Ok);
    let ages = [("200100100", CheckStatus::Ok), ("500000000", CheckStatus::Warn), ("1600000000", CheckStatus::Fail)];
    for (age, status) in ages {
        replace(&app, "age(xid)", "integer", age).await;
        let check = check(&app, "transactions").await;
        assert_eq!(check.status, status, "{check:?}");
    }
    let text = check(&app, "transactions").await.text;
    assert!(text.contains("1600 million") && text.contains("vacuum (freeze)"), "{text}");
}

/// Other tests' sessions hold snapshots for seconds; this one is older than all of them.
#[tokio::test]
async fn the_oldest_snapshot_is_named_with_its_holder() {
    let app = app().await;
    let options = app.database.options().application_name("a forgotten backup");
    let mut backup = sqlx::PgConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("begin isolation level repeatable read; select 1").execute(&mut backup).await.unwrap();
    // The ages that are made up count from the backup's snapshot.
    let age = "case when $1 = (select backend_xmin from pg_catalog.pg_stat_activity
                               where application_name = 'a forgotten backup' limit 1) then 2000000 else 1 end";
    replace(&app, "age(xid)", "integer", age).await;
    // The superuser sees that it has lasted a moment only; the product's role can't see since when,
    // and goes by the transactions.
    let seen = check_with(&app, &app.database.url, "snapshots", &[]).await;
    assert!(seen.status == CheckStatus::Ok && seen.text.contains(" (a forgotten backup, role "), "{seen:?}");
    assert!(seen.text.contains("idle in transaction), for 0 min"), "{seen:?}");
    let hidden = check(&app, "snapshots").await;
    assert!(hidden.status == CheckStatus::Warn && hidden.text.contains(" (a forgotten backup, role "), "{hidden:?}");
    assert!(hidden.text.contains("2000000 transactions") && hidden.text.contains("pg_read_all_stats"), "{hidden:?}");
    assert!(
        !hidden.text.contains("idle in transaction") && hidden.text.contains("can't remove dead rows"),
        "{hidden:?}"
    );

    // Runs of a schedule that are younger than the snapshot tell how old it is at least.
    for (minutes, status) in [(9, CheckStatus::Ok), (11, CheckStatus::Warn)] {
        app.sql(&format!(
            "insert into schedule_slots (schedule, slot, admitted_at)
             select 'add_up_counts', at, at from (select now() - interval '{minutes} minutes' as at) run"
        ))
        .await;
        let hidden = check(&app, "snapshots").await;
        let text = format!("for at least {minutes} min");
        assert!(hidden.status == status && hidden.text.contains(&text), "{hidden:?}");
    }
    // Eleven minutes later.
    replace(&app, "now()", "timestamptz", "pg_catalog.now() + interval '11 minutes'").await;
    let old = check_with(&app, &app.database.url, "snapshots", &[]).await;
    assert!(old.status == CheckStatus::Warn && old.text.contains("for 11 min"), "{old:?}");
    assert!(!old.text.contains("counts of carts"), "it has not written: {old:?}");
    sqlx::raw_sql("rollback; begin; create table written ()").execute(&mut backup).await.unwrap();
    replace(&app, "age(xid)", "integer", "pg_catalog.age($1)").await;
    eventually("a transaction that has written is named, too", async || {
        let old = check_with(&app, &app.database.url, "snapshots", &[]).await;
        old.text.contains("a forgotten backup") && old.text.contains("counts of carts are added up only afterwards")
    })
    .await;
}

#[tokio::test]
async fn the_right_to_create_sessions_is_proved_without_creating_one() {
    let app = app().await;
    let found = check(&app, "stripe").await;
    assert!(found.status == CheckStatus::Ok && found.text.contains("may create sessions"), "{found:?}");
    assert!(found.text.contains("a test key"), "{found:?}");
    assert_eq!((app.stripe.calls(Operation::Create), app.stripe.sessions().len()), (1, 0));

    app.stripe.fail_next(Operation::Create, Fault::Repeats { status: 403 });
    let found = check(&app, "stripe").await;
    assert!(found.status == CheckStatus::Fail && found.text.contains("Checkout Sessions: Write"), "{found:?}");
    assert!(!found.text.contains("sk_test_1"), "{found:?}");

    app.stripe.fail_next(Operation::Create, Fault::HtmlBadGateway);
    assert_eq!(check(&app, "stripe").await.status, CheckStatus::Fail, "nothing is proved");
}

#[tokio::test]
async fn live_keys_are_named_and_need_an_https_address() {
    let app = app().await;
    let database = app.database.as_product().url;
    for key in ["sk_live_1", "rk_live_1"] {
        let https = [("STRIPE_SECRET_KEY", key), ("PUBLIC_URL", "https://shop.invalid")];
        let found = check_with(&app, &database, "stripe", &https).await;
        assert!(found.status == CheckStatus::Ok && found.text.contains("a live key"), "{found:?}");
        let http = [("STRIPE_SECRET_KEY", key), ("PUBLIC_URL", "http://shop.invalid")];
        let found = check_with(&app, &database, "stripe", &http).await;
        assert!(found.status == CheckStatus::Fail && found.text.contains("PUBLIC_URL"), "{found:?}");
    }
}

#[tokio::test]
async fn an_apis_clock_is_compared_with_that_of_postgres() {
    let app = Setup::default().start().await;
    let database = app.database.as_product().url;
    let public_url = app.url("");
    let clock = async |public_url: &str| check_with(&app, &database, "api clock", &[("PUBLIC_URL", public_url)]).await;
    let unknown = clock("http://127.0.0.1:1").await;
    assert!(unknown.status == CheckStatus::Warn && unknown.text.contains("can't be reached"), "{unknown:?}");
    assert_eq!(clock(&public_url).await.status, CheckStatus::Ok);

    // By a request for a link that was stored within the hour.
    let id = app.cart().await;
    app.ask(&id).await.data(200);
    app.idle().await;
    assert_eq!(clock("http://127.0.0.1:1").await.status, CheckStatus::Ok, "it needs no PUBLIC_URL then");
    for (minutes, side) in [(3, "180 s ahead of"), (-3, "180 s behind")] {
        let before = TimeDelta::minutes(minutes).num_seconds();
        app.sql(&format!("update jobs set created_at = created_at - {before} * interval '1 second'")).await;
        let wrong = clock(&public_url).await;
        assert!(wrong.status == CheckStatus::Warn && wrong.text.contains(side), "{wrong:?}");
        app.sql(&format!("update jobs set created_at = created_at + {before} * interval '1 second'")).await;
    }
    app.sql("update jobs set created_at = created_at - interval '2 hours'").await;
    assert_eq!(clock(&public_url).await.status, CheckStatus::Ok, "what was stored earlier says nothing about now");

    // By the Date header.
    replace(&app, "clock_timestamp()", "timestamptz", "pg_catalog.clock_timestamp() - interval '90 seconds'").await;
    let wrong = clock(&public_url).await;
    assert!(wrong.status == CheckStatus::Warn && wrong.text.contains("s ahead of"), "{wrong:?}");
}
