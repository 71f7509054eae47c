//! `Prefer: handling=strict`: unknown fields of a body are refused instead of ignored.

use reqwest::Method;
use serde_json::{Value, json};
use tests::{Answer, App, Contract, Setup, a_cart, a_line};

async fn strict(app: &App, method: Method, path: &str, body: &Value) -> Answer {
    app.send(app.request(method, path).header("prefer", "handling=strict").json(body)).await
}

fn fields(answer: &Answer) -> Vec<&str> {
    let details = answer.is_error(422, "VALIDATION_ERROR")["details"].as_array().unwrap();
    details.iter().map(|error| error["field"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn unknown_fields_are_ignored_unless_handling_is_strict() {
    let app = Setup::default().without_worker().start().await;
    let mut cart = a_cart();
    cart["curency"] = json!("eur");
    cart["items"][0]["prise"] = json!(1);
    cart["adjustments"] = json!([{"name": "Shipping", "amount": 1}, {"name": "Discount", "amount": -1, "kind": "x"}]);
    cart["metadata"] = json!({"any": "name"});
    let lenient = app.post("/api/carts", &cart).await;
    assert_eq!(lenient.header("preference-applied"), "");
    lenient.data(201);
    let refused = strict(&app, Method::POST, "/api/carts", &cart).await;
    assert_eq!(fields(&refused), ["adjustments[1].kind", "curency", "items[0].prise"]);
    let message = &refused.body["error"]["details"][1]["message"];
    assert_eq!(message, "is not a field of this request; did you mean currency?");
    assert_eq!(refused.header("preference-applied"), "handling=strict");
    // Without unknown fields the request is as any other.
    let accepted = strict(&app, Method::POST, "/api/carts", &a_cart()).await;
    assert_eq!(accepted.header("preference-applied"), "handling=strict");
    let id = accepted.data(201)["id"].as_str().unwrap().to_owned();
    let path = format!("/api/carts/{id}");
    let refused = strict(&app, Method::PATCH, &path, &json!({"customerName": "Ada", "abandonedAt": null})).await;
    assert_eq!(fields(&refused), ["abandonedAt"]);
    let change =
        json!({"customerName": "Ada King", "status": "recovered", "recoveredAt": null, "items": a_cart()["items"]});
    assert_eq!(strict(&app, Method::PATCH, &path, &change).await.data(200)["customerName"], "Ada King");
    app.post("/api/carts", &json!({"unknown": 1})).await.is_error(422, "VALIDATION_ERROR");
}

/// A new operation can't be forgotten: its fields are those of its description.
#[tokio::test]
async fn every_body_can_be_handled_strictly() {
    let app = Setup::default().without_worker().start().await;
    let document: Value = serde_json::from_str(&api::document()).unwrap();
    let mut count = 0;
    for operation in Contract::get().operations() {
        let (method, path) = operation.split_once(' ').unwrap();
        let described = &document["paths"][path][method.to_lowercase()];
        let Some(content) = described["requestBody"]["content"].get("application/json") else { continue };
        if described["security"].as_array().unwrap().is_empty() {
            continue; // events of Stripe have many fields
        }
        let mut body = content["example"].clone();
        body["fieldOfATest"] = json!(1);
        let answer = strict(&app, method.parse().unwrap(), &path.replace("{id}", "cart_unknown"), &body).await;
        if answer.status != 404 {
            assert_eq!(fields(&answer), ["fieldOfATest"], "{operation}");
            assert_eq!(answer.header("preference-applied"), "handling=strict", "{operation}");
            count += 1;
        }
    }
    assert!(count >= 3, "{count}");
}

#[tokio::test]
async fn an_import_can_be_strict() {
    let app = Setup::default().without_worker().start().await;
    let import = async |kind: &str, prefer: &str, body: String| {
        let request = app.request(Method::POST, "/api/carts/import").header("content-type", kind);
        app.send(request.header("prefer", prefer).body(body)).await
    };
    let unknown = a_line(json!({"colour": "red", "items": [{"name": "Tea", "quantity": 1, "price": 1, "size": "L"}]}));
    // An export has fields that the server computes.
    let exported = a_line(json!({"id": "cart_x", "createdAt": "2026-01-01T00:00:00Z", "status": "abandoned"}));
    let file = format!("{unknown}\n{exported}\n");
    let lenient = import("application/x-ndjson", "return=minimal", file.clone()).await;
    assert_eq!((lenient.text.lines().count(), lenient.header("preference-applied")), (1, "return=minimal"));
    let answer = import("application/x-ndjson", "handling=strict, return=minimal", file).await;
    assert_eq!(answer.header("preference-applied"), "return=minimal, handling=strict");
    let lines: Vec<Value> = answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let details = lines[0]["error"]["details"].as_array().unwrap();
    let names: Vec<&str> = details.iter().map(|error| error["field"].as_str().unwrap()).collect();
    assert_eq!((&lines[0]["line"], names.as_slice()), (&json!(1), &["colour", "items[0].size"][..]));
    assert_eq!(lines[1]["summary"], json!({"lines": 2, "created": 1, "exists": 0, "errors": 1}));
    let csv = "id,customerEmail,items,colour\n".to_owned();
    assert_eq!(import("text/csv", "handling=lenient", csv.clone()).await.status, 200);
    assert_eq!(fields(&import("text/csv", "handling=strict", csv).await), ["colour"]);
}
