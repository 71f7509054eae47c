//! Refunds in any order with each other and with their payment.

use std::sync::Arc;

use common::{carts, jobs::ReconcilePayments, stripe_events};
use serde_json::{Value, json};
use tests::{
    App,
    events::{charge, dispute, event, intent, later, session},
    exact, transaction,
};

use super::{REFUNDED, afterwards, refunded, refunds_of_period};
use crate::{
    early_events::{asked, without_worker},
    foreign_events::{COMPLETED, outcome, status},
    timeline::{events, run, start},
};

/// The time of an event decides, at equal times the larger amount.
#[tokio::test]
async fn refund_events_in_any_order_count_once() {
    let app = App::new().await;
    for (round, order) in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]].into_iter().enumerate() {
        let id = app.cart().await;
        let link = app.session(&id).await;
        app.webhook(&event(&format!("evt_{round}"), COMPLETED, &session(&link, &id, "paid"))).await.data(200);
        for place in order {
            let (amount, seconds) = [(1_000, 10), (2_500, 20), (3_000, 20)][place];
            for repeat in 0..2 {
                let name = format!("evt_{round}_{place}_{repeat}");
                let event = later(event(&name, REFUNDED, &charge(&link, &id, amount)), seconds);
                for _ in 0..2 {
                    app.webhook(&event).await.data(200);
                }
            }
        }
        assert_eq!(refunded(&app, &id).await, exact("30.00"), "{order:?}");
        let told: f64 = events(&app, &id).await.iter().filter_map(|event| event["details"]["amount"].as_f64()).sum();
        assert!((told - 30.0).abs() < 0.001, "{order:?}");
    }
    assert_eq!(refunds_of_period(&app).await, exact("120.00"));
}

/// A PaymentIntent leads to the payment, whatever metadata an event has.
#[tokio::test]
async fn a_refund_may_arrive_before_its_payment() {
    let app = without_worker().await;
    for (n, kind) in [COMPLETED, "payment_intent.succeeded"].into_iter().enumerate() {
        let (id, link) = (asked(&app).await, format!("cs_early_{n}"));
        let early = event(&format!("evt_back_{n}"), REFUNDED, &charge(&link, &id, 4_999));
        assert_eq!(outcome(&app, &early).await, ("unmatched".to_owned(), None));
        assert_eq!((status(&app, &id).await, refunded(&app, &id).await), ("abandoned".to_owned(), Value::Null));
        let payment = if kind == COMPLETED { session(&link, &id, "paid") } else { intent(&link, &id) };
        let arrived = event(&format!("evt_paid_{n}"), kind, &payment);
        assert_eq!(outcome(&app, &arrived).await, ("recovered".to_owned(), None));
        assert_eq!(refunded(&app, &id).await, exact("49.99"));
        assert_eq!(afterwards(&app, &id).await, ["refunded 1"]);
    }
}

/// The shop refunds a bank debit while the money is on its way: a refund before the last event.
#[tokio::test]
async fn a_refund_of_a_payment_in_progress_counts_once_it_arrives() {
    let app = App::new().await;
    let id = app.cart().await;
    let link = app.session(&id).await;
    app.webhook(&event("evt_1", COMPLETED, &session(&link, &id, "unpaid"))).await.data(200);
    let back = event("evt_2", REFUNDED, &charge(&link, &id, 100));
    assert_eq!(outcome(&app, &back).await, ("refunded".to_owned(), None));
    app.patch(&format!("/api/carts/{id}"), &json!({"status": "expired"})).await.data(200);
    assert_eq!(refunded(&app, &id).await, Value::Null);
    let arrived = event("evt_3", "checkout.session.async_payment_succeeded", &session(&link, &id, "paid"));
    assert_eq!(outcome(&app, &arrived).await, ("recovered".to_owned(), None));
    assert_eq!(refunded(&app, &id).await, exact("1.00"));
}

/// The worker found the payment in a response of Stripe, and an event told of the refund before.
#[tokio::test]
async fn a_refund_of_a_payment_found_without_an_event_is_booked() {
    let app = start().start().await;
    let id = app.cart().await;
    let link = app.session(&id).await;
    app.stripe.send_webhooks_to(None);
    app.stripe.pay(&link).await.unwrap();
    let back = app.stripe.event_of(&link, REFUNDED, |session| session.refund(2_000).unwrap());
    assert_eq!(outcome(&app, &back).await, ("unmatched".to_owned(), None));
    app.patch(&format!("/api/carts/{id}"), &json!({"status": "expired"})).await.data(200);
    app.idle().await; // closing the session finds the payment
    run(&app, &ReconcilePayments::default()).await;
    assert_eq!((status(&app, &id).await, refunded(&app, &id).await), ("recovered".to_owned(), exact("20.00")));
    assert_eq!(afterwards(&app, &id).await, ["refunded 1"]);
    run(&app, &ReconcilePayments::default()).await;
    assert_eq!(afterwards(&app, &id).await, ["refunded 1"], "booked once");
}

