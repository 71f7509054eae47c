//! Erasures while the carts change.

use std::sync::Arc;

use common::{carts, personal_data};
use sandbox::stripe::{Fault, Operation, Session, SessionStatus};
use serde_json::{Value, json};
use tests::{App, Setup, eventually, leaks::mentions, lives::ZEBEDEE, transaction};

async fn erase(app: &App) -> Value {
    let email = ZEBEDEE.cart()["customerEmail"].clone();
    app.post("/api/erasure", &json!({"email": email})).await.data(200)["removed"].clone()
}

async fn nothing_is_left(app: &App) {
    assert_eq!(mentions(&app.pool, ZEBEDEE.words).await, Vec::<String>::new());
}

/// Waits until a statement waits for a lock.
async fn somebody_waits(app: &App) {
    let waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    eventually("somebody waits for a lock", async || {
        sqlx::query_scalar::<_, i64>(waits).fetch_one(&app.pool).await.unwrap() > 0
    })
    .await;
}

/// Stripe creates the session of a person who is erased before its response arrives.
#[tokio::test]
async fn an_erasure_discards_a_link_in_progress() {
    let app = App::new().await;
    let id = app.cart_of(&ZEBEDEE.cart()).await;
    app.stripe.fail_next(Operation::Create, Fault::Held);
    app.ask_later(&id).await;
    eventually("Stripe made it, and has not answered", async || app.stripe.sessions().len() == 1).await;
    assert_eq!(erase(&app).await["carts"], json!(1));
    app.stripe.let_go();
    eventually("it is closed", async || {
        app.stripe.sessions().first().is_some_and(|session| session.status == SessionStatus::Expired)
    })
    .await;
    app.idle().await;
    nothing_is_left(&app).await;
    let addresses: i64 =
        sqlx::query_scalar("select count(url) + count(failure) from payment_links").fetch_one(&app.pool).await.unwrap();
    assert_eq!(addresses, 0);
}

/// The response is lost, and the cart is gone when the job is retried.
#[tokio::test]
async fn a_retried_link_job_finds_no_cart() {
    let app = App::new().await;
    let id = app.cart_of(&ZEBEDEE.cart()).await;
    app.stripe.fail_next(Operation::Create, Fault::ResetAfter);
    app.stripe.fail_next(Operation::Create, Fault::RateLimited { retry_after: 1 });
    app.ask_later(&id).await;
    eventually("it is tried again", async || app.stripe.calls(Operation::Create) == 2).await;
    erase(&app).await;
    app.idle().await;
    assert!(app.stripe.sessions().iter().all(|session| session.status == SessionStatus::Expired));
    nothing_is_left(&app).await;
}

/// A payment arrives during the erasure.
#[tokio::test]
async fn a_payment_and_an_erasure_wait_for_each_other() {
    let app = Arc::new(App::new().await);
    let id = app.cart_of(&ZEBEDEE.cart()).await;
    let session = app.session(&id).await;
    app.stripe.send_webhooks_to(None);
    // Hold the cart, so that the first of the two waits for this lock, and the second waits behind
    // it.
    let mut holding = transaction(&app.pool).await;
    carts::lock(&mut holding, &id.parse().unwrap()).await.unwrap().unwrap();
    let erasing = {
        let app = app.clone();
        tokio::spawn(async move { erase(&app).await })
    };
    somebody_waits(&app).await;
    let mut event = app.stripe.event_of(&session, "checkout.session.completed", Session::complete);
    event["data"]["object"]["customer_details"] = json!({"email": ZEBEDEE.cart()["customerEmail"]});
    let paying = {
        let app = app.clone();
        tokio::spawn(async move { app.webhook(&event).await })
    };
    holding.rollback().await.unwrap();
    assert_eq!(erasing.await.unwrap()["carts"], json!(1));
    paying.await.unwrap().data(200);
    app.idle().await;
    nothing_is_left(&app).await;
    let left: i64 = sqlx::query_scalar("select (select count(*) from carts) + (select count(*) from cart_events)")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    assert_eq!(left, 0);
}

