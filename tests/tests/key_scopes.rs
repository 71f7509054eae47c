//! The shopper's data by scope: in responses to changes, idempotency keys, and exports of a person.

use common::api_keys::Scope::{Operator, Read, Write};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Answer, App, OF_THE_SHOPPER, Setup, a_cart, eventually};

use crate::api_keys::{ask, key};

async fn keys(app: &App, wanted: &[(&str, &[common::api_keys::Scope])]) -> Vec<String> {
    let mut keys = Vec::new();
    for (name, scopes) in wanted {
        let key = key(&app.pool, name, scopes, None).await;
        eventually("the key is known", async || ask(app, &key, Method::GET, "/api/nothing").await.status == 404).await;
        keys.push(key);
    }
    keys
}

async fn post(app: &App, key: &str, path: &str, body: &Value) -> Answer {
    app.send(app.bare_request(Method::POST, path).header("x-api-key", key).json(body)).await
}

async fn create(app: &App, key: &str, idempotency_key: &str, body: &Value) -> Answer {
    let request = app.bare_request(Method::POST, "/api/carts").header("x-api-key", key);
    app.send(request.header("idempotency-key", idempotency_key).json(body)).await
}

fn id(answer: Answer) -> String {
    answer.data(201)["id"].as_str().unwrap().to_owned()
}

/// Asserts that the response, including its headers, contains nothing of the shopper's.
fn is_blind(answer: &Answer) {
    let text = format!("{:?} {}", answer.headers, answer.text).to_lowercase();
    // Ids are random: "ada" and "etag" could occur in one.
    for word in OF_THE_SHOPPER.map(str::to_lowercase).iter().map(String::as_str).chain(["99.98", "checkout", "/pay/"]) {
        assert!(!text.contains(word), "{word}: {text}");
    }
    assert_eq!(answer.header("etag"), "");
}

#[tokio::test]
async fn an_idempotency_key_belongs_to_its_api_key() {
    let app = Setup::default().without_worker().start().await;
    let mut keys = keys(&app, &[("one", &[Write]), ("other", &[Read, Write])]).await;
    keys.extend(["test-key".to_owned(), "old-key".to_owned()]);
    let mut ids = Vec::new();
    for key in &keys {
        let first = id(create(&app, key, "order 1", &a_cart()).await);
        assert_eq!(id(create(&app, key, "order 1", &a_cart()).await), first);
        ids.push(first);
    }
    let mut different = ids.clone();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), keys.len(), "each made a cart of its own");
    let mut other = a_cart();
    other["customerName"] = json!("Grace");
    create(&app, &keys[0], "order 1", &other).await.is_error(422, "VALIDATION_ERROR");
}

#[tokio::test]
async fn a_change_shows_the_shopper_to_keys_that_may_read() {
    let app = App::new().await;
    let keys = keys(&app, &[("blind", &[Write]), ("seeing", &[Read, Write])]).await;
    let (blind, seeing) = (&keys[0], &keys[1]);
    let of_another = app.cart().await;
    app.ask(&of_another).await.data(200);
    let path = format!("/api/carts/{of_another}");
    let patch = async |key: &str, status: &str| {
        app.send(app.bare_request(Method::PATCH, &path).header("x-api-key", key).json(&json!({"status": status}))).await
    };
    // The same status again changes nothing.
    let blindly = patch(blind, "abandoned").await;
    is_blind(&blindly);
    let fields: Vec<String> = blindly.data(200).as_object().unwrap().keys().cloned().collect();
    assert_eq!(fields, ["abandonedAt", "createdAt", "expiredAt", "id", "recoveredAt", "status", "updatedAt"]);
    let seen = patch(seeing, "abandoned").await;
    assert!(!seen.header("etag").is_empty());
    assert_eq!(seen.data(200), app.show(&of_another).await);

    for key in ["first try", "first try"] {
        let created = create(&app, blind, key, &a_cart()).await;
        is_blind(&created);
        assert_eq!(created.header("location"), format!("/api/carts/{}", created.body["data"]["id"].as_str().unwrap()));
        created.data(201);
    }
    assert_eq!(create(&app, seeing, "first try", &a_cart()).await.data(201)["customerName"], "Ada Lovelace");

    // Refusals contain nothing of the shopper's either.
    let tag = app.get(&path).await.header("etag").to_owned();
    for (method, tag) in [(Method::PATCH, tag.as_str()), (Method::PATCH, "\"guess\""), (Method::DELETE, &tag)] {
        // The tag is a hash of the cart: a right guess gets the same response as a wrong one.
        let request = app.bare_request(method, &path).header("x-api-key", blind).header("if-match", tag);
        let refused = app.send(request.json(&json!({"status": "expired"}))).await;
        refused.is_error(403, "FORBIDDEN");
        is_blind(&refused);
    }
    app.patch(&path, &json!({"status": "recovered"})).await.data(200);
    let refused = patch(blind, "expired").await;
    refused.is_error(409, "CONFLICT");
    is_blind(&refused);

    for body in [json!({"status": "ada@example.com"}), json!({"items": "Teapot"})] {
        let refused = app.send(app.bare_request(Method::PATCH, &path).header("x-api-key", blind).json(&body)).await;
        refused.is_error(422, "VALIDATION_ERROR");
        is_blind(&refused);
    }
    let mut other = a_cart();
    other["customerName"] = json!("Grace");
    let refused = create(&app, blind, "first try", &other).await;
    refused.is_error(422, "VALIDATION_ERROR");
    is_blind(&refused);
    let mut cheap = a_cart();
    cheap["items"] = json!([{"name": "Teapot", "quantity": 1, "price": 0.01}]);
    let cheap = app.cart_of(&cheap).await;
    let refused = ask(&app, blind, Method::POST, &format!("/api/carts/{cheap}/payment-link")).await;
    refused.is_error(422, "VALIDATION_ERROR");
    is_blind(&refused);

    // A guessed external id.
    let mut line = a_cart();
    line["externalId"] = json!("order-1");
    let import = async |key: &str| {
        let request = app.bare_request(Method::POST, "/api/carts/import").header("x-api-key", key);
        let answer = app.send(request.header("content-type", "application/x-ndjson").body(line.to_string())).await;
        serde_json::from_str::<Value>(answer.text.lines().next().unwrap()).unwrap()
    };
    let created = import(seeing).await["id"].clone();
    assert!(created.is_string());
    assert_eq!(import(blind).await, json!({"line": 1, "status": "exists", "externalId": "order-1"}));
    assert_eq!(import(seeing).await["id"], created);

    // The scope `write` may request a link, so the response contains the link.
    let own = id(create(&app, blind, "own", &a_cart()).await);
    let link = ask(&app, blind, Method::POST, &format!("/api/carts/{own}/payment-link")).await.data(200);
    assert!(link["paymentLink"].is_string() && link["recoveryUrl"].is_string());
    ask(&app, blind, Method::GET, &format!("/api/carts/{own}/payment-link")).await.is_error(403, "FORBIDDEN");
    let deleted = ask(&app, blind, Method::DELETE, &format!("/api/carts/{own}")).await;
    is_blind(&deleted);
    assert_eq!(deleted.data(200), json!({"id": own, "deleted": true}));
}

