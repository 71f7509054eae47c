//! Carts as shops have them: currencies, fractions, adjustments, and the shop's own data. Each is
//! stored and shown as it was sent, and Stripe charges the total.

use serde_json::{Value, json};
use tests::{App, Setup, a_cart, a_line, exact};

/// A cart with every field that a shop can send.
fn full() -> Value {
    json!({
        "externalId": "order-1001", "customerEmail": "hana.s@docomo.example", "customerName": null, "currency": "EUR",
        "items": [
            {"name": "Teapot", "quantity": 2, "price": exact("40.00"), "sku": "TP-1", "url": "https://shop.example/teapot",
             "imageUrl": "https://shop.example/teapot.jpg"},
            {"name": "Cheese", "quantity": 0.333, "price": 60.05, "total": exact("20.00")},
        ],
        "adjustments": [{"name": "Discount", "amount": exact("-10.00")}, {"name": "Shipping", "amount": exact("4.90")}],
        "locale": "de_at", "acceptsMarketing": false, "metadata": {"table": "7", "note": "ring twice"},
        "totalValue": exact("94.90"),
    })
}

#[tokio::test]
async fn every_field_is_shown_as_it_was_sent() {
    let app = Setup::default().at("2026-03-01T10:00:00Z").without_worker().start().await;
    let created = app.post("/api/carts", &full()).await;
    assert!(
        created.text.contains(r#"{"name":"Cheese","quantity":0.333,"price":60.05,"total":20.00}"#),
        "{}",
        created.text
    );
    assert!(created.text.contains(r#"{"name":"Discount","amount":-10.00}"#), "{}", created.text);
    let cart = created.data(201);
    let mut expected = full();
    expected["currency"] = json!("eur");
    expected["locale"] = json!("de-AT");
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&cart[name], value, "{name}");
    }
    for unset in ["recoveredBy", "paidValue", "refundedValue", "recoveredAt", "expiredAt", "paymentLink"] {
        assert_eq!(cart[unset], Value::Null, "{unset}");
    }
    assert_eq!(app.show(cart["id"].as_str().unwrap()).await, cart);
    let listed = app.get("/api/carts").await.data(200);
    assert_eq!(listed["carts"][0], cart);
    let exported = app.get("/api/carts/export").await;
    assert_eq!(serde_json::from_str::<Value>(&exported.text).unwrap(), cart);
}

#[tokio::test]
async fn a_field_that_can_not_be_set_is_an_error() {
    let app = Setup::default().without_worker().start().await;
    for (field, value) in [
        ("id", json!("cart_1")),
        ("status", json!("recovered")),
        ("status", json!(7)),
        ("recoveredAt", json!("2026-01-01T00:00:00Z")),
        ("expiredAt", json!("2026-01-01T00:00:00Z")),
        ("recoveredBy", json!("manual")),
        ("paidValue", json!(1)),
        ("refundedValue", json!(1)),
        ("paymentLink", json!("https://checkout.stripe.com/c/pay/cs_1")),
        ("createdAt", json!("2026-01-01T00:00:00Z")),
    ] {
        let answer = app.post("/api/carts", &a_line(json!({field: value}))).await;
        assert_eq!(answer.is_error(422, "VALIDATION_ERROR")["details"][0]["field"], field);
    }
    app.post("/api/carts", &a_line(json!({"status": "abandoned", "recoveredAt": null, "id": null}))).await.data(201);
}

#[tokio::test]
async fn currencies_are_those_that_shoppers_pay_with() {
    let app = Setup::default().without_worker().start().await;
    for (currency, price, total) in [
        ("jpy", "98000", "98000"),
        ("VND", "12990000", "12990000"),
        ("krw", "1290000", "1290000"),
        ("idr", "8500000", "8500000.00"),
        ("KWD", "1.235", "1.235"),
        ("isk", "999999999999", "999999999999"),
    ] {
        let mut cart = a_cart();
        cart["currency"] = json!(currency);
        cart["items"][0] = serde_json::from_str(&format!(r#"{{"name":"x","quantity":1,"price":{price}}}"#)).unwrap();
        let made = app.post("/api/carts", &cart).await;
        let written = format!(r#""totalValue":{total},"currency":"{}""#, currency.to_lowercase());
        assert!(made.text.contains(&written), "{}", made.text);
    }
    for unknown in ["yen", "us", "", "xxx", "xau", "btc", "$"] {
        let answer = app.post("/api/carts", &a_line(json!({"currency": unknown}))).await;
        assert_eq!(answer.is_error(422, "VALIDATION_ERROR")["details"][0]["field"], "currency", "{unknown}");
    }
}

#[tokio::test]
async fn a_sent_total_that_is_not_the_sum_is_named_with_the_sum() {
    let app = Setup::default().without_worker().start().await;
    let answer = app.post("/api/carts", &a_line(json!({"totalValue": 100}))).await;
    let error = &answer.is_error(422, "VALIDATION_ERROR")["details"][0];
    assert_eq!(error["field"], "totalValue");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("100.00") && message.contains("99.98"), "{message}");
}

/// Asks for a link of the cart; returns what Stripe charges.
async fn charged(app: &App, body: &Value) -> (i64, String, usize) {
    let id = app.cart_of(body).await;
    let session = app.session(&id).await;
    let sessions = app.stripe.sessions();
    let session = sessions.iter().find(|known| known.id == session).unwrap();
    (session.amount_total, session.currency.clone(), session.lines.len())
}

#[tokio::test]
async fn stripe_charges_the_total_to_the_minor_unit() {
    let app = App::new().await;
    let many: Vec<Value> =
        (0..130).map(|n| json!({"name": format!("Item {n}"), "quantity": 1, "price": 1.01})).collect();
    let with = |change: Value| a_line(change);
    for (body, amount, currency, lines) in [
        (full(), 9_490, "eur", 1),
        (with(json!({"adjustments": [{"name": "Shipping", "amount": 4.9}]})), 10_488, "usd", 2),
        (with(json!({"items": many})), 13_130, "usd", 100),
        (with(json!({"items": [{"name": "n".repeat(500), "quantity": 1, "price": 5}]})), 500, "usd", 1),
        (
            with(json!({"items": [{"name": "Phone", "quantity": 1, "price": 12_990_000}], "currency": "vnd"})),
            12_990_000,
            "vnd",
            1,
        ),
        (
            with(json!({"items": [{"name": "Phone", "quantity": 1, "price": 8_500_000}], "currency": "idr"})),
            850_000_000,
            "idr",
            1,
        ),
        (with(json!({"items": [{"name": "Oud", "quantity": 2, "price": 1.235}], "currency": "kwd"})), 2_470, "kwd", 1),
        (with(json!({"items": [{"name": "Ull", "quantity": 2, "price": 350}], "currency": "isk"})), 70_000, "isk", 1),
        (
            with(json!({"items": [{"name": "House", "quantity": 1, "price": 9_999_999_999.99}], "currency": "idr"})),
            999_999_999_999,
            "idr",
            1,
        ),
        (with(json!({"items": [{"name": "Screw", "quantity": 1000, "price": 0.0125}]})), 1_250, "usd", 1),
    ] {
        assert_eq!(charged(&app, &body).await, (amount, currency.to_owned(), lines), "{body}");
    }
}

#[tokio::test]
async fn what_stripe_can_not_charge_is_stored_and_its_link_refused() {
    let app = App::new().await;
    for (currency, price) in [("kwd", "1.235"), ("usd", "0.49"), ("usd", "1000000"), ("jpy", "49")] {
        let mut cart = a_cart();
        cart["currency"] = json!(currency);
        cart["items"][0] = serde_json::from_str(&format!(r#"{{"name":"x","quantity":1,"price":{price}}}"#)).unwrap();
        let id = app.cart_of(&cart).await;
        let answer = app.ask(&id).await;
        assert_eq!(answer.is_error(422, "VALIDATION_ERROR")["details"][0]["field"], "totalValue", "{currency} {price}");
    }
    assert!(app.stripe.sessions().is_empty());
}

#[tokio::test]
async fn stripe_is_told_language_and_order_number() {
    let app = App::new().await;
    let id = app.cart_of(&full()).await;
    app.session(&id).await;
    let session = &app.stripe.sessions()[0];
    assert_eq!(session.locale.as_deref(), Some("de"));
    assert_eq!(session.metadata["external_id"], "order-1001");
    assert_eq!(session.payment_intent_metadata["external_id"], "order-1001");
    assert_eq!(session.payment_intent_description.as_deref(), Some("Cart order-1001"));
}

#[tokio::test]
async fn a_payment_shows_what_was_paid_and_by_whom() {
    let app = App::new().await;
    let id = app.cart_of(&full()).await;
    let url = app.ask(&id).await.data(200)["paymentLink"].as_str().unwrap().to_owned();
    app.pay(&url).await;
    tests::eventually("the cart is recovered", async || app.show(&id).await["status"] == "recovered").await;
    let cart = app.show(&id).await;
    assert_eq!((&cart["recoveredBy"], &cart["paidValue"]), (&json!("payment"), &exact("94.90")));
    let by_hand = app.cart().await;
    app.patch(&format!("/api/carts/{by_hand}"), &json!({"status": "recovered"})).await.data(200);
    let cart = app.show(&by_hand).await;
    assert_eq!((&cart["recoveredBy"], &cart["paidValue"]), (&json!("manual"), &Value::Null));
}
