//! A locked cart delays only requests for itself: it takes no connections, and delays no other
//! cart.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use common::{carts::expiry, db::Database};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Answer, App, Setup, a_cart, events::event, transaction};
use tokio::task::JoinSet;

use crate::dashboard::Operator;

/// How long the refusal of a change of the locked cart may take.
const REFUSED_WITHIN: Duration = Duration::from_secs(8);

struct Linked {
    id: String,
    session: String,
    recovery_path: String,
}

async fn linked(app: &App) -> Linked {
    let id = app.cart().await;
    let link = app.ask(&id).await.data(200);
    let text = |name: &str| link[name].as_str().unwrap().to_owned();
    let session = text("paymentLink").rsplit('/').next().unwrap().to_owned();
    Linked { id, session, recovery_path: text("recoveryUrl").strip_prefix(&app.url("")).unwrap().to_owned() }
}

fn paid(cart: &Linked, number: usize) -> Value {
    event(
        &format!("evt_locked_{number}"),
        "checkout.session.completed",
        &json!({
            "id": cart.session, "object": "checkout.session", "client_reference_id": cart.id, "mode": "payment",
            "status": "complete", "payment_status": "paid", "amount_total": 9998, "currency": "usd",
            "metadata": {"cart_id": cart.id, "link_version": "1"},
        }),
    )
}

/// Sends one of the requests that change a cart.
async fn change(app: &App, cart: &Linked, operator: &Operator<'_>, number: usize) -> Answer {
    let path = format!("/api/carts/{}", cart.id);
    match number % 6 {
        0 => app.patch(&path, &json!({"status": "expired"})).await,
        1 => app.delete(&path).await,
        2 => app.ask(&cart.id).await,
        3 => app.webhook(&paid(cart, number)).await,
        4 => operator.post(&format!("/carts/{}/delete", cart.id), "").await,
        _ => operator.post(&format!("/carts/{}/link", cart.id), "").await,
    }
}

/// Sends a request that must succeed meanwhile, about another cart.
async fn other(app: &App, cart: &Linked, number: usize) {
    let path = format!("/api/carts/{}", cart.id);
    match number % 6 {
        0 => drop(app.patch(&path, &json!({"status": "expired"})).await.data(200)),
        1 => {
            let request = app.request(Method::POST, "/api/carts").header("idempotency-key", format!("key {number}"));
            app.send(request.json(&a_cart())).await.data(201);
        }
        2 => drop(app.ask(&cart.id).await.data(200)),
        3 => {
            let unknown = json!({"id": format!("cs_{number}"), "client_reference_id": format!("cart_{number}")});
            app.webhook(&event(&format!("evt_other_{number}"), "checkout.session.expired", &unknown)).await.data(200);
        }
        4 => assert_eq!(app.send(app.bare_request(Method::POST, &cart.recovery_path)).await.status, 303),
        _ => assert_eq!(app.send(app.bare_request(Method::GET, "/readyz")).await.status, 200),
    }
}

#[tokio::test]
async fn a_locked_cart_delays_only_itself() {
    let app = Arc::new(App::new().await);
    let cart = Arc::new(linked(&app).await);
    let mut others = Vec::new();
    for _ in 0..6 {
        others.push(Arc::new(linked(&app).await));
    }
    let before = app.show(&cart.id).await;
    // A long erasure holds these locks.
    let mut holding = transaction(&app.pool).await;
    for table in ["carts where id", "recovery_links where cart_id", "payment_links where cart_id"] {
        let lock = sqlx::AssertSqlSafe(format!("select from {table} = $1 for update"));
        sqlx::query(lock).bind(&cart.id).execute(&mut holding).await.unwrap();
    }

    let mut changes = JoinSet::new();
    for number in 0..30 {
        let (app, cart) = (app.clone(), cart.clone());
        changes.spawn(async move {
            let operator = Operator::sign_in(&app, "test-key").await;
            let begun = Instant::now();
            (change(&app, &cart, &operator, number).await, begun.elapsed(), number)
        });
    }
    for _ in 0..10 {
        let (app, path) = (app.clone(), cart.recovery_path.clone());
        changes.spawn(async move {
            let begun = Instant::now();
            (app.send(app.bare_request(Method::POST, &path)).await, begun.elapsed(), 1_000)
        });
    }
    // Each kind has its own carts: 2 and 4 continue with the same link, 0 expires.
    let mut running = JoinSet::new();
    let mut slowest = Duration::ZERO;
    for number in 0..210 {
        let (app, other_cart) = (app.clone(), others[number % 6].clone());
        running.spawn(async move {
            let begun = Instant::now();
            other(&app, &other_cart, number).await;
            begun.elapsed()
        });
        if running.len() >= 12 {
            slowest = slowest.max(running.join_next().await.unwrap().unwrap());
        }
    }
    for took in running.join_all().await {
        slowest = slowest.max(took);
    }
    assert!(slowest < Duration::from_secs(3), "others took up to {slowest:?}");

    for (answer, took, number) in changes.join_all().await {
        if number == 1_000 {
            assert_eq!(answer.status, 303, "the link works all the same");
            continue;
        }
        assert_eq!(answer.status, 503, "{number}: {}", answer.text);
        let dashboard = matches!(number % 6, 4 | 5);
        assert!(dashboard || !answer.header("retry-after").is_empty(), "{number}");
        assert!(took < REFUSED_WITHIN, "{number} took {took:?}");
    }
    // The refused requests changed nothing.
    assert_eq!(app.show(&cart.id).await, before);
    let stored: i64 = sqlx::query_scalar("select count(*) from stripe_events where id like 'evt_locked_%'")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    assert_eq!(stored, 0);
    holding.rollback().await.unwrap();
    let operator = Operator::sign_in(&app, "test-key").await;
    change(&app, &cart, &operator, 3).await.data(200);
    assert_eq!(app.show(&cart.id).await["status"], "recovered", "Stripe's repeat has its effect");
}