#[tokio::test]
async fn an_operator_alone_neither_exports_nor_erases_a_person() {
    let app = App::new().await;
    let keys = keys(&app, &[("operator", &[Operator]), ("reader", &[Read]), ("writer", &[Write])]).await;
    let (operator, reader, writer) = (&keys[0], &keys[1], &keys[2]);
    let cart = app.cart().await;
    let link = app.ask(&cart).await.data(200);
    let export = "/api/erasure/export?email=ada@example.com";
    let person = json!({"email": "ada@example.com"});
    for (key, scope) in [(operator, "read"), (writer, "read")] {
        let refused = ask(&app, key, Method::GET, export).await;
        let message = refused.is_error(403, "FORBIDDEN")["message"].as_str().unwrap().to_owned();
        assert!(message.ends_with(&format!("scope {scope}")), "{message}");
    }
    for key in [operator, reader] {
        post(&app, key, "/api/erasure", &person).await.is_error(403, "FORBIDDEN");
    }
    assert_eq!(app.show(&cart).await["status"], "abandoned");

    // An export does not let its reader act for the shopper.
    let exported = ask(&app, reader, Method::GET, export).await;
    let token = link["recoveryUrl"].as_str().unwrap().rsplit('/').next().unwrap();
    for secret in [token, link["paymentLink"].as_str().unwrap()] {
        assert!(!exported.text.contains(secret), "{secret}");
    }
    let records = exported.data(200)["records"].clone();
    assert_eq!((&records["carts"][0]["id"], &records["recoveryLinks"][0]["cartId"]), (&json!(cart), &json!(cart)));
    assert!(records["recoveryLinks"][0].get("token").is_none() && records["paymentLinks"][0].get("url").is_none());

    let receipt = post(&app, writer, "/api/erasure", &person).await.data(200);
    assert_eq!(receipt["removed"]["carts"], json!(1));
    let path = format!("/api/erasure/{}", receipt["id"].as_str().unwrap());
    assert_eq!(ask(&app, operator, Method::GET, &path).await.data(200), receipt);
}

#[tokio::test]
async fn a_change_of_contents_tells_a_blind_key_nothing() {
    let app = Setup::default().without_worker().start().await;
    let keys = keys(&app, &[("blind", &[Write])]).await;
    let mut cart = a_cart();
    cart["externalId"] = json!("order-1");
    let id = app.cart_of(&cart).await;
    let path = format!("/api/carts/{id}");
    let patch = async |body: &Value| {
        app.send(app.bare_request(Method::PATCH, &path).header("x-api-key", &keys[0]).json(body)).await
    };
    for body in [
        json!({"totalValue": 0}),
        json!({"adjustments": [{"name": "Discount", "amount": -100}]}),
        json!({"adjustments": [{"name": "Discount", "amount": -50}], "totalValue": 999_999}),
        json!({"currency": "jpy"}),
    ] {
        let answer = patch(&body).await;
        is_blind(&answer);
        let details = answer.is_error(422, "VALIDATION_ERROR")["details"].clone();
        assert_eq!(details, json!([{"field": "body", "message": "does not fit the cart"}]));
    }
    // What the body itself says may be named.
    let answer = patch(&json!({"items": [{"name": "x", "quantity": 0, "price": 1}]})).await;
    assert_eq!(answer.is_error(422, "VALIDATION_ERROR")["details"][0]["field"], "items[0].quantity");
    let changed = patch(&json!({"customerName": "Grace"})).await;
    is_blind(&changed);
    changed.data(200);
    app.patch(&path, &json!({"status": "recovered"})).await.data(200);
    patch(&json!({"items": a_cart()["items"]})).await.is_error(409, "CONFLICT");
    app.delete(&path).await.data(200);
    let id = app.cart_of(&cart).await;
    // The cart with the external id has the contents of the body by then.
    let again = post(&app, &keys[0], "/api/carts", &cart).await;
    is_blind(&again);
    assert_eq!(again.data(200)["id"], json!(id));
}
