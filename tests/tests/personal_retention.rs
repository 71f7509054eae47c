//! Old carts are anonymized and still count.

use chrono::TimeDelta;
use common::{jobs::AnonymizeOldCarts, personal_data::ERASED_EMAIL};
use serde_json::{Value, json};
use tests::{
    App, SCHEDULES, Setup, a_cart, connection, eventually,
    imports::{NDJSON, import, ndjson},
    leaks::mentions,
    lives::ZEBEDEE,
};

async fn anonymize(app: &App) {
    queue::enqueue(&mut connection(&app.pool).await, &AnonymizeOldCarts {}).await.unwrap();
    app.idle().await;
}

fn keeping_for(days: &str) -> Setup {
    Setup::default().at("2026-03-10T12:00:00Z").set("RETAIN_PERSONAL_DATA", days).set("CART_TTL", "3650d")
}

async fn timeline(app: &App, id: &str) -> Value {
    app.get(&format!("/api/carts/{id}/timeline")).await.data(200)["events"].clone()
}

#[tokio::test]
async fn a_cart_that_ended_long_ago_loses_its_shopper_and_nothing_else() {
    let app = keeping_for("90d").start().await;
    let recovered = app.cart_of(&ZEBEDEE.cart()).await;
    let session = app.session(&recovered).await;
    app.stripe.pay(&session).await.unwrap();
    let expired = app.cart_of(&ZEBEDEE.cart()).await;
    app.session(&expired).await;
    app.patch(&format!("/api/carts/{expired}"), &json!({"status": "expired"})).await.data(200);
    let mut line = ZEBEDEE.cart();
    line["externalId"] = json!("order of zebedee");
    line["status"] = json!("expired");
    import(&app, NDJSON, ndjson([line])).await;
    let abandoned = app.cart().await; // of Ada, neither recovered nor expired
    app.idle().await;
    let all = "/api/analytics?startDate=2026-03-01&endDate=2026-06-30";
    let analytics = app.get(all).await.data(200);
    let (before, told) = (app.show(&recovered).await, timeline(&app, &recovered).await);

    app.clock.advance(TimeDelta::days(90));
    anonymize(&app).await;
    assert_eq!(app.show(&recovered).await, before, "not before its time is over");
    let of_today = app.cart_of(&ZEBEDEE.cart()).await;
    app.patch(&format!("/api/carts/{of_today}"), &json!({"status": "expired"})).await.data(200);

    app.clock.advance(TimeDelta::seconds(1));
    anonymize(&app).await;
    let after = app.show(&recovered).await;
    let mut expected = before.clone();
    expected["customerEmail"] = json!(ERASED_EMAIL);
    expected["customerName"] = json!("erased");
    expected["items"] = json!([{"name": "erased", "quantity": 2, "price": 49.99}]);
    expected["adjustments"][0]["name"] = json!("erased");
    (expected["locale"], expected["acceptsMarketing"]) = (Value::Null, Value::Null);
    expected["metadata"] = json!({});
    assert_eq!(after, expected);
    assert_eq!(timeline(&app, &recovered).await, told);
    let list = app.get(&format!("/api/carts?email={ERASED_EMAIL}")).await.data(200);
    assert_eq!(list["pagination"]["total"], json!(3));
    assert_eq!(app.show(&abandoned).await["customerEmail"], "ada@example.com", "somebody may yet come back");
    assert_eq!(app.show(&of_today).await["customerName"], ZEBEDEE.cart()["customerName"]);
    let with_today = app.get(all).await.data(200);
    let summary = |of: &Value, name: &str| of["summary"][name].clone();
    assert_eq!(summary(&with_today, "totalRecovered"), summary(&analytics, "totalRecovered"));
    assert_eq!(with_today["summary"]["totalAbandoned"], json!(5));

    // Only today's cart is left of this person.
    app.delete(&format!("/api/carts/{of_today}")).await.data(200);
    assert_eq!(app.get(all).await.data(200), analytics, "the rest counts as it did");
    app.idle().await;
    assert_eq!(mentions(&app.pool, ZEBEDEE.words).await, Vec::<String>::new());
    let links: i64 =
        sqlx::query_scalar("select count(url) + (select count(token) from recovery_links) from payment_links")
            .fetch_one(&app.pool)
            .await
            .unwrap();
    assert_eq!(links, 0);
    // What is written into an anonymized cart is removed after its time, too.
    app.patch(&format!("/api/carts/{recovered}"), &json!({"metadata": {"note": "x"}}))
        .await
        .is_error(422, "VALIDATION_ERROR");
    let back = json!({"customerEmail": ZEBEDEE.email, "metadata": {"note": "Zebedee"}});
    app.patch(&format!("/api/carts/{recovered}"), &back).await.data(200);
    app.clock.advance(TimeDelta::days(91));
    anonymize(&app).await;
    assert_eq!(app.show(&recovered).await["metadata"], json!({}));
}

