use chrono::TimeDelta;
use sandbox::stripe::sign;
use serde_json::{Value, json};
use tests::{
    App, Setup,
    events::{effect, event, expired, intent, session},
    eventually,
};

#[tokio::test]
async fn repeated_payment_events_recover_the_cart_once() {
    let app = App::new().await;
    let id = app.cart().await;
    let link = app.session(&id).await;
    let deliveries = app.stripe.pay(&link).await.unwrap();
    assert!(deliveries.iter().all(|delivery| delivery.status == Some(200)), "{deliveries:?}");
    let recovered = app.show(&id).await;
    assert_eq!((&recovered["status"], &recovered["paymentLink"]), (&json!("recovered"), &Value::Null));
    app.clock.now();
    for (n, kind) in
        ["checkout.session.completed", "payment_intent.succeeded", "checkout.session.completed"].iter().enumerate()
    {
        let mut event = app.stripe.event_of(&link, kind, |_| ());
        event["id"] = json!(format!("evt_{n}"));
        for _ in 0..3 {
            app.webhook(&event).await.data(200);
        }
    }
    assert_eq!(app.show(&id).await, recovered);
    assert_eq!(effect(&app, "evt_0").await, "already_recovered");
    assert_eq!(app.get("/api/analytics?period=7d").await.data(200)["summary"]["totalRecovered"], json!(1));
}

#[tokio::test]
async fn twenty_deliveries_of_one_event_at_once_take_effect_once() {
    let app = std::sync::Arc::new(App::new().await);
    let id = app.cart().await;
    let event = event("evt_same", "payment_intent.succeeded", &intent(&app.session(&id).await, &id));
    let sent: Vec<_> = (0..20)
        .map(|_| {
            let (app, event) = (app.clone(), event.clone());
            tokio::spawn(async move { app.webhook(&event).await.data(200) })
        })
        .collect();
    for sent in sent {
        sent.await.unwrap();
    }
    assert_eq!(app.show(&id).await["status"], "recovered");
    assert_eq!(effect(&app, "evt_same").await, "recovered");
    let events: i64 = sqlx::query_scalar("select count(*) from stripe_events").fetch_one(&app.pool).await.unwrap();
    assert_eq!(events, 1);
}

/// Two apis have the same event at once. It has no cart, whose lock would let the second wait.
#[tokio::test]
async fn an_event_that_another_api_is_storing_is_stored_once() {
    let app = std::sync::Arc::new(Setup::default().without_worker().start().await);
    let mut other = app.pool.begin().await.unwrap();
    sqlx::query(
        "insert into stripe_events (id, kind, created_at, received_at, effect)
         values ('evt_same', 'customer.created', now(), now(), 'none')",
    )
    .execute(&mut *other)
    .await
    .unwrap();
    let sent = tokio::spawn({
        let app = app.clone();
        async move { app.webhook(&event("evt_same", "customer.created", &json!({"id": "cus_1"}))).await.data(200) }
    });
    eventually("it waits", async || {
        let waits = "select exists (select from pg_stat_activity where datname = current_database() and wait_event = 'transactionid')";
        sqlx::query_scalar(waits).fetch_one(&app.pool).await.unwrap()
    })
    .await;
    other.commit().await.unwrap();
    sent.await.unwrap();
    let events: i64 = sqlx::query_scalar("select count(*) from stripe_events").fetch_one(&app.pool).await.unwrap();
    assert_eq!(events, 1);
}

#[tokio::test]
async fn an_event_of_an_old_api_version_is_understood() {
    let app = App::new().await;
    let id = app.cart().await;
    // Stripe added mode, amounts, currency and payment_status to every version; `status` is newer
    // than this one.
    let mut object = session(&app.session(&id).await, &id, "paid");
    object.as_object_mut().unwrap().remove("status");
    object["display_items"] = json!([{"amount": 4999, "currency": "usd", "quantity": 2}]);
    let mut old = event("evt_old", "checkout.session.completed", &object);
    old["api_version"] = json!("2019-03-14");
    app.webhook(&old).await.data(200);
    assert_eq!(app.show(&id).await["status"], "recovered");
}

