//! What has been kept for long enough is deleted, and nothing else.

use chrono::TimeDelta;
use common::jobs::DeleteOldRecords;
use reqwest::Method;
use serde_json::json;
use tests::{Setup, a_cart, connection};

#[tokio::test]
async fn old_records_are_deleted_and_newer_ones_are_not() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").start().await;
    let make = async |key: &str| {
        let request = app.request(Method::POST, "/api/carts").header("idempotency-key", key).json(&a_cart());
        app.send(request).await.data(201)["id"].as_str().unwrap().to_owned()
    };
    let event = |n: u8| json!({"id": format!("evt_{n}"), "type": "customer.created", "data": {"object": {}}});
    let count = async |table: &str| -> i64 {
        let query = sqlx::AssertSqlSafe(format!("select count(*) from {table}"));
        sqlx::query_scalar(query).fetch_one(&app.pool).await.unwrap()
    };
    let clean = async || {
        queue::enqueue(&mut connection(&app.pool).await, &DeleteOldRecords {}).await.unwrap();
        app.idle().await;
    };
    let deleted = make("old").await;
    app.session(&deleted).await;
    app.delete(&format!("/api/carts/{deleted}")).await.data(200);
    app.webhook(&event(1)).await.data(200);
    app.idle().await;
    clean().await;
    assert_eq!((count("idempotency_keys").await, count("stripe_events").await), (1, 2)); // one of the closed session
    assert_eq!((count("recovery_links").await, count("payment_links").await), (1, 1));

    app.clock.advance(TimeDelta::days(30) + TimeDelta::seconds(1));
    make("new").await;
    app.webhook(&event(2)).await.data(200);
    clean().await;
    assert_eq!((count("idempotency_keys").await, count("stripe_events").await), (1, 1));
    assert_eq!((count("recovery_links").await, count("payment_links").await), (0, 0));
}
