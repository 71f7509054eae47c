//! After an early response, a keep-alive connection of HTTP/1.1 can be used again, or the response
//! has `connection: close`: every request gets a response.

use std::{net::SocketAddr, time::Duration};

use tests::{App, Setup};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

/// The timeout of each response, for a busy machine.
const TIMEOUT: Duration = Duration::from_secs(20);
const NEXT: &str = "GET /healthz HTTP/1.1\r\nhost: x\r\nx-request-id: the-next\r\n\r\n";

struct Answer {
    head: String,
    body: String,
}

impl Answer {
    fn status(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    fn closes(&self) -> bool {
        self.head.to_ascii_lowercase().contains("\r\nconnection: close\r\n")
    }
}

/// Reads a complete response; `None` if the connection ended.
async fn answer(reader: &mut (impl AsyncBufReadExt + Unpin)) -> Option<Answer> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let read = timeout(TIMEOUT, reader.read_line(&mut head)).await.expect("it answers");
        if !matches!(read, Ok(1..)) {
            assert!(head.is_empty(), "half an answer: {head}");
            return None;
        }
    }
    let lower = head.to_ascii_lowercase();
    let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).await.expect("a whole answer");
    Some(Answer { head, body: String::from_utf8(body).unwrap() })
}

/// Sends a head, waits for the response, then sends the body and another request. Returns the
/// response's status, and whether it had `connection: close`.
async fn early(address: SocketAddr, head: &str, body: &str) -> (String, bool) {
    let (reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
    let mut reader = BufReader::new(reader);
    writer.write_all(head.as_bytes()).await.unwrap();
    let first = answer(&mut reader).await.expect("an answer");
    assert!(!first.head.starts_with("HTTP/1.1 100"), "the body is not wanted: {head}");
    let _ = writer.write_all(body.as_bytes()).await;
    let _ = writer.write_all(NEXT.as_bytes()).await;
    let next = answer(&mut reader).await;
    if first.closes() {
        assert!(next.is_none(), "it said that the connection ends: {head}");
    } else {
        let next = next.unwrap_or_else(|| panic!("the next request got no answer: {head}{}", first.head));
        assert_eq!(next.status(), "200", "{head}{}", next.head);
        assert!(next.head.contains("the-next"), "{}", next.head);
    }
    (first.status().to_owned(), first.closes())
}

async fn an_app() -> App {
    Setup::default().without_worker().start().await
}

#[tokio::test]
async fn every_request_after_an_early_response_is_answered() {
    let app = an_app().await;
    let (key, json) = ("x-api-key: test-key\r\n", "content-type: application/json\r\n");
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    for (line, headers, status) in [
        ("POST /api/carts", json.to_owned(), "401"),
        ("POST /api/carts", format!("{json}x-api-key: wrong\r\n"), "401"),
        ("POST /api/carts/import", "content-type: text/csv\r\n".to_owned(), "401"),
        ("PATCH /api/carts/cart_x", json.to_owned(), "401"),
        ("DELETE /api/carts/cart_x", key.to_owned(), "404"),
        ("POST /api/carts", format!("{key}content-type: text/plain\r\n"), "415"),
        ("POST /api/carts", format!("{key}{json}content-encoding: gzip\r\n"), "415"),
        ("POST /api/carts/import", format!("{key}{json}"), "415"),
        ("POST /api/carts/cart_x/payment-link", format!("{key}{json}"), "404"),
        ("PUT /api/carts", format!("{key}{json}"), "405"),
        ("POST /api/nothing", format!("{key}{json}"), "404"),
        ("POST /nothing", json.to_owned(), "404"),
        ("POST /healthz", json.to_owned(), "405"),
        ("GET /healthz", String::new(), "200"),
        ("POST /api/webhooks/stripe", format!("{json}content-encoding: gzip\r\n"), "415"),
        ("POST /sign-out", form.to_owned(), "303"),
        ("POST /jobs/retry", form.to_owned(), "303"),
        ("POST /sign-in", format!("{form}sec-fetch-site: cross-site\r\n"), "400"),
        ("POST /pay/none", json.to_owned(), "404"),
    ] {
        for (length, body) in [
            ("content-length: 5\r\n".to_owned(), "hello".to_owned()),
            ("transfer-encoding: chunked\r\n".to_owned(), "5\r\nhello\r\n0\r\n\r\n".to_owned()),
            ("content-length: 300000\r\n".to_owned(), "x".repeat(300_000)),
        ] {
            for expect in ["", "expect: 100-continue\r\n"] {
                let head = format!("{line} HTTP/1.1\r\nhost: x\r\n{headers}{length}{expect}\r\n");
                let (received, closes) = early(app.address, &head, &body).await;
                assert_eq!(received, status, "{head}");
                assert!(closes, "a body that is not there is not waited for: {head}");
            }
        }
    }
    let large = format!("POST /api/carts HTTP/1.1\r\nhost: x\r\n{key}{json}content-length: 2000000\r\n\r\n");
    assert_eq!(early(app.address, &large, &"x".repeat(2_000_000)).await, ("413".to_owned(), true));
    let large = large.replace("/api/carts", "/api/webhooks/stripe");
    assert_eq!(early(app.address, &large, &"x".repeat(2_000_000)).await, ("413".to_owned(), true));
}

#[tokio::test]
async fn a_body_that_has_arrived_keeps_its_connection() {
    let app = an_app().await;
    let (reader, mut writer) = TcpStream::connect(app.address).await.unwrap().into_split();
    let mut reader = BufReader::new(reader);
    // All requests are sent at once (pipelining).
    for (line, key, status) in [
        ("POST /api/carts", "", "401"),
        ("PUT /api/carts", "x-api-key: test-key\r\n", "405"),
        ("POST /api/carts/cart_x/payment-link", "x-api-key: test-key\r\n", "404"),
        ("POST /nothing", "", "404"),
    ] {
        let lengths = ["content-length: 5\r\n\r\nhello", "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"];
        for rest in lengths {
            let both = format!("{line} HTTP/1.1\r\nhost: x\r\n{key}content-type: text/plain\r\n{rest}{NEXT}");
            writer.write_all(both.as_bytes()).await.unwrap();
            let first = answer(&mut reader).await.expect("an answer");
            assert_eq!((first.status(), first.closes()), (status, false), "{both}: {}", first.head);
            let next = answer(&mut reader).await.expect("the next is answered");
            assert!(next.body.contains("alive"), "{}", next.body);
        }
    }
}

#[tokio::test]
async fn every_request_beyond_the_rate_limit_is_answered() {
    let app = Setup::default().set("RATE_LIMIT_PER_MINUTE", "1").without_worker().start().await;
    let head = "POST /api/carts HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n";
    assert_eq!(early(app.address, head, "hello").await.0, "401");
    assert_eq!(early(app.address, head, "hello").await, ("429".to_owned(), true));
}

/// A refused import stops reading its body; the response has `connection: close`.
#[tokio::test]
async fn an_import_refused_halfway_closes_its_connection() {
    let app = an_app().await;
    let head = "POST /api/carts/import HTTP/1.1\r\nhost: x\r\nx-api-key: test-key\r\ncontent-type: text/csv\r\ncontent-length: 1000\r\n\r\nnothing,known\r\na,b\r\n";
    let (status, closes) = early(app.address, head, &"x".repeat(1000 - 20)).await;
    assert!(status.starts_with('4') && closes, "{status}");
}
