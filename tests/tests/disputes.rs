//! Disputes: a lost one counts, a won one doesn't, an open one doesn't yet.

use chrono::TimeDelta;
use serde_json::{Value, json};
use tests::{
    App,
    events::{charge, dispute, event, later, session},
    exact,
};

use crate::{
    dashboard::Operator,
    foreign_events::{COMPLETED, outcome, refused, status},
    refunds::{REFUNDED, afterwards, paid, refunded, refunds_of_period},
    timeline::{events, start},
};

const CREATED: &str = "charge.dispute.created";
const CLOSED: &str = "charge.dispute.closed";

/// A cart that was paid by an event, and its session.
async fn paid_by_event(app: &App) -> (String, String) {
    let id = app.cart().await;
    let link = app.session(&id).await;
    app.webhook(&event(&format!("evt_paid_{link}"), COMPLETED, &session(&link, &id, "paid"))).await.data(200);
    (id, link)
}

async fn overview(app: &App) -> String {
    Operator::sign_in(app, "test-key").await.get("/").await.text
}

#[tokio::test]
async fn a_dispute_counts_once_it_is_lost() {
    let app = start().start().await;
    let (id, link) = paid(&app).await;
    app.clock.advance(TimeDelta::days(3));
    app.stripe.dispute(&link, None).await.unwrap();
    assert!(app.stripe.refund(&link, Some(100)).await.is_err(), "it can't be refunded meanwhile");
    assert_eq!(refunded(&app, &id).await, Value::Null);
    let page = overview(&app).await;
    assert!(page.contains("Open dispute about $99.98") && page.contains(&format!("/carts/{id}")), "{page}");
    app.clock.advance(TimeDelta::days(30));
    app.stripe.close_dispute(&link, false).await.unwrap();
    let cart = app.show(&id).await;
    assert_eq!((&cart["status"], &cart["refundedValue"]), (&json!("recovered"), &exact("99.98")));
    assert!(!overview(&app).await.contains("Open dispute"));
    assert_eq!(afterwards(&app, &id).await, ["dispute_opened 1", "dispute_lost 1"]);
    let lost = events(&app, &id).await.pop().unwrap();
    let dispute = app.stripe.sessions()[0].charge.disputes[0].id.clone();
    assert_eq!((&lost["details"]["amount"], &lost["details"]["dispute"]), (&exact("99.98"), &json!(dispute)));

    // The shopper withdraws it afterwards.
    app.clock.advance(TimeDelta::days(1));
    app.stripe.close_dispute(&link, true).await.unwrap();
    assert_eq!(refunded(&app, &id).await, Value::Null);
    assert_eq!(afterwards(&app, &id).await, ["dispute_opened 1", "dispute_lost 1", "dispute_won 1"]);
}

#[tokio::test]
async fn dispute_events_in_any_order_count_once() {
    let app = App::new().await;
    let of = |link: &str, status: &str, seconds: i64| {
        let kind = if status == "needs_response" { CREATED } else { CLOSED };
        let name = format!("evt_{link}_{status}_{seconds}");
        later(event(&name, kind, &dispute(&format!("du_{link}"), link, 5_000, status)), seconds)
    };
    for (status, value) in [("lost", exact("50.00")), ("won", Value::Null), ("warning_closed", Value::Null)] {
        // Stripe closes some disputes at once, so that both events may be of the same second.
        for closed_at in [60, 0] {
            for closed_first in [false, true] {
                let (id, link) = paid_by_event(&app).await;
                let mut both = [of(&link, "needs_response", 0), of(&link, status, closed_at)];
                if closed_first {
                    both.reverse();
                }
                for event in both.iter().chain(&both) {
                    app.webhook(event).await.data(200);
                }
                assert_eq!(refunded(&app, &id).await, value, "{status}, {closed_at}, {closed_first}");
                let told = afterwards(&app, &id).await;
                let closed = if status == "lost" { "dispute_lost 1" } else { "dispute_won 1" };
                assert_eq!(told.last().map(String::as_str), Some(closed));
                assert_eq!(told.len(), if closed_first { 1 } else { 2 }, "{told:?}");
            }
        }
    }
    assert!(!overview(&app).await.contains("Open dispute"));
}

/// Two disputes about parts, after a partial refund: together more than the payment.
#[tokio::test]
async fn several_disputes_after_a_refund() {
    let app = App::new().await;
    let (id, link) = paid_by_event(&app).await;
    app.webhook(&event("evt_back", REFUNDED, &charge(&link, &id, 2_000))).await.data(200);
    let closed = |id: &str, amount, status| event(&format!("evt_{id}"), CLOSED, &dispute(id, &link, amount, status));
    assert_eq!(outcome(&app, &closed("du_1", 9_998, "lost")).await, ("disputed".to_owned(), None));
    assert_eq!(refunded(&app, &id).await, exact("119.98"));
    app.webhook(&closed("du_2", 500, "won")).await.data(200);
    app.webhook(&closed("du_3", 500, "lost")).await.data(200);
    assert_eq!(refunded(&app, &id).await, exact("124.98"));
    assert_eq!(afterwards(&app, &id).await.len(), 4);
}

/// A dispute has no metadata: it waits for the PaymentIntent.
#[tokio::test]
async fn a_dispute_may_arrive_before_its_payment() {
    let app = App::new().await;
    let id = app.cart().await;
    let link = app.session(&id).await;
    let opened = event("evt_1", CREATED, &dispute("du_1", &link, 9_998, "needs_response"));
    let lost = later(event("evt_2", CLOSED, &dispute("du_1", &link, 9_998, "lost")), 60);
    for event in [&lost, &opened] {
        assert_eq!(outcome(&app, event).await, ("unmatched".to_owned(), None));
    }
    assert!(!overview(&app).await.contains("Open dispute"));
    app.webhook(&event("evt_3", COMPLETED, &session(&link, &id, "paid"))).await.data(200);
    assert_eq!((status(&app, &id).await, refunded(&app, &id).await), ("recovered".to_owned(), exact("99.98")));
    assert_eq!(afterwards(&app, &id).await, ["dispute_lost 1"]);
}

#[tokio::test]
async fn disputes_that_do_not_fit_change_nothing() {
    let app = App::new().await;
    let (id, link) = paid_by_event(&app).await;
    let cases: [(&str, Value, &str); 6] = [
        ("currency", json!("eur"), "other_currency"),
        ("livemode", json!(true), "other_livemode"),
        ("amount", Value::Null, "other_amount"),
        ("status", Value::Null, "status"),
        ("status", json!(1), "status"),
        ("object", json!("charge"), "other_object"),
    ];
    for (n, (field, value, reason)) in cases.into_iter().enumerate() {
        let mut object = dispute(&format!("du_{n}"), &link, 9_998, "lost");
        object[field] = value.clone();
        let event = event(&format!("evt_{n}"), CLOSED, &object);
        assert_eq!(outcome(&app, &event).await, refused("mismatch", reason), "{field} = {value}");
    }
    assert_eq!((refunded(&app, &id).await, afterwards(&app, &id).await), (Value::Null, Vec::new()));
    assert_eq!(refunds_of_period(&app).await, exact("0.00"));
}
