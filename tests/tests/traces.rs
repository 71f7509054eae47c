//! A trace leads from a request to its job, over two processes, to a collector.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value as AnyValue},
    trace::v1::{Span, status::StatusCode},
};
use prost::Message;
use sandbox::stripe::{Fault, Operation};
use serde_json::Value;
use tests::{OF_THE_SHOPPER, a_cart, eventually, processes::Process};
use tokio::net::TcpListener;

#[cfg(target_os = "linux")]
use crate::hostile::{AT_ONCE, exchange};
use crate::processes::{Shop, free_address};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT_SPAN: &str = "00f067aa0ba902b7";

/// An OTLP collector over HTTP that records each span with its service.
#[derive(Debug, Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<(String, Span)>>>,
}

impl Collector {
    async fn open() -> (Self, SocketAddr) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/v1/traces", post(take)).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, address)
    }

    fn all(&self) -> Vec<(String, Span)> {
        self.spans.lock().unwrap().clone()
    }

    /// The span of this name in the client's trace.
    fn find(&self, name: &str) -> Option<(String, Span)> {
        self.all().into_iter().find(|(_, span)| span.name == name && hex(&span.trace_id) == TRACE)
    }
}

async fn take(State(collector): State<Collector>, body: Bytes) {
    let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.unwrap_or_default();
        let service = text(&resource.attributes, "service.name");
        let spans = of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans);
        collector.spans.lock().unwrap().extend(spans.map(|span| (service.clone(), span)));
    }
}