#[tokio::test]
async fn a_refund_of_a_locked_cart_is_booked_later() {
    let app = without_worker().await;
    let id = asked(&app).await;
    app.webhook(&event("evt_1", COMPLETED, &session("cs_1", &id, "paid"))).await.data(200);
    let late = charge("cs_2", &id, 2_000);
    assert_eq!(outcome(&app, &event("evt_2", REFUNDED, &late)).await, ("unmatched".to_owned(), None));
    sqlx::query("update payment_links set payment_intent = 'pi_of_cs_2'").execute(&app.pool).await.unwrap();
    let book = async || {
        let mut tx = transaction(&app.pool).await;
        let booked = stripe_events::match_reversals(&mut tx, app.now()).await.unwrap();
        tx.commit().await.unwrap();
        (booked, refunded(&app, &id).await)
    };
    let mut other = transaction(&app.pool).await;
    carts::lock(&mut other, &id.parse().unwrap()).await.unwrap();
    assert_eq!(book().await, (0, Value::Null));
    other.rollback().await.unwrap();
    assert_eq!(book().await, (1, exact("20.00")));
    assert_eq!(book().await, (0, exact("20.00")));
}

/// The transaction of the newer refund does not see the link that the older one is matched with.
#[tokio::test]
async fn a_refund_that_races_the_match_of_an_older_one_is_booked() {
    let app = without_worker().await;
    let id = asked(&app).await;
    app.webhook(&event("evt_1", COMPLETED, &session("cs_1", &id, "paid"))).await.data(200);
    for (number, intent, cents, booked) in [(2, "pi_of_cs_2", 1_000, "10.00"), (3, "pi_of_cs_2", 2_000, "20.00")] {
        let set = "update payment_links set payment_intent = $1";
        sqlx::query(set).bind(None::<&str>).execute(&app.pool).await.unwrap();
        let refund = event(&format!("evt_{number}"), REFUNDED, &charge("cs_2", &id, cents));
        assert_eq!(outcome(&app, &refund).await, ("unmatched".to_owned(), None));
        sqlx::query(set).bind(intent).execute(&app.pool).await.unwrap();
        let mut tx = transaction(&app.pool).await;
        stripe_events::match_reversals(&mut tx, app.now()).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(refunded(&app, &id).await, exact(booked));
    }
}

/// Neither transaction sees what the other one stores: a job books the refund afterwards.
#[tokio::test]
async fn refunds_and_disputes_that_race_their_payment_are_booked_once() {
    let app = Arc::new(App::new().await);
    let mut carts = Vec::new();
    for _ in 0..8 {
        let id = app.cart().await;
        let link = app.session(&id).await;
        let events = [
            event(&format!("evt_1_{link}"), COMPLETED, &session(&link, &id, "paid")),
            event(&format!("evt_2_{link}"), "payment_intent.succeeded", &intent(&link, &id)),
            event(&format!("evt_3_{link}"), REFUNDED, &charge(&link, &id, 1_000)),
            later(event(&format!("evt_4_{link}"), REFUNDED, &charge(&link, &id, 2_000)), 1),
            event(&format!("evt_5_{link}"), "charge.dispute.created", &dispute("du_1", &link, 500, "needs_response")),
            later(event(&format!("evt_6_{link}"), "charge.dispute.closed", &dispute("du_1", &link, 500, "lost")), 1),
        ];
        let events = events.map(|mut event| {
            let id = event["data"]["object"]["id"].as_str().unwrap().replace("du_1", &format!("du_{link}"));
            event["data"]["object"]["id"] = json!(id);
            event
        });
        let sent = events.map(|event| {
            let app = app.clone();
            tokio::spawn(async move { app.webhook(&event).await.data(200) })
        });
        for sent in sent {
            sent.await.unwrap();
        }
        carts.push(id);
    }
    run(&app, &ReconcilePayments::default()).await;
    for id in &carts {
        assert_eq!(refunded(&app, id).await, exact("25.00"));
        let lost = afterwards(&app, id).await.iter().filter(|line| *line == "dispute_lost 1").count();
        assert_eq!(lost, 1);
    }
    assert_eq!(refunds_of_period(&app).await, exact("200.00"));
}
