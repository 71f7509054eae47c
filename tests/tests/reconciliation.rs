//! No outcome of a payment depends on an event: sessions that ended without one, and payments in
//! progress, are requested from Stripe.

mod backlogs;
mod in_progress;

use chrono::{DateTime, TimeDelta, Utc};
use common::jobs::ReconcilePayments;
use reqwest::Method;
use sandbox::stripe::{Fault, Operation};
use serde_json::{Value, json};
use tests::{App, Setup, connection, eventually};

use crate::{
    foreign_events::{COMPLETED, link_status, reason, status},
    timeline::{event_lines, open_recovery_link, run},
};

/// Runs the scheduled job.
async fn reconcile(app: &App) {
    run(app, &ReconcilePayments::default()).await;
}

/// A shop whose webhooks are all lost.
async fn without_events() -> App {
    let app = Setup::default().at("2026-03-10T22:00:00Z").start().await;
    app.stripe.send_webhooks_to(None);
    app
}

/// Moves the clock past the end of every session.
async fn end_sessions(app: &App) {
    app.clock.advance(TimeDelta::days(1));
    app.stripe.expire_due().await;
}

/// A cart with a session that a shopper paid after half an hour. No event arrives. Returns the cart,
/// the session and the time of the payment.
async fn paid(app: &App) -> (String, String, DateTime<Utc>) {
    let id = app.cart().await;
    let session = app.session(&id).await;
    app.clock.advance(TimeDelta::minutes(30));
    app.stripe.pay(&session).await.unwrap();
    (id, session, app.now())
}

fn booked(cart: &Value) -> (&Value, &Value, &Value, &Value) {
    (&cart["status"], &cart["recoveredAt"], &cart["recoveredBy"], &cart["paidValue"])
}

async fn failure_code(app: &App, cart: &str) -> Option<String> {
    let code = sqlx::query_scalar("select failure_code from payment_links where cart_id = $1");
    code.bind(cart).fetch_one(&app.pool).await.unwrap()
}

/// The reason why the operator should look at the link's session.
async fn noted(app: &App, cart: &str) -> Vec<String> {
    let reasons = "select reason from stripe_events where cart_id = $1 and reason is not null order by reason";
    sqlx::query_scalar(reasons).bind(cart).fetch_all(&app.pool).await.unwrap()
}

#[tokio::test]
async fn a_payment_whose_events_are_lost_is_booked_on_its_own_day() {
    let app = without_events().await;
    let (id, session, paid_at) = paid(&app).await;
    reconcile(&app).await;
    assert_eq!((status(&app, &id).await.as_str(), app.stripe.calls(Operation::Retrieve)), ("abandoned", 0));

    end_sessions(&app).await;
    reconcile(&app).await;
    let cart = app.show(&id).await;
    let day = json!(paid_at);
    assert_eq!(booked(&cart), (&json!("recovered"), &day, &json!("payment"), &tests::exact("99.98")));
    let recovered = async |day: &str| {
        let path = format!("/api/analytics?startDate={day}&endDate={day}");
        app.get(&path).await.data(200)["summary"]["totalRecovered"].clone()
    };
    assert_eq!((recovered("2026-03-10").await, recovered("2026-03-11").await), (json!(1), json!(0)));
    assert_eq!(event_lines(&app, &id).await[3..], ["payment_received 1", "recovered: payment"]);
    let of_link: (Option<i64>, Option<DateTime<Utc>>) =
        sqlx::query_as("select paid_minor, paid_at from payment_links").fetch_one(&app.pool).await.unwrap();
    assert_eq!(of_link, (Some(9_998), Some(paid_at)));

    // The event arrives days later after all.
    for kind in [COMPLETED, "payment_intent.succeeded"] {
        app.webhook(&app.stripe.event_of(&session, kind, |_| ())).await.data(200);
    }
    reconcile(&app).await;
    assert_eq!(app.show(&id).await, cart);
    assert_eq!((noted(&app, &id).await.len(), app.stripe.calls(Operation::Retrieve)), (0, 1));
    assert_eq!(app.stripe.calls(Operation::ListEvents), 0, "a card pays at once");
}

/// The debit was started on one day and arrived on the next, whether its session ended or was closed.
#[tokio::test]
async fn a_delayed_payment_whose_events_are_lost_counts_from_its_arrival() {
    for is_closed in [false, true] {
        let app = without_events().await;
        let id = app.cart().await;
        let session = app.session(&id).await;
        app.stripe.pay_later(&session).await.unwrap();
        app.clock.advance(TimeDelta::hours(3));
        app.stripe.money_arrives(&session, true).await.unwrap();
        let arrived_at = app.now();
        end_sessions(&app).await;
        if is_closed {
            app.patch(&format!("/api/carts/{id}"), &json!({"status": "expired"})).await.data(200);
            app.idle().await;
        } else {
            reconcile(&app).await;
        }
        let (cart, day) = (app.show(&id).await, json!(arrived_at));
        assert_eq!(booked(&cart), (&json!("recovered"), &day, &json!("payment"), &tests::exact("99.98")));
    }
}