#[tokio::test]
async fn delayed_payments_count_once_they_arrive() {
    let app = App::new().await;
    let id = app.cart().await;
    let link = app.session(&id).await;
    app.stripe.pay_later(&link).await.unwrap();
    assert_eq!(app.show(&id).await["status"], "abandoned");
    app.patch(&format!("/api/carts/{id}"), &json!({"status": "expired"})).await.data(200);
    app.stripe.money_arrives(&link, true).await.unwrap();
    let cart = app.show(&id).await;
    assert_eq!(
        (&cart["status"], &cart["expiredAt"]),
        (&json!("recovered"), &Value::Null),
        "late money recovers an expired cart"
    );
}

#[tokio::test]
async fn events_in_any_order() {
    let app = App::new().await;
    // The end of a delayed payment arrives before its beginning.
    let id = app.cart().await;
    let link = app.session(&id).await;
    let unpaid = session(&link, &id, "unpaid");
    app.webhook(&event("evt_1", "checkout.session.async_payment_failed", &unpaid)).await.data(200);
    app.webhook(&event("evt_2", "checkout.session.completed", &unpaid)).await.data(200);
    assert_eq!(
        (effect(&app, "evt_1").await, effect(&app, "evt_2").await),
        ("payment_failed".to_owned(), "none".to_owned())
    );
    app.session(&id).await; // the cart can have a new link

    let id = app.cart().await;
    let link = app.session(&id).await;
    let paid = session(&link, &id, "paid");
    app.webhook(&event("evt_3", "checkout.session.async_payment_succeeded", &paid)).await.data(200);
    app.webhook(&event("evt_4", "checkout.session.completed", &session(&link, &id, "unpaid"))).await.data(200);
    app.webhook(&event("evt_5", "checkout.session.expired", &expired(&link, &id))).await.data(200);
    assert_eq!(app.show(&id).await["status"], "recovered");
    assert_eq!(effect(&app, "evt_4").await, "none");
}

#[tokio::test]
async fn an_expired_session_reads_as_no_link() {
    let app = App::new().await;
    let id = app.cart().await;
    let first = app.session(&id).await;
    app.webhook(&event("evt_1", "checkout.session.expired", &expired(&first, &id))).await.data(200);
    assert_eq!(app.show(&id).await["paymentLink"], Value::Null);
    assert_ne!(app.session(&id).await, first);
}

#[tokio::test]
async fn unknown_events_are_acknowledged_and_stored_without_personal_data() {
    let app = Setup::default().without_worker().start().await;
    let customer = json!({"id": "cus_1", "email": "ada@example.com", "name": "Ada"});
    app.webhook(&event("evt_kind", "customer.created", &customer)).await.data(200);
    app.webhook(&event("evt_cart", "checkout.session.completed", &session("cs_1", "cart_gone", "paid")))
        .await
        .data(200);
    app.webhook(&event("evt_none", "payment_intent.succeeded", &json!({"id": "pi_1"}))).await.data(200);
    let foreign = session("cs_2", "ada@example.com", "paid"); // of another tool on the same account
    app.webhook(&event("evt_foreign", "checkout.session.completed", &foreign)).await.data(200);
    assert_eq!(effect(&app, "evt_foreign").await, "unknown_cart");
    assert_eq!(effect(&app, "evt_kind").await, "none");
    assert_eq!(effect(&app, "evt_cart").await, "unknown_cart");
    assert_eq!(effect(&app, "evt_none").await, "unknown_cart");
    let personal: i64 = sqlx::query_scalar("select count(*) from stripe_events e where e::text ~* '\\mada\\M'")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    assert_eq!(personal, 0);
}

#[tokio::test]
async fn the_time_of_recovery_is_stripes_within_limits() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").start().await;
    for (created, expected) in [
        ("2026-03-10T12:30:00Z", "2026-03-10T12:30:00Z"),
        ("2020-01-01T00:00:00Z", "2026-03-10T12:00:00Z"), // before it was abandoned
        ("2030-01-01T00:00:00Z", "2026-03-10T13:00:00Z"), // in the future
    ] {
        let app_time = app.now();
        let id = app.cart().await;
        let link = app.session(&id).await;
        app.clock.advance(TimeDelta::hours(1));
        let mut event = event(created, "checkout.session.completed", &session(&link, &id, "paid"));
        event["created"] = json!(created.parse::<chrono::DateTime<chrono::Utc>>().unwrap().timestamp());
        app.webhook(&event).await.data(200);
        assert_eq!(app.show(&id).await["recoveredAt"], json!(expected), "told {created}");
        app.clock.advance(app_time - app.now());
    }
}