/// More than one batch and one range of blocks, some locked by others, and a second run with
/// nothing to do.
#[tokio::test]
async fn many_old_carts_are_found_wherever_they_are_stored() {
    let app = keeping_for("90d").start().await;
    sqlx::query(
        "insert into carts (id, customer_email, customer_name, items, total_minor, currency, status, abandoned_at, recovered_at,
                            expired_at, created_at, updated_at)
         select 'cart_' || n, 'zebedee' || n || '@private.example', 'Zebedee', json_build_array(json_build_object(
                    'name', 'Kaleidoscope', 'quantity', 3, 'price', 33.30, 'note', repeat('x', 600))), 9990, 'usd', status,
                at, case status when 'recovered' then at end, case status when 'expired' then at end, at, at
         from (select n, case n % 3 when 0 then 'abandoned' when 1 then 'recovered' else 'expired' end as status,
                      '2025-06-01T00:00:00Z'::timestamptz + n * interval '1 hour' as at
               from generate_series(1, 6000) n) made",
    )
    .execute(&app.pool)
    .await
    .unwrap();
    let blocks: i64 = sqlx::query_scalar("select pg_relation_size('carts') / 8192").fetch_one(&app.pool).await.unwrap();
    assert!(blocks > common::personal_data::BLOCKS, "{blocks}");
    let mut holding = app.pool.begin().await.unwrap();
    let held = "set local idle_in_transaction_session_timeout = 0; select from carts where id = 'cart_1' for update";
    sqlx::raw_sql(held).execute(&mut *holding).await.unwrap();
    anonymize(&app).await;
    let named = async || -> Vec<(String, i64)> {
        sqlx::query_as(
            "select status, count(*) from carts where customer_email <> $1 and (status = 'abandoned' or updated_at < $2) group by 1 order by 1",
        )
        .bind(ERASED_EMAIL)
        .bind(app.now() - TimeDelta::days(90))
        .fetch_all(&app.pool)
        .await
        .unwrap()
    };
    assert_eq!(
        named().await,
        [("abandoned".to_owned(), 2000), ("recovered".to_owned(), 1)],
        "but for the one that was held"
    );
    holding.rollback().await.unwrap();
    anonymize(&app).await;
    assert_eq!(named().await, [("abandoned".to_owned(), 2000)]);
    let items: Vec<String> = sqlx::query_scalar("select distinct items::text from carts where customer_email = $1")
        .bind(ERASED_EMAIL)
        .fetch_all(&app.pool)
        .await
        .unwrap();
    assert_eq!(items, [r#"[{"name":"erased","quantity":3,"price":33.30}]"#]);

    let written = async || -> i64 {
        sqlx::query_scalar("select max(xmin::text::bigint) from carts").fetch_one(&app.pool).await.unwrap()
    };
    let last = written().await;
    anonymize(&app).await;
    assert_eq!(written().await, last, "nothing is written where there is nothing to do");
}

/// An anonymized cart can be reopened; the placeholder address is not sent to Stripe.
#[tokio::test]
async fn a_link_of_an_anonymized_cart_sends_no_address() {
    let app = keeping_for("1d").start().await;
    let id = app.cart_of(&a_cart()).await;
    app.patch(&format!("/api/carts/{id}"), &json!({"status": "expired"})).await.data(200);
    app.clock.advance(TimeDelta::days(2));
    anonymize(&app).await;
    assert_eq!(app.show(&id).await["customerEmail"], ERASED_EMAIL);
    app.patch(&format!("/api/carts/{id}"), &json!({"status": "abandoned"})).await.data(200);
    let session = app.session(&id).await;
    let made = app.stripe.sessions();
    assert_eq!((made.len(), made[0].customer_email.as_deref()), (1, None));
    app.stripe.pay(&session).await.unwrap();
    assert_eq!(app.show(&id).await["status"], "recovered");
}

#[tokio::test]
async fn carts_are_anonymized_only_if_configured() {
    let forever = Setup::default().start().await;
    let for_a_year = Setup::default().set("RETAIN_PERSONAL_DATA", "365d").start().await;
    let mut with_one_more = SCHEDULES.to_vec();
    with_one_more.push("anonymize_old_carts");
    with_one_more.sort_unstable();
    eventually("one more is known", async || for_a_year.schedules().await == with_one_more).await;
    assert_eq!(forever.schedules().await, SCHEDULES);
}
