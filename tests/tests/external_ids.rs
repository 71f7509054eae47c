//! A cart that a shop sends again, with its own id, is one cart.

use std::{collections::HashSet, sync::Arc};

use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value, json};
use tests::{App, Setup, a_line};

fn order(change: Value) -> Value {
    let mut body = a_line(json!({"externalId": "order-1001"}));
    body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn a_cart_sent_again_changes() {
    let app = Setup::default().at("2026-03-01T10:00:00Z").without_worker().start().await;
    let first = app.post("/api/carts", &order(json!({"metadata": {"a": "1"}, "locale": "de"}))).await.data(201);
    app.clock.advance(TimeDelta::minutes(5));
    let same = app.post("/api/carts", &order(json!({"metadata": {"a": "1"}, "locale": "de"}))).await;
    assert_eq!(same.data(200), first, "the same body changes nothing");

    let items = json!([{"name": "Teapot", "quantity": 3, "price": 49.99}]);
    let answer = app.post("/api/carts", &order(json!({"items": items, "currency": "eur"}))).await;
    assert_eq!(answer.header("location"), format!("/api/carts/{}", first["id"].as_str().unwrap()));
    let changed = answer.data(200);
    assert_eq!(changed["id"], first["id"]);
    assert_eq!((&changed["totalValue"], &changed["currency"]), (&json!(149.97), &json!("eur")));
    assert_eq!((&changed["metadata"], &changed["locale"]), (&json!({}), &Value::Null), "the body is the whole cart");
    assert_eq!((&changed["abandonedAt"], &changed["createdAt"]), (&json!(app.now()), &first["createdAt"]));
    assert_eq!(app.get("/api/carts").await.data(200)["pagination"]["total"], 1);

    let earlier = json!({"items": items, "currency": "eur", "abandonedAt": "2026-02-28T09:00:00Z"});
    let moved = app.post("/api/carts", &order(earlier)).await.data(200);
    assert_eq!(moved["abandonedAt"], "2026-02-28T09:00:00Z");
}

#[tokio::test]
async fn an_expired_cart_sent_again_is_abandoned_and_a_recovered_one_is_final() {
    let app = Setup::default().at("2026-03-01T10:00:00Z").without_worker().start().await;
    let id = app.cart_of(&order(json!({}))).await;
    let path = format!("/api/carts/{id}");
    app.patch(&path, &json!({"status": "expired"})).await.data(200);
    app.clock.advance(TimeDelta::days(3));
    let again = app.post("/api/carts", &order(json!({}))).await.data(200);
    assert_eq!((&again["id"], &again["status"], &again["expiredAt"]), (&json!(id), &json!("abandoned"), &Value::Null));
    assert_eq!(again["abandonedAt"], json!(app.now()));
    let timeline = app.get(&format!("{path}/timeline")).await.data(200);
    let last = timeline["events"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["kind"], &last["why"]), (&json!("reopened"), &json!("api")));

    app.patch(&path, &json!({"status": "recovered"})).await.data(200);
    app.post("/api/carts", &order(json!({}))).await.is_error(409, "CONFLICT");
    let items = json!([{"name": "Teapot", "quantity": 3, "price": 49.99}]);
    app.post("/api/carts", &order(json!({"items": items}))).await.is_error(409, "CONFLICT");
}

#[tokio::test]
async fn a_cart_is_found_by_its_external_id() {
    let app = Setup::default().without_worker().start().await;
    let id = app.cart_of(&order(json!({"externalId": "a/b c?&ü"}))).await;
    app.cart().await;
    let found = async |query: &str| app.get(&format!("/api/carts?{query}")).await.data(200);
    let one = found("externalId=a%2Fb%20c%3F%26%C3%BC").await;
    assert_eq!((&one["carts"][0]["id"], &one["pagination"]["total"]), (&json!(id), &json!(1)));
    assert_eq!(found("externalId=a%2Fb%20c%3F%26%C3%BC&status=expired").await["pagination"]["total"], 0);
    assert_eq!(found("externalId=a%2Fb%20c%3F%26%C3%BC&email=ADA@example.com").await["pagination"]["total"], 1);
    assert_eq!(found("externalId=a%2Fb%20c%3F%26%C3%BC&page=2").await["carts"], json!([]));
    assert_eq!(found("externalId=none").await["carts"], json!([]));
    assert_eq!(found("externalId=").await["pagination"]["total"], 2);
}