/// Found by schemathesis: such an event returned 500, and Stripe would have retried it for days.
#[tokio::test]
async fn an_out_of_range_time_becomes_the_time_of_arrival() {
    let app = App::new().await;
    for (n, created) in [-278_743_831_108_i64, 253_402_300_800, i64::MAX].into_iter().enumerate() {
        let id = app.cart().await;
        let paid = session(&app.session(&id).await, &id, "paid");
        let mut event = event(&format!("evt_{n}"), "checkout.session.completed", &paid);
        event["created"] = json!(created);
        app.webhook(&event).await.data(200);
        assert_eq!(app.show(&id).await["status"], "recovered", "{created}");
    }
}

#[tokio::test]
async fn forged_old_and_broken_deliveries_are_refused() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").start().await;
    let id = app.cart().await;
    let link = app.session(&id).await;
    let body = event("evt_1", "checkout.session.completed", &session(&link, &id, "paid")).to_string();
    let now = app.now().timestamp();
    let good = sign(&body, "whsec_test", now);
    let refused = [
        sign(&body, "whsec_wrong", now),
        sign(&body, "whsec_test", now - 301),
        sign(&body, "whsec_test", now + 301),
        sign(&format!("{body} "), "whsec_test", now),
        good.replace(&format!("t={now}"), &format!("t={}", now - 1)),
        format!("t={now}"),
        "v1=00".to_owned(),
        String::new(),
    ];
    for signature in refused {
        app.signed_webhook(&body, &signature).await.is_error(400, "BAD_REQUEST");
    }
    for broken in ["{}", "[]", "not json", r#"{"id":"evt_1"}"#, r#"{"type":"x"}"#] {
        app.signed_webhook(broken, &sign(broken, "whsec_test", now)).await.is_error(400, "BAD_REQUEST");
    }
    let large = " ".repeat(1024 * 1024 + 1);
    app.signed_webhook(&large, &sign(&large, "whsec_test", now)).await.is_error(413, "PAYLOAD_TOO_LARGE");
    assert_eq!(app.show(&id).await["status"], "abandoned");

    // Several signatures, and both secrets during a rotation.
    let other = sign(&body, "whsec_other", now - 299);
    app.signed_webhook(&body, &format!("{other},v1=00ff,v0=1")).await.data(200);
    assert_eq!(app.show(&id).await["status"], "recovered");
}

/// The event may arrive before the response that created the session, or instead of it.
#[tokio::test]
async fn delayed_payments_are_recorded_before_their_session() {
    let app = Setup::default().without_worker().set("PAYMENT_LINK_WAIT", "10ms").start().await;
    let status = async |id: &str| -> String {
        sqlx::query_scalar("select status from payment_links where cart_id = $1")
            .bind(id)
            .fetch_one(&app.pool)
            .await
            .unwrap()
    };
    let (pending, settling) = (app.cart().await, app.cart().await);
    for id in [&pending, &settling] {
        app.ask(id).await.data(202);
    }
    sqlx::query("update payment_links set attempted_at = now(), status = case when cart_id = $1 then 'settling' else status end")
        .bind(&settling)
        .execute(&app.pool)
        .await
        .unwrap();
    for (n, id) in [&pending, &settling].into_iter().enumerate() {
        let unpaid = session(&format!("cs_early_{n}"), id, "unpaid");
        let completed = event(&format!("evt_c{n}"), "checkout.session.completed", &unpaid);
        app.webhook(&completed).await.data(200);
        assert_eq!(status(id).await, "processing");
        app.ask(id).await.is_error(409, "CONFLICT");
        let failed = event(&format!("evt_f{n}"), "checkout.session.async_payment_failed", &unpaid);
        app.webhook(&failed).await.data(200);
        assert_eq!(status(id).await, "payment_failed");
    }
}