/// With the schedule's minute, the outcome is known within two minutes of the session's end.
#[tokio::test]
async fn stripe_is_asked_twenty_seconds_after_the_end() {
    let app = without_events().await;
    let (id, ..) = paid(&app).await;
    let end: DateTime<Utc> =
        sqlx::query_scalar("select session_expires_at from payment_links").fetch_one(&app.pool).await.unwrap();
    app.clock.advance(end - app.now() + TimeDelta::seconds(20));
    reconcile(&app).await;
    assert_eq!((status(&app, &id).await.as_str(), app.stripe.calls(Operation::Retrieve)), ("abandoned", 0));
    app.clock.advance(TimeDelta::milliseconds(1));
    reconcile(&app).await;
    assert_eq!((status(&app, &id).await.as_str(), app.stripe.calls(Operation::Retrieve)), ("recovered", 1));
}

#[tokio::test]
async fn an_unpaid_session_without_an_event_ends_as_closed() {
    let app = without_events().await;
    let id = app.cart().await;
    let first = app.session(&id).await;
    end_sessions(&app).await;
    for _ in 0..2 {
        reconcile(&app).await;
        assert_eq!((status(&app, &id).await, link_status(&app, &id).await), ("abandoned".into(), "closed".into()));
        app.clock.advance(TimeDelta::minutes(5));
    }
    assert_eq!(app.stripe.calls(Operation::Retrieve), 1);
    assert_ne!(app.session(&id).await, first);
}

/// Without the right to read events, a delayed payment counts from when the shopper paid.
#[tokio::test]
async fn a_key_with_fewer_rights_finds_payments_as_well() {
    let app = without_events().await;
    let (card, _, _) = paid(&app).await;
    let debit = app.cart().await;
    let session = app.session(&debit).await;
    app.stripe.pay_later(&session).await.unwrap();
    let started_at = app.now();
    let end: DateTime<Utc> = sqlx::query_scalar("select session_expires_at from payment_links where cart_id = $1")
        .bind(&card)
        .fetch_one(&app.pool)
        .await
        .unwrap();
    end_sessions(&app).await;
    app.stripe.fail_next(Operation::Retrieve, Fault::Refused); // the payment; the session alone is allowed
    reconcile(&app).await;
    let statuses = (status(&app, &card).await, link_status(&app, &debit).await);
    assert_eq!(statuses, ("recovered".to_owned(), "processing".to_owned()));
    let recovered_at = app.show(&card).await["recoveredAt"].clone();
    // The first of the two requests was refused.
    assert!([json!(end), json!(started_at)].contains(&recovered_at), "{recovered_at}");

    app.stripe.money_arrives(&session, true).await.unwrap();
    app.clock.advance(TimeDelta::days(2));
    app.stripe.fail_next(Operation::ListEvents, Fault::Refused);
    reconcile(&app).await;
    assert_eq!(app.show(&debit).await["recoveredAt"], json!(started_at));
}

#[tokio::test]
async fn an_event_and_reconciliation_at_the_same_moment_count_once() {
    let app = without_events().await;
    let mut carts = Vec::new();
    for _ in 0..8 {
        carts.push(paid(&app).await);
    }
    end_sessions(&app).await;
    let events: Vec<Value> =
        carts.iter().map(|(_, session, _)| app.stripe.event_of(session, COMPLETED, |_| ())).collect();
    let webhooks = futures_util::future::join_all(events.iter().map(|event| app.webhook(event)));
    let (answers, ()) = tokio::join!(webhooks, reconcile(&app));
    for answer in answers {
        answer.data(200);
    }
    for ((id, ..), event) in carts.iter().zip(&events) {
        assert_eq!(event_lines(&app, id).await[3..], ["payment_received 1", "recovered: payment"]);
        assert_eq!((noted(&app, id).await.len(), reason(&app, event["id"].as_str().unwrap()).await), (0, None));
    }
    let summary = app.get("/api/analytics?period=7d").await.data(200)["summary"].clone();
    assert_eq!((&summary["totalRecovered"], &summary["recoveredByPayment"]), (&json!(8), &json!(8)));
}

/// The cart was expired, changed or deleted in SQL, so no job has closed its session.
#[tokio::test]
async fn a_payment_for_a_cart_that_has_changed_is_found() {
    for (change, became, expected) in [
        ("update carts set status = 'expired', expired_at = now()", Some("recovered"), vec![]),
        ("update carts set total_minor = total_minor + 1", Some("recovered"), vec!["cart_changed"]),
        ("update carts set status = 'recovered', recovered_at = abandoned_at", Some("recovered"), vec!["paid_twice"]),
        ("delete from carts", None, vec!["cart_deleted"]),
    ] {
        let app = without_events().await;
        let (id, _, paid_at) = paid(&app).await;
        sqlx::query(change).execute(&app.pool).await.unwrap();
        end_sessions(&app).await;
        reconcile(&app).await;
        let cart: Option<(String, DateTime<Utc>)> =
            sqlx::query_as("select status, recovered_at from carts").fetch_optional(&app.pool).await.unwrap();
        assert_eq!(cart.as_ref().map(|cart| cart.0.as_str()), became, "{change}");
        if expected != ["paid_twice"] {
            assert!(cart.is_none_or(|cart| cart.1 == paid_at), "{change}");
        }
        assert_eq!(
            (link_status(&app, &id).await.as_str(), noted(&app, &id).await),
            ("paid", expected.into_iter().map(str::to_owned).collect()),
            "{change}"
        );
        reconcile(&app).await;
        assert_eq!(app.stripe.calls(Operation::Retrieve), 1, "{change}");
    }
}

