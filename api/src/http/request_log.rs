//! Assigns a request id and logs one line for each request. The line has no addresses, no paths (a
//! recovery token is part of one) and no bodies: only routes and numbers. Clients can't make a
//! field arbitrarily long.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use common::observability::{
    metrics,
    traces::{self, SPAN_TARGET},
};
use tracing::{Instrument, Span, field};
use uuid::Uuid;

use super::error::Cause;

/// The header with the id, of requests and responses.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The most bytes of a cause that are logged; a panic's message may quote input of any length.
const CAUSE_BYTES: usize = 2000;
/// Label of requests that matched no route.
const NO_ROUTE: &str = "none";

pub(crate) async fn log(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let method = metrics::method_label(request.method().as_str());
    let route = request.extensions().get::<MatchedPath>().map(|route| route.as_str().to_owned());
    let span = span(&request, method, route.as_deref(), id.to_str().unwrap_or_default());
    let mut response = next.run(request).instrument(span.clone()).await;
    response.headers_mut().insert(REQUEST_ID, id.clone());

    let (status, id) = (response.status().as_u16(), id.to_str().unwrap_or_default());
    let route = route.as_deref().unwrap_or(NO_ROUTE);
    let took = started.elapsed();
    metrics::http_request(method, route, status, took);
    end(&span, status);
    let milliseconds = (took.as_secs_f64() * 1e6).round() / 1e3;
    match response.extensions().get::<Cause>() {
        Some(Cause(cause)) => {
            let cause = &cause[..cause.floor_char_boundary(CAUSE_BYTES)];
            tracing::error!(request_id = id, method, route, status, milliseconds, cause, "request");
        }
        // Probes come every few seconds, so those without an error are logged at debug level only.
        None if is_probe(route) => {
            tracing::debug!(request_id = id, method, route, status, milliseconds, "request");
        }
        None => tracing::info!(request_id = id, method, route, status, milliseconds, "request"),
    }
    response
}

fn is_probe(route: &str) -> bool {
    matches!(route, "/healthz" | "/readyz")
}

/// The trace span of a request, which continues the client's trace if there is one. None for
/// probes.
fn span(request: &Request, method: &'static str, route: Option<&str>, id: &str) -> Span {
    let route = route.unwrap_or(NO_ROUTE);
    if is_probe(route) {
        return Span::none();
    }
    let span = tracing::info_span!(
        target: SPAN_TARGET,
        parent: None,
        "request",
        otel.name = format_args!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = field::Empty,
        request.id = id,
    );
    if let Some(traceparent) = request.headers().get(traces::TRACEPARENT).and_then(|value| value.to_str().ok()) {
        traces::continue_from(&span, traceparent);
    }
    span
}

fn end(span: &Span, status: u16) {
    span.record("http.response.status_code", status);
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
}

/// The client's own id if it is a plain word of at most 128 characters, so that the logs of both
/// sides can be joined; otherwise a new id.
fn request_id(request: &Request) -> HeaderValue {
    let is_word = |id: &&HeaderValue| {
        (1..=128).contains(&id.len())
            && id.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
    };
    request.headers().get(REQUEST_ID).filter(is_word).cloned().unwrap_or_else(|| {
        let id = Uuid::new_v4().to_string();
        HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("none"))
    })
}
