use chrono::TimeDelta;
use common::{
    carts::{self, expiry},
    db::Database,
    jobs::ExpireCarts,
};
use serde_json::{Value, json};
use tests::{App, Setup, a_cart, connection, eventually, transaction};

async fn run_expiry(app: &App) {
    queue::enqueue(&mut connection(&app.pool).await, &ExpireCarts::default()).await.unwrap();
    app.idle().await;
}

fn left(at: chrono::DateTime<chrono::Utc>) -> Value {
    let mut cart = a_cart();
    cart["abandonedAt"] = json!(at);
    cart
}

#[tokio::test]
async fn carts_expire_exactly_when_they_are_too_old() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").set("CART_TTL", "30d").start().await;
    let ttl = TimeDelta::days(30);
    let old = app.cart_of(&left(app.now() - ttl - TimeDelta::milliseconds(1))).await;
    let not_yet = app.cart_of(&left(app.now() - ttl)).await;
    let recovered = app.cart_of(&left(app.now() - ttl * 2)).await;
    app.patch(&format!("/api/carts/{recovered}"), &json!({"status": "recovered"})).await.data(200);
    run_expiry(&app).await;
    let cart = app.show(&old).await;
    assert_eq!((&cart["status"], &cart["expiredAt"]), (&json!("expired"), &json!(app.now())));
    assert_eq!(app.show(&not_yet).await["status"], "abandoned");
    assert_eq!(app.show(&recovered).await["status"], "recovered");
}

#[tokio::test]
async fn a_valid_recovery_link_or_a_payment_in_progress_prevents_expiry() {
    let app =
        Setup::default().at("2026-03-10T12:00:00Z").set("CART_TTL", "1d").set("PAYMENT_LINK_TTL", "7d").start().await;
    let (linked, paying) = (app.cart().await, app.cart().await);
    app.session(&linked).await;
    let session = app.session(&paying).await;
    app.stripe.pay_later(&session).await.unwrap();

    app.clock.advance(TimeDelta::days(7) - TimeDelta::seconds(1));
    run_expiry(&app).await;
    assert_eq!(app.show(&linked).await["status"], "abandoned");
    app.clock.advance(TimeDelta::seconds(1));
    run_expiry(&app).await;
    assert_eq!(app.show(&linked).await["status"], "expired");
    assert_eq!(app.show(&paying).await["status"], "abandoned", "a payment is in progress");

    app.stripe.money_arrives(&session, false).await.unwrap();
    run_expiry(&app).await;
    assert_eq!(app.show(&paying).await["status"], "expired");
}

#[tokio::test]
async fn the_session_of_an_expired_cart_is_closed() {
    // The recovery link ends before the shortest session that Stripe allows.
    let app =
        Setup::default().at("2026-03-10T12:00:00Z").set("CART_TTL", "1m").set("PAYMENT_LINK_TTL", "2m").start().await;
    let id = app.cart().await;
    app.session(&id).await;
    app.clock.advance(TimeDelta::minutes(3));
    run_expiry(&app).await;
    assert_eq!(app.show(&id).await["status"], "expired");
    assert_eq!(app.stripe.sessions()[0].status, sandbox::stripe::SessionStatus::Expired);
}

#[tokio::test]
async fn several_workers_share_one_expiry() {
    let app = Setup::default().without_worker().start().await;
    sqlx::query(
        "insert into carts (id, customer_email, customer_name, items, total_minor, currency, abandoned_at)
         select 'cart_' || n, 'e', 'n', '[]', 100, 'usd', now() - interval '40 days' from generate_series(1, 20000) n",
    )
    .execute(&app.pool)
    .await
    .unwrap();
    let now = app.now();
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let database = Database::from(app.pool.clone());
            tokio::spawn(async move { expiry::expire_older_than(&database, now - TimeDelta::days(30), now).await })
        })
        .collect();
    let mut expired = 0;
    for worker in workers {
        expired += worker.await.unwrap().unwrap();
    }
    assert_eq!(expired, 20_000);
    assert_eq!(app.get("/api/carts?status=expired").await.data(200)["pagination"]["total"], json!(20_000));
}

