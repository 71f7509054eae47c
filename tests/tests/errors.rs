use std::collections::HashSet;

use reqwest::Method;
use serde_json::json;
use tests::{Setup, a_cart};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn every_refusal_has_the_envelope() {
    let app = Setup::default().without_worker().start().await;
    let id = app.cart().await;
    for (method, path, status, code) in [
        (Method::GET, "/api/nothing", 404, "NOT_FOUND"),
        (Method::GET, "/nothing", 404, "NOT_FOUND"),
        (Method::GET, "/api/carts/nonsense", 404, "NOT_FOUND"),
        (Method::GET, "/api/carts/cart_unknown", 404, "NOT_FOUND"),
        (Method::GET, "/api/carts/cart_%00", 404, "NOT_FOUND"),
        (Method::GET, "/api/carts/%ff", 404, "NOT_FOUND"),
        (Method::GET, "/api/carts?status=%ff", 400, "BAD_REQUEST"),
        (Method::POST, "/api/carts/cart_unknown/payment-link", 404, "NOT_FOUND"),
        (Method::GET, &format!("/api/carts/{id}/payment-link"), 404, "NOT_FOUND"),
        (Method::PUT, "/api/carts", 405, "METHOD_NOT_ALLOWED"),
        (Method::POST, "/api/analytics", 405, "METHOD_NOT_ALLOWED"),
        (Method::GET, "/api/webhooks/stripe", 405, "METHOD_NOT_ALLOWED"),
        (Method::POST, "/healthz", 405, "METHOD_NOT_ALLOWED"),
        (Method::POST, "/api/carts", 415, "UNSUPPORTED_MEDIA_TYPE"),
    ] {
        app.send(app.request(method, path)).await.is_error(status, code);
    }
    let allowed = app.send(app.request(Method::PUT, "/api/carts")).await;
    assert_eq!(allowed.header("allow"), "GET,HEAD,POST");
}

/// Messages say what is wrong in the client's terms.
#[tokio::test]
async fn messages_say_what_to_do() {
    let app = Setup::default().without_worker().start().await;
    let id = app.cart().await;
    for path in ["/api/carts/", "/api/nothing", "/nothing"] {
        assert_eq!(app.get(path).await.is_error(404, "NOT_FOUND")["message"], "No such endpoint");
    }
    let mut cart = a_cart();
    cart["items"][0]["price"] = json!("9.99");
    cart["totalValue"] = json!("19.98");
    let refused = app.post("/api/carts", &cart).await;
    let error = refused.is_error(422, "VALIDATION_ERROR");
    let message = "must be a number, not a string";
    assert_eq!(
        error["details"],
        json!([{"field": "items[0].price", "message": message}, {"field": "totalValue", "message": message}])
    );
    for (body, message) in [
        (json!([]), "must be an object"),
        (
            json!({}),
            "must name a field to change: status, externalId, customerEmail, customerName, items, adjustments, currency, locale, acceptsMarketing or metadata",
        ),
    ] {
        let refused = app.patch(&format!("/api/carts/{id}"), &body).await;
        let error = refused.is_error(422, "VALIDATION_ERROR");
        assert_eq!(error["message"], format!("The body {message}"));
        assert_eq!(error["details"], json!([{"field": "body", "message": message}]));
    }
    let renamed = app.patch(&format!("/api/carts/{id}"), &json!({"customerName": "Ada King"})).await.data(200);
    assert_eq!(renamed["customerName"], "Ada King");
}