/// A job dies while its cart is being deleted: an event stored then could never be deleted.
#[tokio::test]
async fn a_job_that_dies_during_an_erasure_leaves_no_event() {
    let app = Setup::default().without_worker().set("PAYMENT_LINK_WAIT", "10ms").start().await;
    let id = app.cart_of(&ZEBEDEE.cart()).await;
    app.ask(&id).await.data(202);
    let email = ZEBEDEE.cart()["customerEmail"].as_str().unwrap().parse().unwrap();
    let mut erasing = transaction(&app.pool).await;
    personal_data::erase(&mut erasing, &email, app.now()).await.unwrap();
    // The deletion is not committed, so others still see the cart.
    sqlx::query("update jobs set state = 'dead', finished_at = now() where kind = 'create_payment_link'")
        .execute(&app.pool)
        .await
        .unwrap();
    erasing.commit().await.unwrap();
    let events: i64 = sqlx::query_scalar("select count(*) from cart_events").fetch_one(&app.pool).await.unwrap();
    assert_eq!(events, 0);
}

/// One of two concurrent erasures erases the person, the other finds nothing.
#[tokio::test]
async fn concurrent_erasures_erase_each_cart_once() {
    let app = Arc::new(Setup::default().without_worker().start().await);
    for _ in 0..30 {
        app.cart_of(&ZEBEDEE.cart()).await;
    }
    let erasures: Vec<_> = (0..8)
        .map(|_| {
            let app = app.clone();
            tokio::spawn(async move { erase(&app).await["carts"].as_u64().unwrap() })
        })
        .collect();
    let mut removed = 0;
    for erasure in erasures {
        removed += erasure.await.unwrap();
    }
    assert_eq!(removed, 30);
    nothing_is_left(&app).await;
    let receipts: i64 = sqlx::query_scalar("select count(*) from erasures").fetch_one(&app.pool).await.unwrap();
    assert_eq!(receipts, 8);
}

/// A full scan may take longer than any other request, and does not block others.
#[tokio::test]
async fn a_long_erasure_continues_after_its_request_timed_out() {
    let app = Arc::new(App::new().await);
    app.cart_of(&ZEBEDEE.cart()).await;
    let mut holder = transaction(&app.pool).await;
    sqlx::query("lock table carts in access exclusive mode").execute(&mut holder).await.unwrap();
    let erasure = tokio::spawn({
        let app = app.clone();
        async move { erase(&app).await }
    });
    somebody_waits(&app).await;
    let asked = app.get(&format!("/api/erasure/export?email={}", ZEBEDEE.email)).await;
    asked.is_error(503, "UNAVAILABLE");
    assert!(asked.header("retry-after").parse::<u32>().is_ok(), "{:?}", asked.headers);
    assert!(!erasure.is_finished(), "it waited for longer than whoever came after it");
    holder.rollback().await.unwrap();
    assert_eq!(erasure.await.unwrap()["carts"], json!(1));
    nothing_is_left(&app).await;
}

/// A cart that becomes another person's while the erasure looks for carts is not erased.
#[tokio::test]
async fn a_cart_that_becomes_another_persons_stays() {
    let app = Arc::new(Setup::default().without_worker().start().await);
    let id = app.cart_of(&ZEBEDEE.cart()).await;
    let mut change = transaction(&app.pool).await;
    sqlx::query("update carts set customer_email = 'ada@example.com' where id = $1")
        .bind(&id)
        .execute(&mut change)
        .await
        .unwrap();
    let erasing = tokio::spawn({
        let app = app.clone();
        async move { erase(&app).await }
    });
    somebody_waits(&app).await;
    change.commit().await.unwrap();
    assert_eq!(erasing.await.unwrap()["carts"], json!(0));
    assert_eq!(app.show(&id).await["customerEmail"], "ada@example.com");
}
