//! Random requests: every response is an envelope without a 5xx status, and the api continues.

use std::time::Instant;

use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config, TestRunner},
};
use reqwest::header::{HeaderName, HeaderValue};
use tests::{App, Contract, DEADLINE, Setup, is_of_the_dashboard};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const PATHS: fuzz::Corpus = fuzz::corpus!("paths");
const BODIES: [fuzz::Corpus; 5] = [
    fuzz::corpus!("carts"),
    fuzz::corpus!("events"),
    fuzz::corpus!("ndjson"),
    fuzz::corpus!("csv"),
    fuzz::corpus!("queries"),
];

/// A request as bytes.
#[derive(Debug, Clone)]
struct Request {
    method: String,
    path: String,
    query: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn requests() -> impl Strategy<Value = Request> {
    let method = prop_oneof![
        9 => select(vec!["GET", "POST", "PATCH", "DELETE", "HEAD", "PUT", "OPTIONS"]).prop_map(str::to_owned),
        1 => "[A-Z!#$%&'*+.^_`|~-]{1,12}",
    ];
    let header = prop_oneof![
        3 => select(vec!["application/json", "application/x-ndjson", "text/csv", "application/x-www-form-urlencoded"])
            .prop_map(|value| ("content-type", value.to_owned())),
        1 => fuzz::corpus!("media_types").near().prop_map(|value| ("content-type", value)),
        1 => fuzz::corpus!("media_types").near().prop_map(|value| ("accept", value)),
        1 => fuzz::corpus!("tags").near().prop_map(|value| ("if-none-match", value)),
        1 => fuzz::corpus!("tags").near().prop_map(|value| ("if-match", value)),
        1 => fuzz::corpus!("cookies").near().prop_map(|value| ("cookie", value)),
        1 => fuzz::corpus!("signatures").near().prop_map(|value| ("stripe-signature", value)),
        1 => "[ -~]{0,300}".prop_map(|value| ("idempotency-key", value)),
        1 => select(vec!["respond-async", "wait=0", "wait=-1", "wait=99999999999999999999", "return=minimal", "handling=strict", ",;="])
            .prop_map(|value| ("prefer", value.to_owned())),
        1 => "[ -~]{0,100}".prop_map(|value| ("x-request-id", value)),
        1 => "[ -~]{0,100}".prop_map(|value| ("x-forwarded-for", value)),
        1 => "00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9]{2}|[ -~]{0,60}".prop_map(|value| ("traceparent", value)),
        1 => "[ -~]{0,60}".prop_map(|value| ("origin", value)),
        1 => "[ -~]{0,60}".prop_map(|value| ("accept-encoding", value)),
        1 => "[ -~]{0,60}".prop_map(|value| ("content-encoding", value)),
    ];
    let body = prop_oneof![
        1 => Just(Vec::new()),
        4 => select(&BODIES[..]).prop_flat_map(fuzz::Corpus::near_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..200),
    ];
    (method, PATHS.near(), fuzz::corpus!("queries").near(), proptest::collection::vec(header, 0..6), body)
        .prop_map(|(method, path, query, headers, body)| Request { method, path, query, headers, body })
}

/// Sometimes names an existing cart, job or token.
fn named(path: &str, cart: &str, token: &str) -> String {
    path.replace("CART", cart).replace("TOKEN", token)
}

async fn hold(app: &App, cart: &str, token: &str, request: &Request) -> Result<(), TestCaseError> {
    let path = named(&request.path, cart, token);
    let Ok(method) = reqwest::Method::from_bytes(request.method.as_bytes()) else { return Ok(()) };
    let address = format!("http://{}/{}?{}", app.address, path.trim_start_matches('/'), request.query);
    let Ok(url) = reqwest::Url::parse(&address) else { return Ok(()) };
    let sent_to = url.path().to_owned();
    let mut built = app.bare_request(method.clone(), "/").header("x-api-key", "test-key").build().expect("it is good");
    *built.url_mut() = url;
    for (name, value) in &request.headers {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            built.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    *built.body_mut() = Some(request.body.clone().into());
    let begun = Instant::now();
    let response = app.execute(built).await;
    let response = response.map_err(|error| TestCaseError::fail(format!("no answer: {error:?}")))?;
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.map_err(|error| TestCaseError::fail(format!("half an answer: {error:?}")))?;
    // There is no worker to make the checkout, so the page returns 503 with `Retry-After`.
    let being_prepared = sent_to.starts_with("/pay/") && status.as_u16() == 503 && headers.contains_key("retry-after");
    prop_assert!(being_prepared || !status.is_server_error(), "{status} {text}");
    prop_assert!(begun.elapsed() < DEADLINE, "it took {:?}", begun.elapsed());
    // Pages for people have no envelope.
    let for_people = is_of_the_dashboard(&sent_to) || sent_to.starts_with("/pay") || sent_to.starts_with("/docs");
    if status.is_client_error() && !for_people && method != reqwest::Method::HEAD {
        let body: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| TestCaseError::fail(format!("{error}: {status} {text:?}")))?;
        prop_assert_eq!(&body["success"], &serde_json::json!(false));
        prop_assert!(body["error"]["code"].is_string() && body["error"]["message"].is_string(), "{}", body);
        prop_assert!(headers.contains_key("x-request-id"));
    }
    // The OpenAPI document applies, too.
    if ["GET", "POST", "PATCH", "DELETE"].contains(&method.as_str()) && !for_people {
        Contract::get().hold(&method, &sent_to, status.as_u16(), &headers, &text);
    }
    Ok(())
}

async fn with_everything() -> (App, String, String) {
    let app = Setup::default().set("PAYMENT_LINK_WAIT", "1ms").without_worker().start().await;
    let cart = app.cart().await;
    app.ask(&cart).await;
    let token: String = sqlx::query_scalar("select token from recovery_links").fetch_one(&app.pool).await.unwrap();
    (app, cart, token)
}

#[test]
fn every_request_is_answered_with_an_envelope() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (app, cart, token) = runtime.block_on(with_everything());
    // Each case takes some milliseconds; PROPTEST_CASES sets their number.
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(400);
    let config = Config { cases, ..Config::with_source_file(file!()) };
    TestRunner::new(config).run(&requests(), |request| runtime.block_on(hold(&app, &cart, &token, &request))).unwrap();
    runtime.block_on(async { assert_eq!(app.get("/healthz").await.status, 200) });
}