#[tokio::test]
async fn malformed_bodies_are_refused() {
    let app = Setup::default().without_worker().start().await;
    let post = async |kind: &str, body: Vec<u8>| {
        app.send(app.request(Method::POST, "/api/carts").header("content-type", kind).body(body)).await
    };
    for body in ["", "{", "{\"a\":1}}", "\u{feff}{}", "nul"] {
        post("application/json", body.into()).await.is_error(400, "BAD_REQUEST");
    }
    post("application/json", vec![b'{', b'"', 0xff, b'"', b'}']).await.is_error(400, "BAD_REQUEST");
    post("application/json", "[".repeat(100_000).into_bytes()).await.is_error(400, "BAD_REQUEST");
    for body in ["[]", "7", "null", "\"cart\"", "{}"] {
        let answer = post("application/json; charset=utf-8", body.into()).await;
        assert!(!answer.is_error(422, "VALIDATION_ERROR")["details"].as_array().unwrap().is_empty());
    }
    post("text/plain", a_cart().to_string().into()).await.is_error(415, "UNSUPPORTED_MEDIA_TYPE");
    post("application/json", vec![b' '; 1024 * 1024 + 1]).await.is_error(413, "PAYLOAD_TOO_LARGE");
    // One byte less is read and found to be malformed JSON.
    post("application/json", vec![b' '; 1024 * 1024]).await.is_error(400, "BAD_REQUEST");
    let patch = app.cart().await;
    for body in [json!({}), json!({"status": 1}), json!({"status": "lost"}), json!([])] {
        app.patch(&format!("/api/carts/{patch}"), &body).await.is_error(422, "VALIDATION_ERROR");
    }
}

#[tokio::test]
async fn a_body_without_a_length_is_limited_too() {
    let app = Setup::default().without_worker().start().await;
    let mut connection = tokio::net::TcpStream::connect(app.address).await.unwrap();
    let head = "POST /api/carts HTTP/1.1\r\nhost: x\r\nx-api-key: test-key\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    connection.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    for _ in 0..20 {
        if connection.write_all(chunk.as_bytes()).await.is_err() {
            break; // the api has stopped reading
        }
    }
    let mut answer = Vec::new();
    let _ = connection.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("PAYLOAD_TOO_LARGE"), "{answer}");
}

#[tokio::test]
async fn every_route_but_the_webhook_requires_a_key() {
    let app = Setup::default().without_worker().start().await;
    for (method, path) in [
        (Method::GET, "/api/carts"),
        (Method::POST, "/api/carts"),
        (Method::GET, "/api/carts/cart_x"),
        (Method::GET, "/api/analytics"),
        (Method::POST, "/api/carts/cart_x/payment-link"),
        (Method::GET, "/api/nothing"),
        (Method::PUT, "/api/carts"),
    ] {
        app.send(app.bare_request(method.clone(), path)).await.is_error(401, "UNAUTHORIZED");
        app.send(app.bare_request(method, path).header("x-api-key", "test-key ")).await;
        app.send(app.bare_request(Method::GET, path).header("x-api-key", "wrong")).await.is_error(401, "UNAUTHORIZED");
    }
    let rotated = app.bare_request(Method::GET, "/api/carts").header("x-api-key", "old-key");
    app.send(rotated).await.data(200);
    app.send(app.bare_request(Method::POST, "/api/webhooks/stripe")).await.is_error(400, "BAD_REQUEST");
    for path in ["/healthz", "/readyz"] {
        app.send(app.bare_request(Method::GET, path)).await.data(200);
    }
}

#[tokio::test]
async fn every_response_has_a_request_id() {
    let app = Setup::default().without_worker().start().await;
    let ask = async |id: &str| app.send(app.request(Method::GET, "/api/carts").header("x-request-id", id)).await;
    assert_eq!(ask("from-the-client.1").await.header("x-request-id"), "from-the-client.1");
    let (one, two) = (ask("not a word").await, ask(&"x".repeat(129)).await);
    let ids: HashSet<&str> = [one.header("x-request-id"), two.header("x-request-id")].into();
    assert!(ids.iter().all(|id| id.len() == 36) && ids.len() == 2, "{ids:?}");
}

