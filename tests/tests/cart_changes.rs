//! PATCH of a cart's contents, and what becomes of its payment link.

use std::sync::Arc;

use chrono::TimeDelta;
use sandbox::stripe::SessionStatus;
use serde_json::{Value, json};
use tests::{App, Setup, a_line, eventually, exact};

#[tokio::test]
async fn absent_fields_stay_and_null_clears() {
    let app = Setup::default().at("2026-03-01T10:00:00Z").without_worker().start().await;
    let body = a_line(json!({
        "externalId": "order-1", "locale": "de", "acceptsMarketing": true, "metadata": {"a": "1"},
        "adjustments": [{"name": "Shipping", "amount": 4.9}],
    }));
    let created = app.post("/api/carts", &body).await.data(201);
    let path = format!("/api/carts/{}", created["id"].as_str().unwrap());
    app.clock.advance(TimeDelta::minutes(1));
    let mut expected = created.clone();
    // Each change, and the total after it.
    let changes = [
        (json!({"customerEmail": " grace@example.com "}), "104.88"),
        (json!({"customerName": "Grace Hopper"}), "104.88"),
        (json!({"customerName": null}), "104.88"),
        (json!({"items": [{"name": "Kettle", "quantity": 1, "price": exact("10.00")}]}), "14.90"),
        (json!({"adjustments": null}), "10.00"),
        (json!({"currency": "EUR"}), "10.00"),
        (json!({"externalId": "order-2"}), "10.00"),
        (json!({"externalId": null, "locale": null, "acceptsMarketing": null, "metadata": null}), "10.00"),
    ];
    for (change, total) in changes {
        for (name, value) in change.as_object().unwrap() {
            expected[name] = match (name.as_str(), value) {
                ("adjustments", Value::Null) => json!([]),
                ("metadata", Value::Null) => json!({}),
                ("customerEmail", _) => json!("grace@example.com"),
                ("currency", _) => json!("eur"),
                _ => value.clone(),
            };
        }
        let changed = app.patch(&path, &change).await.data(200);
        expected["totalValue"] = exact(total);
        expected["updatedAt"] = json!(app.now());
        assert_eq!(changed, expected, "{change}");
    }
    let unchanged =
        app.patch(&path, &json!({"currency": "eur", "items": expected["items"], "totalValue": 10})).await.data(200);
    assert_eq!(unchanged, expected, "the same values change nothing");

    let timeline = app.get(&format!("{path}/timeline")).await.data(200);
    let of = |event: &Value| (event["kind"].clone(), event["details"]["fields"].clone(), event["summary"].clone());
    let events: Vec<_> = timeline["events"].as_array().unwrap().iter().map(of).collect();
    assert_eq!(events.len(), 9, "{events:?}");
    assert_eq!(events[1], (json!("changed"), json!(["customerEmail"]), json!("Changed by API_KEY: customer email")));
    assert_eq!(events[8].2, "Changed by API_KEY: external id, locale, accepts marketing and metadata");
    let text = timeline.to_string();
    for personal in ["Grace", "grace@", "Kettle", "order-2"] {
        assert!(!text.contains(personal), "{personal}: {text}");
    }
}

#[tokio::test]
async fn what_can_not_be_changed_is_named() {
    let app = Setup::default().without_worker().start().await;
    let id = app.cart_of(&a_line(json!({"externalId": "order-1"}))).await;
    let path = format!("/api/carts/{id}");
    let before = app.show(&id).await;
    for (field, body) in [
        ("id", json!({"id": "cart_2", "customerName": "Grace"})),
        ("abandonedAt", json!({"abandonedAt": "2026-01-01T00:00:00Z"})),
        ("expiredAt", json!({"status": "expired", "expiredAt": "2026-01-01T00:00:00Z"})),
        ("paidValue", json!({"paidValue": 5})),
        ("createdAt", json!({"createdAt": "2026-01-01T00:00:00Z"})),
        ("totalValue", json!({"totalValue": 5})),
        ("customerEmail", json!({"customerEmail": null})),
        ("customerEmail", json!({"customerEmail": "nobody"})),
        ("items", json!({"items": []})),
        ("items[0].price", json!({"currency": "jpy"})),
        ("adjustments", json!({"adjustments": [{"name": "Discount", "amount": -200}]})),
        ("status", json!({"status": "lost", "customerName": "Grace"})),
        ("body", json!({})),
        ("body", json!({"staus": "recovered"})),
        ("recoveredAt", json!({"recoveredAt": "2026-01-01T00:00:00Z", "customerName": "Grace"})),
    ] {
        let answer = app.patch(&path, &body).await;
        assert_eq!(answer.is_error(422, "VALIDATION_ERROR")["details"][0]["field"], field, "{body}");
    }
    app.cart_of(&a_line(json!({"externalId": "order-2"}))).await;
    app.patch(&path, &json!({"externalId": "order-2"})).await.is_error(409, "CONFLICT");
    assert_eq!(app.show(&id).await, before);
    // Contents and status change together, or not at all.
    app.patch(&path, &json!({"customerName": "Grace", "status": "recovered"})).await.data(200);
    app.patch(&path, &json!({"customerName": "Ada", "status": "expired"})).await.is_error(409, "CONFLICT");
    app.patch(&path, &json!({"items": [{"name": "x", "quantity": 1, "price": 1}]})).await.is_error(409, "CONFLICT");
    assert_eq!(app.show(&id).await["customerName"], "Grace");
    assert_eq!(app.patch(&path, &json!({"customerName": "Ada"})).await.data(200)["customerName"], "Ada");
}

