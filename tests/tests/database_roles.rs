//! The restricted role of `examples/roles.sql`, and both binaries using it. (Every test that starts
//! the product in its own process uses this role, too.)

use common::{clock::Clock, config::Env, db};
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use tests::{DEADLINE, ROLES, TestDatabase, a_cart, processes, processes::Process, within};
use worker::{CheckStatus, WorkerConfig, examine};

use crate::processes::Shop;

async fn run_roles_file(admin: &PgPool) {
    sqlx::raw_sql(ROLES).execute(admin).await.unwrap();
}

/// Runs a command of the worker; returns its output.
async fn worker(database: &TestDatabase, shop: &Shop, arguments: &[&str]) -> String {
    let mut variables = shop.worker_variables();
    variables[0].1.clone_from(&database.url);
    let output = processes::run("worker", arguments, variables).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The line with which a binary refuses to start.
async fn refusal(binary: &str, variables: Vec<(&'static str, String)>) -> String {
    let mut process = Process::start(binary, variables).await;
    let line = process.says(&format!("{binary}: ")).await;
    assert_eq!(process.ends().await, Some(1), "{line}");
    line
}

/// The SQLSTATE of this statement under the product's role.
async fn code(database: &TestDatabase, sql: &str) -> Option<String> {
    let tried = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&database.pool(1)).await;
    tried.err().and_then(|error| error.as_database_error()?.code().map(|code| code.into_owned()))
}

#[tokio::test]
async fn the_owner_migrates_and_both_binaries_work_under_a_role_that_may_not() {
    let mut shop = Shop::open().await;
    let database = shop.database.empty().await;
    let admin = database.pool(2);
    let (owner, product) = (database.as_role("checkout_owner", "owner"), database.as_product());
    run_roles_file(&admin).await;
    shop.database = product.clone();

    // Before the migration: one line that names the command to run.
    for (binary, variables) in [("api", shop.api_variables()), ("worker", shop.worker_variables())] {
        let line = refusal(binary, variables).await;
        assert!(line.contains("the schema is behind by") && line.contains(r#"the role "checkout" may not"#), "{line}");
        assert!(line.contains("`worker migrate`"), "{line}");
    }
    let applied = worker(&owner, &shop, &["migrate"]).await;
    assert!(applied.contains("applied 20261129000001 ") && applied.ends_with("the schema is current\n"), "{applied}");
    assert_eq!(worker(&owner, &shop, &["migrate"]).await, "the schema is current\n");
    run_roles_file(&admin).await;

    // A job that ended long ago for the queue's retention, and records for the product's.
    let old = "insert into jobs (id, queue, kind, payload, max_attempts, state, finished_at)
                   values (gen_random_uuid(), 'expiry', 'expire_carts', '{}', 1, 'done', now() - interval '9 days');
               insert into idempotency_keys values ('\\x01', '\\x01', 'cart_1', now() - interval '9 days');
               insert into jobs (id, queue, kind, payload, max_attempts)
                   values (gen_random_uuid(), 'maintenance', 'delete_old_records', '{}', 1)";
    sqlx::raw_sql(old).execute(&admin).await.unwrap();
    let mut variables = shop.worker_variables();
    variables.push(("EXPIRY_SCHEDULE", "* * * * * *".to_owned()));
    variables.push(("ROLLUP_SCHEDULE", "* * * * * *".to_owned()));
    let (mut api, mut one) = tokio::join!(shop.api(), Process::start("worker", variables));
    one.says("worker is working").await;

    everything(&shop, &admin).await;
    for arguments in [
        &["doctor"][..],
        &["queues"],
        &["jobs"],
        &["schedules"],
        &["pause", "analytics"],
        &["resume", "analytics"],
        &["rollup"],
        &["rollup", "--all"],
        &["retry", "--queue", "expiry", "--dry-run"],
    ] {
        worker(&product, &shop, arguments).await;
    }
    let failed: Vec<String> =
        sqlx::query_scalar("select kind || ': ' || last_error from jobs where last_error is not null")
            .fetch_all(&admin)
            .await
            .unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    for process in [&mut api, &mut one] {
        process.signal(Signal::SIGTERM);
        while let Some(line) = process.next_line().await {
            assert!(!line.contains("permission denied") && !line.contains("must be owner"), "{line}");
        }
    }
}

/// From carts to analytics, with the schedules that run meanwhile.
async fn everything(shop: &Shop, admin: &PgPool) {
    let ask = async |method: Method, path: &str, body: Option<Value>| {
        let mut request = shop.http.request(method.clone(), shop.url(path)).header("x-api-key", "key");
        if let Some(body) = &body {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        assert!((200..300).contains(&status), "{method} {path}: {status} {text}");
        serde_json::from_str::<Value>(&text).unwrap_or_default()
    };
    // A year old and never paid, so it expires.
    let mut forgotten = a_cart();
    forgotten["abandonedAt"] = json!("2025-01-01T00:00:00Z");
    let forgotten = ask(Method::POST, "/api/carts", Some(forgotten)).await["data"]["id"].as_str().unwrap().to_owned();
    let paid = shop.cart().await;
    let page = shop.link(&paid).await.1["data"]["paymentLink"].as_str().unwrap().to_owned();
    assert_eq!(shop.http.post(format!("{page}/pay")).send().await.unwrap().status(), 200);
    let deleted = shop.cart().await;
    assert_eq!(shop.link(&deleted).await.0, 200);
    ask(Method::PATCH, &format!("/api/carts/{deleted}"), Some(json!({"status": "expired"}))).await;
    ask(Method::DELETE, &format!("/api/carts/{deleted}"), None).await;
    let import = shop.http.post(shop.url("/api/carts/import")).header("content-type", "application/x-ndjson");
    let import = import.header("x-api-key", "key").body(format!("{}\n", a_cart()));
    assert_eq!(import.send().await.unwrap().status(), 200);
    for path in [
        &format!("/api/carts/{paid}"),
        &format!("/api/carts/{paid}/timeline"),
        &format!("/api/carts/{paid}/payment-link"),
        "/api/carts?status=recovered&limit=2",
        "/api/carts?email=ada@example.com",
        "/api/carts/export",
        "/api/analytics",
        "/api/jobs",
        "/api/queues",
        "/api/schedules",
        "/readyz",
    ] {
        ask(Method::GET, path, None).await;
    }
    ask(Method::POST, "/api/queues/analytics/pause", None).await;
    ask(Method::POST, "/api/queues/analytics/resume", None).await;
    let count = async |sql: &'static str| sqlx::query_scalar::<_, i64>(sql).fetch_one(admin).await.unwrap();
    within(DEADLINE, "the schedules did their work", async || {
        count("select count(*) from carts where status = 'expired' and status_reason = 'age'").await == 1
            && count("select count(*) from carts where status = 'recovered'").await == 1
            && count("select count(*) from payment_links where status in ('paid', 'closed')").await == 2
            && count("select count(*) from jobs where kind = 'roll_up_days' and state = 'done'").await > 0
            && count("select count(*) from jobs where kind = 'delete_old_records' and state = 'done'").await > 0
            && count("select count(*) from idempotency_keys").await == 0
            && count("select count(*) from jobs where finished_at < now() - interval '5 days'").await == 0
    })
    .await;
    assert_eq!(ask(Method::GET, &format!("/api/carts/{forgotten}"), None).await["data"]["status"], "expired");
}

#[tokio::test]
async fn the_products_role_can_change_rows_and_nothing_else() {
    let database = TestDatabase::create().await.empty().await;
    let admin = database.pool(1);
    let (owner, product) = (database.as_role("checkout_owner", "owner"), database.as_product());
    run_roles_file(&admin).await;
    let env = Env::of([("DATABASE_URL", &owner.url)]);
    db::prepare(&db::from_env(&env, 1).unwrap().database).await.unwrap();
    run_roles_file(&admin).await;
    for forbidden in [
        "create table mine (id int)",
        "create temporary table mine (id int)",
        "drop table carts",
        "truncate carts",
        "alter table carts disable trigger all",
        "alter table carts add column mine int",
        "create schema mine",
        "create or replace function carts_count() returns trigger language plpgsql as 'begin return null; end'",
        "drop index carts_to_expire",
        "delete from _sqlx_migrations",
        "create role mine",
        "alter role checkout superuser",
        "copy carts to program 'cat'",
        "select pg_read_file('PG_VERSION')",
    ] {
        assert_eq!(code(&product, forbidden).await.as_deref(), Some("42501"), "{forbidden}");
    }
    // Tables of later migrations are accessible at once.
    let later = "create table later (id bigserial primary key, what text)";
    assert_eq!(code(&owner, later).await, None);
    for allowed in [
        "insert into later (what) values ('a')",
        "update later set what = 'b'",
        "select * from later",
        "delete from later",
        "select count(*) from _sqlx_migrations",
    ] {
        assert_eq!(code(&product, allowed).await, None, "{allowed}");
    }
    assert_eq!(code(&product, "drop table later").await.as_deref(), Some("42501"));

    // Tables of another owner are not, and the doctor reports it.
    let privileges = async || {
        let env = Env::of([
            ("DATABASE_URL", product.url.as_str()),
            ("STRIPE_SECRET_KEY", "sk_test_roles"),
            ("STRIPE_API_URL", "http://127.0.0.1:9"),
        ]);
        let config: WorkerConfig = env.read().unwrap();
        let checks = examine(&env, &config, &Clock::system()).await.unwrap();
        checks.into_iter().find(|check| check.name == "privileges").unwrap()
    };
    assert_eq!(privileges().await.status, CheckStatus::Ok, "{}", privileges().await.text);
    sqlx::raw_sql("create table closed (id int); revoke delete on later from checkout").execute(&admin).await.unwrap();
    let found = privileges().await;
    assert_eq!(found.status, CheckStatus::Fail);
    assert!(found.text.contains("closed, later") && found.text.contains("roles.sql"), "{}", found.text);
}