#[tokio::test]
async fn the_rate_limit_counts_before_the_key_and_by_client() {
    let app = Setup::default()
        .set("RATE_LIMIT_PER_MINUTE", "3")
        .set("TRUSTED_PROXIES", "127.0.0.0/8")
        .without_worker()
        .start()
        .await;
    let ask = async |client: &str| {
        app.send(app.bare_request(Method::GET, "/api/carts").header("x-forwarded-for", client)).await
    };
    // The limit of three a minute allows one more every 20 s, so this must finish within 20 s.
    for _ in 0..3 {
        ask("198.51.100.1, 203.0.113.7").await.is_error(401, "UNAUTHORIZED");
    }
    let limited = ask("10.9.9.9, 203.0.113.7").await;
    limited.is_error(429, "RATE_LIMITED");
    let seconds: u64 = limited.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&seconds));
    ask("203.0.113.8").await.is_error(401, "UNAUTHORIZED");
    // Webhooks and health checks are not limited.
    for _ in 0..10 {
        app.send(app.bare_request(Method::POST, "/api/webhooks/stripe")).await.is_error(400, "BAD_REQUEST");
        app.send(app.bare_request(Method::GET, "/healthz")).await.data(200);
    }
}

#[tokio::test]
async fn without_trusted_proxies_the_peer_is_the_client() {
    let app = Setup::default().set("RATE_LIMIT_PER_MINUTE", "2").without_worker().start().await;
    // The limit of two a minute allows one more every 30 s, so this must finish within 30 s.
    for n in 0..3 {
        let request = app.request(Method::GET, "/api/carts").header("x-forwarded-for", format!("203.0.113.{n}"));
        let answer = app.send(request).await;
        assert_eq!(answer.status, if n < 2 { 200 } else { 429 });
    }
}

#[tokio::test]
async fn an_unavailable_postgres_is_reported_and_survived() {
    let app = Setup::default().behind_a_door().without_worker().start().await;
    let id = app.cart().await;
    app.door.as_ref().unwrap().close().await;
    for path in ["/readyz", "/api/carts"] {
        let answer = app.get(path).await;
        answer.is_error(503, "UNAVAILABLE");
        assert!(answer.headers.contains_key("retry-after"));
    }
    app.get("/healthz").await.data(200);
    app.door.as_ref().unwrap().open().await;
    tests::eventually("it is ready again", async || app.get("/readyz").await.status == 200).await;
    assert_eq!(app.show(&id).await["id"], json!(id));
}

/// Postgres can't store NUL in text, so every route refuses it.
#[tokio::test]
async fn nul_is_refused_in_every_address() {
    let app = Setup::default().without_worker().start().await;
    let form = app.bare_request(Method::POST, "/sign-in").header("content-type", "application/x-www-form-urlencoded");
    let signed_in = app.send(form.body("key=test-key")).await;
    let cookie = signed_in.header("set-cookie").split(';').next().unwrap().to_owned();
    let get = async |path: &str| app.send(app.request(Method::GET, path).header("cookie", &cookie)).await.status;
    for path in [
        "/api/carts",
        "/api/carts/export",
        "/api/analytics",
        "/api/jobs",
        "/api/erasure/export",
        "/",
        "/carts",
        "/jobs",
        "/jobs/retry",
        "/jobs/cancel",
        "/sign-in",
    ] {
        for name in [
            "kind",
            "queue",
            "state",
            "status",
            "email",
            "externalId",
            "cursor",
            "page",
            "from",
            "period",
            "next",
            "error",
            "q",
            "%00",
        ] {
            assert_eq!(get(&format!("{path}?{name}=a%00b")).await, 400, "{path} with {name}");
        }
    }
    for path in [
        "/api/carts/%00",
        "/api/carts/%00/timeline",
        "/api/jobs/%00",
        "/carts/%00",
        "/jobs/%00",
        "/pay/%00",
        "/assets/%00",
    ] {
        let status = get(path).await;
        assert!((400..500).contains(&status), "{path}: {status}");
    }
    for path in ["/api/queues/%00/pause", "/api/jobs/%00/retry", "/api/carts/%00/payment-link"] {
        let status = app.send(app.request(Method::POST, path)).await.status;
        assert!((400..500).contains(&status), "{path}: {status}");
    }
}
