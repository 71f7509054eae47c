//! `POST /api/carts/:id/recovery-link`: the link for mails, without Stripe.

use chrono::{DateTime, TimeDelta, Utc};
use sandbox::stripe::Operation;
use serde_json::json;
use tests::{App, Setup, a_line};

use crate::pay_page::{go_on, open};

#[tokio::test]
async fn a_recovery_link_needs_no_stripe() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").set("PAYMENT_LINK_TTL", "3d").start().await;
    let id = app.cart().await;
    let link = app.extend(&id).await.data(200);
    let fields: Vec<&String> = link.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["recoveryExpiresAt", "recoveryUrl"]);
    let end = |link: &serde_json::Value| link["recoveryExpiresAt"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    assert_eq!(end(&link), app.now() + TimeDelta::days(3));
    app.idle().await;
    assert_eq!(app.stripe.calls(Operation::Create), 0);
    assert_eq!(app.show(&id).await["paymentLink"], json!(null));

    // The same link, for longer.
    app.clock.advance(TimeDelta::days(2));
    let again = app.extend(&id).await.data(200);
    assert_eq!(again["recoveryUrl"], link["recoveryUrl"]);
    assert_eq!(end(&again), app.now() + TimeDelta::days(3));

    let path = again["recoveryUrl"].as_str().unwrap().strip_prefix(&app.url("")).unwrap().to_owned();
    assert_eq!(open(&app, &path).await.status, 200);
    assert_eq!(app.stripe.calls(Operation::Create), 0);
    assert_eq!(go_on(&app, &path).await.status, 303);
    assert_eq!(app.stripe.calls(Operation::Create), 1);
    // A payment link has the same.
    assert_eq!(app.ask(&id).await.data(200)["recoveryUrl"], link["recoveryUrl"]);
}

#[tokio::test]
async fn carts_that_can_not_be_paid_have_no_link() {
    let app = App::new().await;
    let paying = app.cart().await;
    app.stripe.pay_later(&app.session(&paying).await).await.unwrap();
    app.idle().await;
    app.extend(&paying).await.is_error(409, "CONFLICT");
    for status in ["expired", "recovered"] {
        let id = app.cart().await;
        app.patch(&format!("/api/carts/{id}"), &json!({"status": status})).await.data(200);
        app.extend(&id).await.is_error(409, "CONFLICT");
    }
    let tiny = app.cart_of(&a_line(json!({"items": [{"name": "Pin", "quantity": 1, "price": 0.01}]}))).await;
    app.extend(&tiny).await.is_error(422, "VALIDATION_ERROR");
    for unknown in ["cart_unknown", "x", "%00"] {
        app.extend(unknown).await.is_error(404, "NOT_FOUND");
    }
    let links: i64 = sqlx::query_scalar("select count(*) from recovery_links").fetch_one(&app.pool).await.unwrap();
    assert_eq!(links, 1, "refused requests make none");
}

#[tokio::test]
async fn twenty_requests_at_once_get_one_link() {
    let app = Setup::default().without_worker().start().await;
    let id = app.cart().await;
    let answers = futures_util::future::join_all((0..20).map(|_| app.extend(&id))).await;
    let urls: std::collections::HashSet<String> =
        answers.into_iter().map(|answer| answer.data(200)["recoveryUrl"].as_str().unwrap().to_owned()).collect();
    assert_eq!(urls.len(), 1);
}