/// Bytes that are not HTTP, or half a request, end only their connection.
#[test]
fn malformed_bytes_end_only_their_connection() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (app, cart, _) = runtime.block_on(with_everything());
    let request = format!(
        "POST /api/carts/{cart}/payment-link HTTP/1.1\r\nhost: a\r\nx-api-key: test-key\r\ncontent-length: 2\r\n\r\n{{}}"
    );
    let bytes = (fuzz::corpus!("http").near_bytes(), any::<bool>()).prop_map(move |(bytes, whole)| {
        let mut all = if whole { request.clone().into_bytes() } else { Vec::new() };
        all.extend(bytes);
        all
    });
    let config = Config { cases: 150, ..Config::with_source_file(file!()) };
    let answered = |bytes: Vec<u8>| {
        let address = app.address;
        runtime.block_on(async move {
            let mut stream = TcpStream::connect(address).await.expect("the api is there");
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            let mut answer = Vec::new();
            let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
            prop_assert!(read.is_ok(), "the connection stays open");
            let answer = String::from_utf8_lossy(&answer);
            prop_assert!(!answer.contains("HTTP/1.1 5"), "{answer}");
            Ok(())
        })
    };
    TestRunner::new(config).run(&bytes, answered).unwrap();
    runtime.block_on(async { assert_eq!(app.get("/healthz").await.status, 200) });
}