/// Events of locked carts, including those that name no cart, together with other events.
#[tokio::test]
async fn events_of_locked_carts_delay_no_other_event() {
    let app = Arc::new(App::new().await);
    let mut carts = Vec::new();
    for _ in 0..80 {
        carts.push(Arc::new(linked(&app).await));
    }
    let (locked, free) = carts.split_at(60);
    let mut holding = transaction(&app.pool).await;
    let ids: Vec<&str> = locked.iter().map(|cart| cart.id.as_str()).collect();
    // Some locked by their links only.
    for (table, ids) in [("carts where id", &ids[..50]), ("payment_links where cart_id", &ids[50..])] {
        let lock = sqlx::AssertSqlSafe(format!("select from {table} = any ($1) for update"));
        sqlx::query(lock).bind(ids).execute(&mut holding).await.unwrap();
    }
    let mut held = JoinSet::new();
    let events = locked.iter().enumerate().map(|(number, cart)| paid(cart, number));
    let unnamed = (0..120).map(|number| {
        let mut event = paid(&locked[number % 2], 1_000 + number);
        event["data"]["object"]["metadata"] = Value::Null;
        event["data"]["object"]["client_reference_id"] = Value::Null;
        event
    });
    for event in events.chain(unnamed) {
        let app = app.clone();
        held.spawn(async move { app.webhook(&event).await.status });
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut running = JoinSet::new();
    for (number, cart) in free.iter().enumerate() {
        let (app, event) = (app.clone(), paid(cart, 2_000 + number));
        running.spawn(async move {
            let begun = Instant::now();
            app.webhook(&event).await.data(200);
            begun.elapsed()
        });
    }
    let slowest = running.join_all().await.into_iter().max().unwrap();
    assert!(slowest < Duration::from_millis(1_500), "others took up to {slowest:?}");
    assert!(held.join_all().await.into_iter().all(|status| status == 503));
    let stored: i64 = sqlx::query_scalar("select count(*) from stripe_events").fetch_one(&app.pool).await.unwrap();
    assert_eq!(stored, 20, "those of the locked carts are not stored");

    // Stripe's retries take effect once the locks are released.
    holding.rollback().await.unwrap();
    let mut unnamed = paid(&locked[0], 1_000);
    unnamed["data"]["object"]["metadata"] = Value::Null;
    for event in locked.iter().enumerate().skip(1).map(|(number, cart)| paid(cart, number)).chain([unnamed]) {
        app.webhook(&event).await.data(200);
    }
    for cart in &carts {
        assert_eq!(app.show(&cart.id).await["status"], "recovered");
    }
}

#[tokio::test]
async fn a_locked_cart_or_link_keeps_no_other_cart_from_expiring() {
    let app = Setup::default().start().await;
    let (link_locked, cart_locked) = (linked(&app).await, linked(&app).await);
    let mut others = vec![linked(&app).await.id];
    for _ in 0..5 {
        others.push(app.cart().await);
    }
    let (now, database) = (app.now() + TimeDelta::days(60), Database::from(app.pool.clone()));
    let mut holding = transaction(&app.pool).await;
    for (table, id) in [("payment_links where cart_id", &link_locked.id), ("carts where id", &cart_locked.id)] {
        let lock = sqlx::AssertSqlSafe(format!("select from {table} = $1 for update"));
        sqlx::query(lock).bind(id).execute(&mut holding).await.unwrap();
    }
    let expiring = expiry::expire_older_than(&database, now - TimeDelta::days(30), now);
    let expired = tokio::time::timeout(Duration::from_secs(10), expiring).await.expect("it waits for nobody").unwrap();
    assert_eq!(expired, 6);
    for id in &others {
        assert_eq!(app.show(id).await["status"], "expired");
    }
    // The cart of the locked link is not locked either.
    app.patch(&format!("/api/carts/{}", others[0]), &json!({"status": "abandoned"})).await.data(200);
    assert_eq!(app.show(&link_locked.id).await["status"], "abandoned");
    holding.rollback().await.unwrap();
    assert_eq!(expiry::expire_older_than(&database, now - TimeDelta::days(30), now).await.unwrap(), 3);
    for cart in [&link_locked, &cart_locked] {
        assert_eq!(app.show(&cart.id).await["status"], "expired");
    }
}

#[tokio::test]
async fn changes_wait_for_a_lock_that_is_soon_free() {
    let app = Arc::new(App::new().await);
    let cart = linked(&app).await;
    let mut holding = transaction(&app.pool).await;
    sqlx::query("select from carts where id = $1 for update").bind(&cart.id).execute(&mut holding).await.unwrap();
    let mut changes = JoinSet::new();
    for number in 0..20 {
        let (app, path) = (app.clone(), format!("/api/carts/{}", cart.id));
        let status = if number % 2 == 0 { "expired" } else { "abandoned" };
        changes.spawn(async move { app.patch(&path, &json!({"status": status})).await.data(200)["status"] == status });
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(changes.try_join_next().is_none(), "they wait");
    holding.rollback().await.unwrap();
    assert!(changes.join_all().await.into_iter().all(|as_asked| as_asked));
}

#[tokio::test]
async fn an_erasure_gives_up_on_a_locked_cart_and_blocks_no_other_erasure() {
    let app = Arc::new(App::new().await);
    let locked = app.cart().await;
    let mut of_grace = a_cart();
    of_grace["customerEmail"] = json!("grace@example.com");
    app.cart_of(&of_grace).await;
    let mut holding = transaction(&app.pool).await;
    sqlx::query("select from carts where id = $1 for update").bind(&locked).execute(&mut holding).await.unwrap();
    let of_ada = tokio::spawn({
        let app = app.clone();
        async move { app.post("/api/erasure", &json!({"email": "ada@example.com"})).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let of_grace = app.post("/api/erasure", &json!({"email": "grace@example.com"})).await.data(200);
    assert_eq!(of_grace["removed"]["carts"], json!(1));
    let refused = of_ada.await.unwrap();
    refused.is_error(503, "UNAVAILABLE");
    assert!(!refused.header("retry-after").is_empty());
    assert_eq!(app.show(&locked).await["customerEmail"], "ada@example.com");
    holding.rollback().await.unwrap();
    let of_ada = app.post("/api/erasure", &json!({"email": "ada@example.com"})).await.data(200);
    assert_eq!(of_ada["removed"]["carts"], json!(1));
}

/// A statement by key times out on the lock itself; the api cancels any other statement.
#[tokio::test]
async fn other_locks_and_long_statements_are_given_up() {
    let app = Setup::default().without_worker().start().await;
    let id = app.cart().await;
    let mut holding = transaction(&app.pool).await;
    sqlx::raw_sql("lock table cart_events, jobs in access exclusive mode").execute(&mut holding).await.unwrap();
    let refused = async |path: &str| {
        let begun = Instant::now();
        app.get(path).await.is_error(503, "UNAVAILABLE");
        begun.elapsed().as_secs_f64()
    };
    let timeline = format!("/api/carts/{id}/timeline");
    let (lock, statement) = tokio::join!(refused(&timeline), refused("/api/jobs"));
    assert!((4.9..14.0).contains(&lock), "5 s for a lock: {lock}");
    assert!((14.9..45.0).contains(&statement), "15 s for a statement: {statement}");
    drop(holding);
    for path in [&*timeline, "/api/jobs"] {
        app.get(path).await.data(200);
    }
}