fn text(attributes: &[KeyValue], name: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == name);
    match found.and_then(|attribute| attribute.value.clone()).and_then(|value| value.value) {
        Some(AnyValue::StringValue(text)) => text,
        Some(AnyValue::IntValue(number)) => number.to_string(),
        other => panic!("{name} is {other:?} among {attributes:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Exports often, so that the test does not wait, or rarely, so that only the shutdown exports.
fn exporting(mut variables: Vec<(&'static str, String)>, to: SocketAddr, every_ms: u32) -> Vec<(&'static str, String)> {
    variables.push(("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{to}")));
    variables.push(("OTEL_BSP_SCHEDULE_DELAY", every_ms.to_string()));
    variables
}

#[tokio::test]
async fn one_trace_leads_from_the_client_through_the_request_and_its_job_to_stripe() {
    let shop = Shop::open().await;
    let (collector, address) = Collector::open().await;
    let mut api = Process::start("api", exporting(shop.api_variables(), address, 50)).await;
    let mut worker = Process::start("worker", exporting(shop.worker_variables(), address, 50)).await;
    api.says("api is listening").await;
    worker.says("worker is working").await;

    let id = shop.cart().await;
    let request = shop.http.post(shop.url(&format!("/api/carts/{id}/payment-link")));
    let traceparent = format!("00-{TRACE}-{CLIENT_SPAN}-01");
    let request = request.header("traceparent", traceparent).header("x-request-id", "mine");
    let (status, link) = shop.call(request).await;
    assert_eq!(status, 200, "{link}");

    let names = ["POST /api/carts/{id}/payment-link", "create_payment_link", "stripe create"];
    eventually("the collector has the whole trace", async || names.iter().all(|name| collector.find(name).is_some()))
        .await;
    let [(serving, request), (working, job), (calling, call)] = names.map(|name| collector.find(name).unwrap());
    assert_eq!((serving.as_str(), working.as_str()), ("quick-checkout-api", "quick-checkout-worker"));
    assert_eq!(calling, working);
    assert_eq!(hex(&request.parent_span_id), CLIENT_SPAN);
    assert_eq!(job.parent_span_id, request.span_id);
    assert_eq!(call.parent_span_id, job.span_id);
    assert_eq!(text(&request.attributes, "http.response.status_code"), "200");
    assert_eq!(text(&request.attributes, "request.id"), "mine");
    assert_eq!(text(&job.attributes, "job.queue"), "payment-links");
    assert_eq!(text(&job.attributes, "job.attempt"), "1");
    assert_eq!(text(&job.attributes, "job.outcome"), "done");
    assert_eq!(text(&call.attributes, "stripe.operation"), "create");
    assert_eq!(text(&call.attributes, "http.response.status_code"), "200");

    // The request that created the cart has its own trace.
    let cart = collector.all().into_iter().find(|(_, span)| span.name == "POST /api/carts").unwrap().1;
    assert!(cart.parent_span_id.is_empty() && hex(&cart.trace_id) != TRACE);
    let token = link["data"]["recoveryUrl"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let everything = format!("{:?}", collector.all());
    for word in OF_THE_SHOPPER.into_iter().chain([&*token, &id, "cs_test_", "sk_test_"]) {
        assert!(!everything.contains(word), "{word}");
    }
}

#[tokio::test]
async fn each_attempt_is_a_child_of_the_request() {
    let shop = Shop::open().await;
    let (collector, address) = Collector::open().await;
    let mut api = Process::start("api", exporting(shop.api_variables(), address, 50)).await;
    let mut worker = Process::start("worker", exporting(shop.worker_variables(), address, 50)).await;
    api.says("api is listening").await;
    worker.says("worker is working").await;
    shop.stripe.fail_next(Operation::Create, Fault::HtmlBadGateway);
    let id = shop.cart().await;
    assert_eq!(shop.link(&id).await.0, 200);

    let named = |name: &str| -> Vec<Span> {
        collector.all().into_iter().map(|(_, span)| span).filter(|span| span.name == name).collect()
    };
    eventually("both attempts are there", async || named("create_payment_link").len() == 2).await;
    let (mut attempts, calls) = (named("create_payment_link"), named("stripe create"));
    attempts.sort_by_key(|attempt| attempt.start_time_unix_nano);
    let outcome = |attempt: &Span| (text(&attempt.attributes, "job.attempt"), text(&attempt.attributes, "job.outcome"));
    assert_eq!(outcome(&attempts[0]), ("1".to_owned(), "retried".to_owned()));
    assert_eq!(outcome(&attempts[1]), ("2".to_owned(), "done".to_owned()));
    assert_eq!(attempts[0].status.as_ref().map(|status| status.code()), Some(StatusCode::Error));
    eventually("the request is there", async || named("POST /api/carts/{id}/payment-link").len() == 1).await;
    let request = named("POST /api/carts/{id}/payment-link").remove(0);
    for attempt in &attempts {
        assert_eq!((&attempt.trace_id, &attempt.parent_span_id), (&request.trace_id, &request.span_id));
        assert!(calls.iter().any(|call| call.parent_span_id == attempt.span_id));
    }
}

#[tokio::test]
async fn the_last_spans_are_sent_before_the_end_and_logs_stay_as_they_are() {
    let shop = Shop::open().await;
    let (collector, address) = Collector::open().await;
    let mut api = Process::start("api", exporting(shop.api_variables(), address, 600_000)).await;
    api.says("api is listening").await;
    shop.cart().await;
    assert_eq!(shop.http.get(shop.url("/healthz")).send().await.unwrap().status(), 200);
    api.signal(Signal::SIGTERM);
    assert_eq!(api.ends().await, Some(0));
    let spans = collector.all();
    let names: Vec<&str> = spans.iter().map(|(_, span)| span.name.as_str()).collect();
    assert_eq!(names, ["POST /api/carts"], "and probes are none");

    let mut requests = 0;
    while let Some(line) = api.next_line().await {
        let line: Value = serde_json::from_str(&line).expect("every line is JSON");
        assert!(line.get("span").is_none() && line.get("spans").is_none(), "{line}");
        requests += usize::from(line["message"] == "request");
    }
    assert_eq!(requests, 1);
}

#[tokio::test]
async fn an_unavailable_collector_is_logged_and_harmless() {
    let shop = Shop::open().await;
    let nobody = free_address().await;
    let mut api = Process::start("api", exporting(shop.api_variables(), nobody, 50)).await;
    api.says("api is listening").await;
    shop.cart().await;
    api.says("could not export spans to the trace collector").await;
    shop.cart().await;
    api.signal(Signal::SIGTERM);
    assert_eq!(api.ends().await, Some(0));
}

#[tokio::test]
async fn without_a_collector_jobs_carry_no_trace() {
    let shop = Shop::open().await;
    let _api = shop.api().await;
    let id = shop.cart().await;
    let request = shop.http.post(shop.url(&format!("/api/carts/{id}/payment-link")));
    let request = request.header("traceparent", format!("00-{TRACE}-{CLIENT_SPAN}-01"));
    assert_eq!(shop.call(request.header("prefer", "respond-async")).await.0, 202);
    let carried: Vec<Option<String>> =
        sqlx::query_scalar("select trace_context from jobs").fetch_all(&shop.database.pool(1)).await.unwrap();
    assert_eq!(carried, [None]);
}

#[tokio::test]
async fn a_malformed_collector_address_fails_the_start() {
    let shop = Shop::open().await;
    for (binary, mut variables) in [("api", shop.api_variables()), ("worker", shop.worker_variables())] {
        variables.push(("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318".to_owned()));
        let mut process = Process::start(binary, variables).await;
        process.says(&format!(r#"{binary}: OTEL_EXPORTER_OTLP_ENDPOINT is "collector:4318"; it takes"#)).await;
        assert_eq!(process.ends().await, Some(1));
    }
}

/// Messages of panics and of Postgres may quote input of any length.
#[tokio::test]
async fn a_failure_logs_at_most_2000_bytes_of_its_cause() {
    let shop = Shop::open().await;
    let mut api = shop.api().await;
    let failing = "create function fail() returns trigger language plpgsql
            as $$ begin raise exception '%', repeat('é', 5000); end $$;
        create trigger fail before insert on carts for each row execute function fail()";
    sqlx::raw_sql(failing).execute(&shop.database.pool(1)).await.unwrap();
    let (status, answer) = shop.call(shop.http.post(shop.url("/api/carts")).json(&a_cart())).await;
    assert_eq!(status, 500, "{answer}");
    let line = api.says("\"cause\"").await;
    assert!(line.len() < 2_600, "{} bytes", line.len());
    let line: Value = serde_json::from_str(&line).unwrap();
    let cause = line["cause"].as_str().unwrap();
    assert!(cause.ends_with('é') && (1_990..=2_000).contains(&cause.len()), "{} bytes", cause.len());
}

/// Untrusted input determines neither the length of log lines, spans and metrics, nor the number of
/// series.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn records_of_untrusted_input_are_bounded() {
    const LINE: usize = 600;
    let shop = Shop::open().await;
    let (collector, address) = Collector::open().await;
    let metrics = free_address().await;
    let mut variables = exporting(shop.api_variables(), address, 50);
    variables.push(("METRICS_ADDR", metrics.to_string()));
    let mut api = Process::start("api", variables).await;
    api.says("api is listening").await;
    let long = "A".repeat(60_000);
    for (line, headers) in [
        (format!("{long} /healthz"), String::new()),
        (format!("{long} /api/carts"), String::new()),
        (format!("{long} /{}", "b".repeat(500)), String::new()),
        (format!("GET /{long}"), String::new()),
        (format!("GET /pay/{long}"), String::new()),
        (format!("GET /api/carts?{long}"), String::new()),
        (format!("POST /api/carts/{long}/payment-link"), "content-length: 0\r\n".to_owned()),
        ("GET /api/carts".to_owned(), format!("x-request-id: {long}\r\n")),
        ("GET /api/carts".to_owned(), format!("x-request-id: {}\r\n", "c".repeat(128))),
        ("GET /api/carts".to_owned(), format!("traceparent: 00-{TRACE}-{CLIENT_SPAN}-01{long}\r\n")),
        (
            "GET /api/carts".to_owned(),
            format!("traceparent: 00-{TRACE}-{CLIENT_SPAN}-01\r\ntracestate: a={long}\r\nbaggage: a={long}\r\n"),
        ),
        ("GET /api/carts".to_owned(), format!("x-api-key: {long}\r\n")),
        ("GET /".to_owned(), format!("cookie: {long}\r\n")),
        ("GET /docs".to_owned(), format!("user-agent: {long}\r\n")),
        ("POST /api/webhooks/stripe".to_owned(), format!("stripe-signature: {long}\r\ncontent-length: 0\r\n")),
        ("OPTIONS /api/carts".to_owned(), format!("origin: {long}\r\naccess-control-request-method: {}\r\n", "B")),
    ] {
        let request = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        let answer = exchange(shop.address(), request.as_bytes(), AT_ONCE).await;
        assert!(answer.starts_with("HTTP/1.1 "), "{line:.50} {headers:.50}");
    }
    let scraped = shop.http.get(format!("http://{metrics}/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(scraped.contains("method=\"other\"") && !scraped.contains("AAAA"), "{scraped}");
    eventually("the spans are exported", async || collector.all().len() >= 10).await;
    api.signal(Signal::SIGTERM);
    assert_eq!(api.ends().await, Some(0));
    let (mut lines, mut longest) = (0, String::new());
    while let Some(line) = api.next_line().await {
        lines += usize::from(line.contains("\"request\""));
        longest = std::cmp::max_by_key(longest, line, String::len);
    }
    assert!(lines >= 10 && longest.len() < LINE, "{lines} lines, up to {} bytes: {longest:.600}", longest.len());
    for (_, span) in collector.all() {
        assert!(span.encoded_len() < LINE, "{:.600}", format!("{span:?}"));
    }
}
