//! The events of payment links in the timeline.

use chrono::TimeDelta;
use common::jobs::DeleteOldRecords;
use reqwest::Method;
use sandbox::stripe::{Fault, Operation};
use serde_json::json;
use tests::Setup;

use crate::timeline::{event_lines, events, open_recovery_link, run, start};

#[tokio::test]
async fn the_reasons_for_a_missing_link_are_recorded() {
    let app = start().start().await;
    for (fault, why) in
        [(Fault::Refused, "invalid_request_error"), (Fault::Repeats { status: 402 }, "invalid_request_error")]
    {
        let id = app.cart().await;
        app.stripe.fail_next(Operation::Create, fault);
        app.ask(&id).await.is_error(502, "PAYMENT_PROVIDER_ERROR");
        app.clock.advance(TimeDelta::minutes(1));
        app.ask(&id).await.data(200);
        let not_made = format!("link_not_made 1: {why}");
        let expected = ["created: api", "link_requested 1: api", &not_made, "link_requested 2: api", "link_made 2"];
        assert_eq!(event_lines(&app, &id).await, expected);
    }
}

#[tokio::test]
async fn a_link_under_another_key() {
    let app = Setup::default().set("PAYMENT_LINK_WAIT", "25s").start().await;
    app.stripe.fail_next(Operation::Create, Fault::ServerError);
    let id = app.cart().await;
    app.ask(&id).await.data(200);
    app.idle().await;
    let expected = [
        "created: api",
        "link_requested 1: api",
        "link_not_made 1: idempotency_key_spent",
        "link_requested 2: replacement",
        "link_made 2",
    ];
    assert_eq!(event_lines(&app, &id).await, expected);
}

#[tokio::test]
async fn an_exhausted_job_is_recorded() {
    let app = Setup::default().without_worker().start().await;
    let id = app.cart().await;
    app.ask_later(&id).await;
    sqlx::query("update jobs set max_attempts = 1").execute(&app.pool).await.unwrap();
    app.stripe.fail_next(Operation::Create, Fault::HtmlBadGateway);
    let worker = app.start_worker();
    app.idle().await;
    let given_up = ["created: api", "link_requested 1: api", "link_not_made 1: attempts_exhausted"];
    assert_eq!(event_lines(&app, &id).await, given_up);
    assert_eq!(events(&app, &id).await[2]["details"], json!({"attempts": 1}));

    // A new request adds no second event. It was unknown whether Stripe created a session, so it is
    // closed.
    app.ask(&id).await.data(200);
    app.idle().await;
    assert_eq!(event_lines(&app, &id).await[3..], ["link_requested 2: api", "session_closed 1", "link_made 2"]);
    worker.stop().await;

    let other = app.cart().await;
    let job = app.ask_later(&other).await["jobId"].as_str().unwrap().to_owned();
    app.post(&format!("/api/jobs/{job}/cancel"), &json!({})).await.data(200);
    assert_eq!(event_lines(&app, &other).await[2..], ["link_not_made 1: job_cancelled"]);
    app.post(&format!("/api/jobs/{job}/retry"), &json!({})).await.data(200);
    let worker = app.start_worker();
    app.idle().await;
    assert_eq!(event_lines(&app, &other).await[2..], ["link_not_made 1: job_cancelled", "link_made 1"]);
    worker.stop().await;
}

#[tokio::test]
async fn the_shopper_has_a_new_checkout_made() {
    let app = start().start().await;
    let id = app.cart().await;
    app.session(&id).await;
    app.clock.advance(TimeDelta::days(2));
    assert_eq!(open_recovery_link(&app, Method::POST, &id).await, 303);
    app.clock.advance(TimeDelta::days(1)); // events of the old session may arrive any time
    let lines = event_lines(&app, &id).await;
    let without_closing: Vec<_> = lines.iter().filter(|event| !event.starts_with("session_closed")).skip(3).collect();
    assert_eq!(without_closing, ["recovery_link_opened: new_checkout", "link_requested 2: shopper", "link_made 2"]);
}

#[tokio::test]
async fn events_of_deleted_links_stay() {
    let app = start().set("CART_TTL", "400d").start().await;
    let id = app.cart().await;
    app.stripe.fail_next(Operation::Create, Fault::Refused);
    app.ask(&id).await.is_error(502, "PAYMENT_PROVIDER_ERROR");
    for _ in 0..2 {
        app.clock.advance(TimeDelta::days(2));
        app.session(&id).await;
    }
    app.clock.advance(TimeDelta::days(40));
    let links = "select count(*) from payment_links";
    let before = events(&app, &id).await;
    // Schedules may run at the same time and lock the rows, which the next run deletes.
    for _ in 0..2 {
        run(&app, &DeleteOldRecords {}).await;
        app.idle().await;
    }
    assert_eq!(sqlx::query_scalar::<_, i64>(links).fetch_one(&app.pool).await.unwrap(), 1, "the newest stays");
    let after = events(&app, &id).await;
    assert_eq!(after[..before.len()], before);
    let kinds: Vec<_> = after.iter().take(6).map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["created", "link_requested", "link_not_made", "link_requested", "link_made", "link_requested"]);
}