#[tokio::test]
async fn a_session_that_no_longer_fits_is_closed_before_the_next() {
    let app = App::new().await;
    let id = app.cart().await;
    let path = format!("/api/carts/{id}");
    let first = app.ask(&id).await.data(200);
    app.patch(&path, &json!({"customerName": "Grace", "locale": "de"})).await.data(200);
    assert_eq!(app.ask(&id).await.data(200)["paymentLink"], first["paymentLink"], "the session still fits");
    let changed = app.patch(&path, &json!({"adjustments": [{"name": "Discount", "amount": -9.98}]})).await.data(200);
    assert_eq!((&changed["totalValue"], &changed["paymentLink"]), (&exact("90.00"), &Value::Null));
    let second = app.ask(&id).await.data(200);
    assert_ne!(second["paymentLink"], first["paymentLink"]);
    assert_eq!(second["recoveryUrl"], first["recoveryUrl"]);
    let sessions = app.stripe.sessions();
    let of: Vec<_> = sessions.iter().map(|session| (session.amount_total, session.status)).collect();
    assert!(of.contains(&(9_998, SessionStatus::Expired)) && of.contains(&(9_000, SessionStatus::Open)), "{of:?}");
    // The new session recovers the cart with what was paid.
    let url = second["paymentLink"].as_str().unwrap().to_owned();
    app.pay(&url).await;
    eventually("the cart is recovered", async || app.show(&id).await["status"] == "recovered").await;
    assert_eq!(app.show(&id).await["paidValue"], exact("90.00"));
}

#[tokio::test]
async fn twenty_changes_and_links_at_once_leave_one_session_of_the_last_total() {
    let app = Arc::new(App::new().await);
    let id = app.cart().await;
    let path = format!("/api/carts/{id}");
    let tasks: Vec<_> = (1..=20)
        .map(|n| {
            let (app, id, path) = (app.clone(), id.clone(), path.clone());
            tokio::spawn(async move {
                let items = json!([{"name": "Teapot", "quantity": n, "price": 10}]);
                let changed = app.patch(&path, &json!({"items": items})).await;
                assert!(matches!(changed.status, 200 | 503), "{}", changed.text);
                let asked = app.ask(&id).await;
                assert!(matches!(asked.status, 200 | 202 | 409 | 503), "{}", asked.text);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let total = app.show(&id).await["totalValue"].clone();
    eventually("there is a link of the last total", async || app.ask(&id).await.status == 200).await;
    app.idle().await;
    assert!(app.stripe.carts_with_two_open_sessions().is_empty());
    let open = app.stripe.open_sessions();
    let open: Vec<String> = open.iter().map(|session| format!("{}.00", session.amount_total / 100)).collect();
    assert_eq!(open, [total.to_string()]);
}

#[tokio::test]
async fn a_change_with_an_old_tag_is_refused() {
    let app = Setup::default().without_worker().start().await;
    let id = app.cart().await;
    let path = format!("/api/carts/{id}");
    let tag = app.get(&path).await.header("etag").to_owned();
    app.patch(&path, &json!({"customerName": "Grace"})).await.data(200);
    let request =
        app.request(reqwest::Method::PATCH, &path).header("if-match", tag).json(&json!({"customerName": "Ada"}));
    app.send(request).await.is_error(412, "PRECONDITION_FAILED");
    assert_eq!(app.show(&id).await["customerName"], "Grace");
}

#[tokio::test]
async fn a_payment_of_the_former_total_needs_attention() {
    let app = App::new().await;
    let id = app.cart().await;
    let session = app.session(&id).await;
    let items = json!([{"name": "Teapot", "quantity": 1, "price": 500}]);
    app.patch(&format!("/api/carts/{id}"), &json!({"items": items})).await.data(200);
    // The shopper had paid before the session could be closed.
    let paid = tests::events::session(&session, &id, "paid");
    app.webhook(&tests::events::event("evt_1", "checkout.session.completed", &paid)).await.data(200);
    let cart = app.show(&id).await;
    assert_eq!(
        (&cart["status"], &cart["paidValue"], &cart["totalValue"]),
        (&json!("recovered"), &exact("99.98"), &exact("500.00"))
    );
    let reason: Option<String> =
        sqlx::query_scalar("select reason from stripe_events where id = 'evt_1'").fetch_one(&app.pool).await.unwrap();
    assert_eq!(reason.as_deref(), Some("cart_changed"));
}

#[tokio::test]
async fn another_shopper_gets_another_session() {
    let app = App::new().await;
    let id = app.cart().await;
    let first = app.session(&id).await;
    app.patch(&format!("/api/carts/{id}"), &json!({"customerEmail": "grace@example.com"})).await.data(200);
    let second = app.session(&id).await;
    let of = |id: &str| app.stripe.sessions().into_iter().find(|session| session.id == id).unwrap();
    assert_eq!(of(&first).status, SessionStatus::Expired);
    assert_eq!(of(&second).customer_email.as_deref(), Some("grace@example.com"));
}