#[tokio::test]
async fn twenty_at_once_are_one_cart() {
    let app = Arc::new(Setup::default().without_worker().start().await);
    for round in 0..5 {
        let body = order(json!({"externalId": format!("order-{round}")}));
        let sent: Vec<_> = (0..20)
            .map(|_| {
                let (app, body) = (app.clone(), body.clone());
                tokio::spawn(async move {
                    let answer = app.post("/api/carts", &body).await;
                    let status = answer.status;
                    (status, answer.data(status)["id"].as_str().unwrap().to_owned())
                })
            })
            .collect();
        let (mut created, mut ids) = (0, HashSet::new());
        for sent in sent {
            let (status, id) = sent.await.unwrap();
            assert!(matches!(status, 200 | 201), "{status}");
            created += usize::from(status == 201);
            ids.insert(id);
        }
        assert_eq!((created, ids.len()), (1, 1));
    }
    assert_eq!(app.get("/api/carts").await.data(200)["pagination"]["total"], 5);
}

#[tokio::test]
async fn an_idempotency_key_of_a_cart_sent_again_is_its_own() {
    let app = Setup::default().at("2026-03-01T10:00:00Z").without_worker().start().await;
    let id = app.cart_of(&order(json!({}))).await;
    app.clock.advance(TimeDelta::seconds(1));
    let send = async |key: &str, body: &Value| {
        let request = app.request(Method::POST, "/api/carts").header("idempotency-key", key).json(body);
        app.send(request).await
    };
    let changed = order(json!({"customerName": "Ada King"}));
    assert_eq!(send("one", &changed).await.data(200)["id"], json!(id));
    app.post("/api/carts", &order(json!({"customerName": "Grace"}))).await.data(200);
    // The repeated request does not change the cart back.
    assert_eq!(send("one", &changed).await.data(200)["customerName"], "Grace");
    send("one", &order(json!({}))).await.is_error(422, "VALIDATION_ERROR");
    app.delete(&format!("/api/carts/{id}")).await.data(200);
    send("one", &changed).await.is_error(404, "NOT_FOUND");
    // The cart's id is free again.
    app.post("/api/carts", &order(json!({}))).await.data(201);
}

#[tokio::test]
async fn a_cart_whose_payment_is_in_progress_is_not_changed() {
    let app = App::new().await;
    let id = app.cart_of(&order(json!({}))).await;
    let session = app.session(&id).await;
    app.webhook(&tests::events::event(
        "evt_1",
        "checkout.session.completed",
        &tests::events::session(&session, &id, "unpaid"),
    ))
    .await
    .data(200);
    let items = json!([{"name": "Teapot", "quantity": 3, "price": 49.99}]);
    app.post("/api/carts", &order(json!({"items": items}))).await.is_error(409, "CONFLICT");
    let path = format!("/api/carts/{id}");
    app.patch(&path, &json!({"items": items})).await.is_error(409, "CONFLICT");
    app.patch(&path, &json!({"customerName": "Ada King"})).await.data(200);
}

#[tokio::test]
async fn imports_and_requests_share_the_ids() {
    let app = Setup::default().without_worker().start().await;
    let id = app.cart_of(&order(json!({}))).await;
    let line = order(json!({"customerName": "Grace"})).to_string();
    let answer = app
        .send(app.request(Method::POST, "/api/carts/import").header("content-type", "application/x-ndjson").body(line))
        .await;
    let first: Value = serde_json::from_str(answer.text.lines().next().unwrap()).unwrap();
    assert_eq!((&first["status"], &first["id"]), (&json!("exists"), &json!(id)));
    assert_eq!(app.show(&id).await["customerName"], "Ada Lovelace");
}

#[tokio::test]
async fn an_id_that_another_transaction_holds_delays_no_other_cart() {
    let app = Arc::new(Setup::default().without_worker().start().await);
    let other = app.cart().await;
    let mut holder = app.pool.begin().await.unwrap();
    sqlx::query(
        "insert into carts (id, external_id, customer_email, items, total_minor, currency)
         values ('cart_held', 'order-1001', 'a@example.com', '[]', 100, 'usd')",
    )
    .execute(&mut *holder)
    .await
    .unwrap();
    let waiting: Vec<_> = (0..20)
        .map(|n| {
            let (app, other) = (app.clone(), other.clone());
            tokio::spawn(async move {
                if n % 2 == 0 {
                    return app.post("/api/carts", &order(json!({}))).await.status;
                }
                app.patch(&format!("/api/carts/{other}"), &json!({"externalId": "order-1001"})).await.status
            })
        })
        .collect();
    // All of them are queued before these are asked.
    for _ in 0..10 {
        let made = app.cart().await;
        app.show(&made).await;
        app.get("/api/carts").await.data(200);
    }
    holder.commit().await.unwrap();
    for waiting in waiting {
        let status = waiting.await.unwrap();
        assert!(matches!(status, 200 | 409 | 503), "{status}");
    }
}