#[tokio::test]
async fn other_workers_help_with_a_backlog() {
    let app = Setup::default().without_worker().start().await;
    let (one, two) = (app.start_worker(), app.start_worker());
    let expired = async |carts: i64| {
        sqlx::query(
            "insert into carts (id, customer_email, customer_name, items, total_minor, currency, abandoned_at)
             select 'cart_' || gen_random_uuid(), 'e', 'n', '[]', 100, 'usd', now() - interval '40 days'
             from generate_series(1, $1)",
        )
        .bind(carts)
        .execute(&app.pool)
        .await
        .unwrap();
        run_expiry(&app).await;
        app.get("/api/carts?status=expired").await.data(200)["pagination"]["total"].clone()
    };
    // The number of each job that no schedule queued: 0 is the one that the test did.
    let jobs = async || -> Vec<(i64, String)> {
        sqlx::query_as(
            "select (payload->>'helper')::bigint, state from jobs where kind = 'expire_carts' and slot is null order by 1",
        )
        .fetch_all(&app.pool)
        .await
        .unwrap()
    };
    let done = |helpers: &[i64]| helpers.iter().map(|helper| (*helper, "done".to_owned())).collect::<Vec<_>>();
    assert_eq!(expired(1_500).await, json!(1_500));
    assert_eq!(jobs().await, done(&[0]), "one batch needs no help");
    assert_eq!(expired(30_000).await, json!(31_500));
    // The second is called by the first, if carts are left then.
    let jobs = jobs().await;
    assert!(jobs == done(&[0, 0, 1]) || jobs == done(&[0, 0, 1, 2]), "{jobs:?}");
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_locked_cart_expires_in_the_next_run() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").without_worker().start().await;
    let cutoff = app.now() - TimeDelta::days(30);
    let held = app.cart_of(&left(cutoff - TimeDelta::days(2))).await;
    let free = app.cart_of(&left(cutoff - TimeDelta::days(1))).await;
    let database = Database::from(app.pool.clone());
    let mut holder = transaction(&app.pool).await;
    carts::lock(&mut holder, &held.parse().unwrap()).await.unwrap();
    assert_eq!(expiry::expire_older_than(&database, cutoff, app.now()).await.unwrap(), 1);
    assert_eq!(app.show(&free).await["status"], "expired");
    holder.rollback().await.unwrap();
    assert_eq!(expiry::expire_older_than(&database, cutoff, app.now()).await.unwrap(), 1);
    assert_eq!(app.show(&held).await["status"], "expired");
}

#[tokio::test]
async fn schedules_run_and_each_occurrence_once() {
    let app = Setup::default()
        .set("EXPIRY_SCHEDULE", "* * * * * *")
        .set("ROLLUP_SCHEDULE", "* * * * * *")
        .without_worker()
        .start()
        .await;
    let (one, two) = (app.start_worker(), app.start_worker());
    let slots = async |kind: &str| -> (i64, i64) {
        // Another schedule has jobs of the same kind.
        sqlx::query_as(
            "select count(*), count(distinct slot) from jobs where kind = $1 and state = 'done'
             and not exists (select from schedule_slots where job_id = id and schedule = 'add_up_counts')",
        )
        .bind(kind)
        .fetch_one(&app.pool)
        .await
        .unwrap()
    };
    eventually("three slots of each ran", async || {
        slots("expire_carts").await.1 >= 3 && slots("roll_up_days").await.1 >= 3
    })
    .await;
    one.stop().await;
    two.stop().await;
    for kind in ["expire_carts", "roll_up_days"] {
        let (jobs, different) = slots(kind).await;
        assert_eq!(jobs, different, "{kind} ran twice for a slot");
    }
}
