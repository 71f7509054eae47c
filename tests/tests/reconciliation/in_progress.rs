//! Payments in progress: bank debits, whose last event may be lost.

use super::*;

/// The last event of a bank debit is lost, whichever way it ends.
#[tokio::test]
async fn a_payment_in_progress_for_more_than_a_day_is_looked_up() {
    for arrives in [true, false] {
        let app = Setup::default().at("2026-03-10T22:00:00Z").start().await;
        let id = app.cart().await;
        let session = app.session(&id).await;
        app.stripe.pay_later(&session).await.unwrap();
        app.clock.advance(TimeDelta::hours(3));
        app.stripe.fail_next(Operation::Payment, Fault::Lost);
        app.stripe.money_arrives(&session, arrives).await.unwrap();
        let ended_at = app.now();
        app.clock.advance(TimeDelta::hours(20));
        reconcile(&app).await;
        assert_eq!((link_status(&app, &id).await.as_str(), app.stripe.calls(Operation::Retrieve)), ("processing", 0));
        app.clock.advance(TimeDelta::hours(2));
        reconcile(&app).await;
        let cart = app.show(&id).await;
        if arrives {
            let day = json!(ended_at);
            assert_eq!(booked(&cart), (&json!("recovered"), &day, &json!("payment"), &tests::exact("99.98")));
        } else {
            assert_eq!(
                (cart["status"].as_str(), link_status(&app, &id).await.as_str()),
                (Some("abandoned"), "payment_failed")
            );
            assert_eq!(event_lines(&app, &id).await[3..], ["payment_processing 1", "payment_failed 1"]);
            app.session(&id).await;
        }
    }
}

#[tokio::test]
async fn a_payment_that_stays_in_progress_is_looked_up_daily() {
    let app = without_events().await;
    let id = app.cart().await;
    let session = app.session(&id).await;
    app.stripe.pay_later(&session).await.unwrap();
    end_sessions(&app).await;
    let mut calls = Vec::new();
    for _ in 0..6 {
        reconcile(&app).await;
        assert_eq!(link_status(&app, &id).await, "processing");
        calls.push(app.stripe.calls(Operation::Retrieve));
        app.clock.advance(TimeDelta::hours(13));
    }
    assert_eq!(calls, [1, 1, 2, 2, 3, 3]);
    assert_eq!(event_lines(&app, &id).await[3..], ["payment_processing 1"]);
    app.stripe.money_arrives(&session, true).await.unwrap();
    let arrived_at = app.now();
    app.clock.advance(TimeDelta::hours(1));
    reconcile(&app).await;
    assert_eq!(app.show(&id).await["recoveredAt"], json!(arrived_at));
}

#[tokio::test]
async fn a_request_for_a_link_looks_up_the_payment_in_progress() {
    for arrives in [true, false] {
        let app = Setup::default().at("2026-03-10T22:00:00Z").start().await;
        let id = app.cart().await;
        let session = app.session(&id).await;
        app.stripe.pay_later(&session).await.unwrap();
        for calls in [1, 1] {
            app.ask(&id).await.is_error(409, "CONFLICT");
            assert_eq!(app.stripe.calls(Operation::Retrieve), calls, "at most once a minute");
        }
        app.clock.advance(TimeDelta::seconds(61));
        app.stripe.fail_next(Operation::Payment, Fault::Lost);
        app.stripe.money_arrives(&session, arrives).await.unwrap();
        let ended_at = app.now();
        let asked = app.ask(&id).await;
        if arrives {
            let message = asked.is_error(409, "CONFLICT")["message"].as_str().unwrap().to_owned();
            assert_eq!(message, "The cart is recovered, not abandoned");
            assert_eq!(app.show(&id).await["recoveredAt"], json!(ended_at));
        } else {
            assert_ne!(asked.data(200)["paymentLink"], json!(format!("{}/c/pay/{session}", app.stripe.url())));
        }
        assert_eq!(app.stripe.calls(Operation::Retrieve), 2);
        let payload: Value =
            sqlx::query_scalar("select payload from jobs where kind = 'reconcile_payments' and slot is null limit 1")
                .fetch_one(&app.pool)
                .await
                .unwrap();
        assert_eq!(payload, json!({"cartId": id}));
    }
}

#[tokio::test]
async fn a_shopper_who_returns_finds_out_that_the_payment_ended() {
    let app = Setup::default().at("2026-03-10T22:00:00Z").start().await;
    let id = app.cart().await;
    let session = app.session(&id).await;
    app.stripe.pay_later(&session).await.unwrap();
    app.stripe.fail_next(Operation::Payment, Fault::Lost);
    app.stripe.money_arrives(&session, true).await.unwrap();
    assert_eq!(open_recovery_link(&app, Method::HEAD, &id).await, 200);
    app.idle().await;
    assert_eq!(app.stripe.calls(Operation::Retrieve), 0);
    assert_eq!(open_recovery_link(&app, Method::GET, &id).await, 200);
    eventually("the cart is recovered", async || status(&app, &id).await == "recovered").await;
    assert_eq!(open_recovery_link(&app, Method::GET, &id).await, 410);
}
