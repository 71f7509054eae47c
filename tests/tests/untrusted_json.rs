//! No body stops a process: hostile JSON on every route that takes a body, against the real api
//! with half of the usual stack.

use reqwest::{Method, StatusCode, header::CONTENT_TYPE};
use serde_json::Value;
use tests::{Contract, UNKNOWN_FIELD, a_cart, processes::Process};

use crate::processes::{SECRET, Shop};

/// Threads have 2 MiB by default. In a build without optimization frames are several times larger
/// than in a release.
const STACK_BYTES: usize = 1024 * 1024;
/// The limit for what all bodies together may add to the peak memory: each has up to 1 MiB, and
/// needs at most a dozen times as much while it is read.
const MEMORY_KIB: u64 = 64 * 1024;

const RAW_VALUE: &str = "$serde_json::private::RawValue";
const NUMBER: &str = "$serde_json::private::Number";

/// Arrays nested `depth` deep, with `inner` in the middle.
fn nested(depth: usize, inner: &str) -> String {
    format!("{}{inner}{}", "[".repeat(depth), "]".repeat(depth))
}

/// Escapes `text` for a JSON string, so that nested strings grow by a constant per quote and level.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\u005c").replace('"', "\\u0022")
}

/// JSON in a string in an object with serde_json's private key, nested: a parser that reads it
/// into a `Value` restarts its depth count at each level.
fn russian_doll() -> String {
    (0..52).fold("1".to_owned(), |inner, _| nested(120, &format!("{{\"{RAW_VALUE}\":\"{}\"}}", escaped(&inner))))
}

/// A valid cart with one more field, in the cart and in its item.
fn cart_with(extra: &str) -> String {
    format!(
        r#"{{"customerEmail":"ada@example.com","customerName":"Ada","{UNKNOWN_FIELD}":{extra},"items":[{{"name":"Teapot","quantity":2,"price":49.99,"{UNKNOWN_FIELD}":{extra}}}]}}"#
    )
}

/// A valid cart with this price.
fn cart_for(price: &str) -> String {
    format!(
        r#"{{"customerEmail":"ada@example.com","customerName":"Ada","items":[{{"name":"Teapot","quantity":2,"price":{price}}}]}}"#
    )
}

fn hostile_bodies() -> Vec<String> {
    let doll = russian_doll();
    let mebibyte = 1 << 20;
    let mut bodies = vec![
        doll.clone(),
        cart_with(&doll),
        format!(r#"{{"email":{doll}}}"#),
        format!(r#"{{"status":{doll}}}"#),
        format!(r#"{{"queue":{doll},"dryRun":{doll}}}"#),
        format!(r#"{{"{RAW_VALUE}":"{}"}}"#, escaped(&doll)),
        format!(r#"{{"id":"evt_1","type":"checkout.session.completed","data":{{"object":{{"metadata":{doll}}}}}}}"#),
        cart_for(&format!(r#"{{"{NUMBER}":"5"}}"#)),
        cart_for(&format!(r#"{{"{RAW_VALUE}":"5"}}"#)),
        nested(mebibyte / 2 - 1, ""),
        "[".repeat(mebibyte),
        "{\"a\":".repeat(mebibyte / 5),
        format!("{{{}\"z\":1}}", "\"a\":1,".repeat(mebibyte / 6 - 2)),
        format!("[{}1]", "[],".repeat(mebibyte / 3 - 2)),
        format!(r#"{{"items":[{}1]}}"#, "{},".repeat(mebibyte / 3 - 8)),
        format!("\"{}\"", "\\u0041".repeat(mebibyte / 6 - 1)),
        format!("1{}", "0".repeat(mebibyte - 1)),
        format!("1e{}", "9".repeat(mebibyte - 2)),
    ];
    // In a cell of CSV, and in a line between valid ones.
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    bodies.push(format!("customerEmail,customerName,items\nada@example.com,Ada,{}\n", quoted(&doll)));
    bodies.push(format!("{}\n{}\n{}\n", a_cart(), cart_with(&doll), a_cart()));
    bodies
}

/// The peak of the process's memory so far.
pub(crate) fn peak_kib(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn no_body_stops_the_api_on_any_route() {
    let shop = Shop::open().await;
    let mut variables = shop.api_variables();
    variables.push(("RATE_LIMIT_PER_MINUTE", "0".to_owned()));
    variables.push(("RUST_MIN_STACK", STACK_BYTES.to_string()));
    let mut api = Process::start("api", variables).await;
    api.says("api is listening").await;
    let cart = shop.cart().await;
    let bodies = hostile_bodies();
    // Once before the measurement, so that connections and prepared statements exist.
    let before = peak_kib(&api);

    // The other routes have no body.
    let document: Value = serde_json::from_str(&api::document()).unwrap();
    let takes_a_body = |operation: &&String| {
        let (method, path) = operation.split_once(' ').unwrap();
        document["paths"][path][method.to_lowercase()].get("requestBody").is_some()
    };
    let operations = Contract::get().operations();
    let dashboard = ["POST /sign-in".to_owned(), "POST /carts/{id}/expire".to_owned()];
    let mut sent = 0;
    for operation in operations.iter().filter(takes_a_body).chain(&dashboard) {
        let (method, path) = operation.split_once(' ').unwrap();
        let path = path.replace("{id}", &cart).replace("{name}", "expiry");
        let types = match path.as_str() {
            "/api/carts/import" => &["application/x-ndjson", "text/csv"][..],
            path if path.starts_with("/api/") => &["application/json"][..],
            _ => &["application/x-www-form-urlencoded"][..],
        };
        for (content_type, body) in types.iter().flat_map(|kind| bodies.iter().map(move |body| (kind, body))) {
            let now = common::clock::Clock::system().now().timestamp();
            let request = shop
                .http
                .request(Method::from_bytes(method.as_bytes()).unwrap(), shop.url(&path))
                .header("x-api-key", "key")
                .header("idempotency-key", format!("hostile-{sent}"))
                .header("stripe-signature", sandbox::stripe::sign(body, SECRET, now))
                .header(CONTENT_TYPE, *content_type)
                .body(body.clone());
            let head: String = body.chars().take(60).collect();
            let response = request.send().await.unwrap_or_else(|error| panic!("{operation} with {head}: {error}"));
            let status = response.status();
            let answer = response.text().await.unwrap_or_else(|error| panic!("{operation} with {head}: {error}"));
            assert!(!status.is_server_error(), "{operation} with {head}: {status} {answer}");
            if body.contains(NUMBER) && path == "/api/carts" {
                assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "an object is no number: {answer}");
            }
            if path.ends_with("/import") && status.is_success() {
                let last: Value = serde_json::from_str(answer.lines().last().unwrap()).unwrap();
                assert!(last.get("summary").is_some(), "{operation} with {head}: the import was cut off");
            }
            sent += 1;
        }
    }
    assert!(sent > 150, "{sent} requests are not every route");
    let added = peak_kib(&api) - before;
    println!("{sent} hostile bodies, {STACK_BYTES} bytes of stack, the peak grew by {added} KiB");
    assert!(added < MEMORY_KIB, "the peak grew by {added} KiB");
    assert_eq!(shop.http.get(shop.url("/healthz")).send().await.unwrap().status(), 200);
}
