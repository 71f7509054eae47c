//! Records are deleted after their retention period, and no others.

use chrono::TimeDelta;
use common::jobs::DeleteOldRecords;
use reqwest::Method;
use serde_json::json;
use tests::{
    Setup, a_cart, connection,
    events::{charge, event, expired, session},
    exact,
};

use crate::{foreign_events::COMPLETED, refunds::REFUNDED};

#[tokio::test]
async fn old_records_are_deleted_and_newer_ones_are_not() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").start().await;
    let make = async |key: &str| {
        let request = app.request(Method::POST, "/api/carts").header("idempotency-key", key).json(&a_cart());
        app.send(request).await.data(201)["id"].as_str().unwrap().to_owned()
    };
    let created = |n: u8| json!({"id": format!("evt_{n}"), "type": "customer.created", "data": {"object": {}}});
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
    app.webhook(&created(1)).await.data(200);
    app.idle().await;
    clean().await;
    assert_eq!((count("idempotency_keys").await, count("stripe_events").await), (1, 2)); // one of the closed session
    assert_eq!((count("recovery_links").await, count("payment_links").await), (1, 1));

    app.clock.advance(TimeDelta::days(30) + TimeDelta::seconds(1));
    make("new").await;
    app.webhook(&created(2)).await.data(200);
    clean().await;
    assert_eq!((count("idempotency_keys").await, count("stripe_events").await), (1, 1));
    assert_eq!((count("recovery_links").await, count("payment_links").await), (0, 0));
}

/// A shopper paid the first of two links. A refund or dispute may follow for months.
#[tokio::test]
async fn links_that_were_paid_are_kept_for_refunds() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").start().await;
    let id = app.cart_of(&a_cart()).await;
    let first = app.session(&id).await;
    app.webhook(&event("evt_closed", "checkout.session.expired", &expired(&first, &id))).await.data(200);
    app.session(&id).await;
    app.webhook(&event("evt_paid", COMPLETED, &session(&first, &id, "paid"))).await.data(200);
    app.webhook(&event("evt_foreign", REFUNDED, &charge("cs_of_another_tool", &id, 100))).await.data(200);
    app.idle().await;
    app.clock.advance(TimeDelta::days(100));
    queue::enqueue(&mut connection(&app.pool).await, &DeleteOldRecords {}).await.unwrap();
    app.idle().await;
    let waiting: i64 = sqlx::query_scalar("select count(*) from payment_reversals").fetch_one(&app.pool).await.unwrap();
    assert_eq!(waiting, 0, "the refund of another tool's payment");
    app.webhook(&event("evt_back", REFUNDED, &charge(&first, &id, 9_998))).await.data(200);
    assert_eq!(app.show(&id).await["refundedValue"], exact("99.98"));
}

#[tokio::test]
async fn retention_periods_are_configurable() {
    let app = Setup::default()
        .at("2026-03-10T12:00:00Z")
        .set("RETAIN_EVENTS", "90d")
        .set("RETAIN_IDEMPOTENCY_KEYS", "2d")
        .set("RETAIN_SLOTS", "1h")
        .start()
        .await;
    let request = app.request(Method::POST, "/api/carts").header("idempotency-key", "kept").json(&a_cart());
    app.send(request).await.data(201);
    app.webhook(&json!({"id": "evt_1", "type": "customer.created", "data": {"object": {}}})).await.data(200);
    let slots = "insert into schedule_slots (schedule, slot) select 'test', '2026-03-10T12:00:00Z'::timestamptz - n * interval '40 minutes' from generate_series(0, 5) n";
    sqlx::query(slots).execute(&app.pool).await.unwrap();
    let left = async |days: i64| -> (i64, i64, i64) {
        app.clock.advance(TimeDelta::days(days));
        queue::enqueue(&mut connection(&app.pool).await, &DeleteOldRecords {}).await.unwrap();
        app.idle().await;
        sqlx::query_as(
            "select (select count(*) from idempotency_keys), (select count(*) from stripe_events),
                    (select count(*) from schedule_slots where schedule = 'test')",
        )
        .fetch_one(&app.pool)
        .await
        .unwrap()
    };
    assert_eq!(left(0).await, (1, 1, 2), "slots of the last hour stay");
    assert_eq!(left(1).await, (1, 1, 1), "the newest slot always stays");
    assert_eq!(left(2).await, (0, 1, 1));
    assert_eq!(left(88).await, (0, 0, 1));
}