/// An operator expires the cart before the event arrives: the job that closes the session finds the
/// payment, and its time.
#[tokio::test]
async fn a_payment_found_while_its_session_is_closed_has_its_own_time() {
    let app = without_events().await;
    let (id, _, paid_at) = paid(&app).await;
    app.clock.advance(TimeDelta::hours(5));
    app.patch(&format!("/api/carts/{id}"), &json!({"status": "expired"})).await.data(200);
    app.idle().await;
    let cart = app.show(&id).await;
    assert_eq!((&cart["status"], &cart["recoveredAt"]), (&json!("recovered"), &json!(paid_at)));
}

/// The job that closes the session was given up.
#[tokio::test]
async fn a_session_that_was_never_closed_is_looked_up_after_its_end() {
    let app = without_events().await;
    let (id, _, paid_at) = paid(&app).await;
    sqlx::query("update payment_links set status = 'closing'").execute(&app.pool).await.unwrap();
    end_sessions(&app).await;
    reconcile(&app).await;
    assert_eq!((status(&app, &id).await, link_status(&app, &id).await), ("recovered".into(), "paid".into()));
    assert_eq!(app.show(&id).await["recoveredAt"], json!(paid_at));
}

/// The first run closes the link's session with this reason, and the next one leaves it alone.
async fn is_closed_at_once(app: &App, id: &str, reason: &str) {
    for _ in 0..2 {
        reconcile(app).await;
        assert_eq!((status(app, id).await, link_status(app, id).await), ("abandoned".into(), "closed".into()));
        assert_eq!(
            (failure_code(app, id).await.as_deref(), noted(app, id).await.join(" ")),
            (Some(reason), reason.to_owned())
        );
        app.clock.advance(TimeDelta::minutes(5));
    }
    assert_eq!(app.stripe.calls(Operation::Retrieve), 1);
}

#[tokio::test]
async fn a_session_of_another_amount_ends_with_its_reason() {
    let app = without_events().await;
    let (id, ..) = paid(&app).await;
    sqlx::query("update payment_links set amount_minor = amount_minor + 1").execute(&app.pool).await.unwrap();
    end_sessions(&app).await;
    is_closed_at_once(&app, &id, "other_amount").await;
}

#[tokio::test]
async fn a_session_that_stripe_does_not_know_ends_with_its_reason() {
    for progress in ["open", "processing"] {
        let app = without_events().await;
        let id = app.cart().await;
        app.session(&id).await;
        sqlx::query("update payment_links set session_id = 'cs_unknown', status = $1")
            .bind(progress)
            .execute(&app.pool)
            .await
            .unwrap();
        app.clock.advance(TimeDelta::hours(25));
        is_closed_at_once(&app, &id, "session_missing").await;
        app.session(&id).await;
    }
}

/// To a key for test mode, live sessions do not exist, so a wrong key must close nothing.
#[tokio::test]
async fn a_session_of_the_other_mode_is_left_alone() {
    let app = without_events().await;
    let id = app.cart().await;
    app.session(&id).await;
    sqlx::query("update payment_links set session_id = 'cs_live_1', livemode = true").execute(&app.pool).await.unwrap();
    app.clock.advance(TimeDelta::hours(25));
    reconcile(&app).await;
    assert_eq!(app.stripe.calls(Operation::Retrieve), 1);
    assert_eq!((link_status(&app, &id).await, noted(&app, &id).await), ("open".into(), vec![]));
}

/// The fake Stripe expands objects as Stripe does, and only these.
#[tokio::test]
async fn the_fake_stripe_expands_payments() {
    let app = without_events().await;
    let (_, session, paid_at) = paid(&app).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = async |path: String| {
        let request = client.get(format!("{}/v1/{path}", app.stripe.url())).bearer_auth("sk_test_1");
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let path = format!("checkout/sessions/{session}");
    let (_, plain) = get(path.clone()).await;
    let intent = plain["payment_intent"].as_str().unwrap();
    let (_, with_intent) = get(format!("{path}?expand[]=payment_intent")).await;
    assert_eq!(with_intent["payment_intent"]["id"], json!(intent));
    assert!(with_intent["payment_intent"]["latest_charge"].is_string());
    let (_, with_charge) = get(format!("{path}?expand[]=payment_intent.latest_charge")).await;
    assert_eq!(with_charge["payment_intent"]["latest_charge"]["created"], json!(paid_at.timestamp()));
    let (_, list) = get("checkout/sessions?expand[]=data.payment_intent.latest_charge".to_owned()).await;
    assert_eq!(list["data"][0], with_charge);
    assert_eq!(get(format!("{path}?expand[]=lines")).await.0, 400);
}
