//! A request's id, and its one line in the log. No addresses, no paths (a
//! recovery token stands in one), no bodies: routes and numbers only.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use uuid::Uuid;

use crate::error::Cause;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(crate) async fn log(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map(|route| route.as_str().to_owned());
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID, id.clone());

    let (status, id) = (response.status().as_u16(), id.to_str().unwrap_or_default());
    let route = route.as_deref().unwrap_or("none");
    let milliseconds = (started.elapsed().as_secs_f64() * 1e6).round() / 1e3;
    match response.extensions().get::<Cause>() {
        Some(Cause(cause)) => tracing::error!(request_id = id, %method, route, status, milliseconds, cause, "request"),
        // Probes come every few seconds and say nothing while all is well.
        None if matches!(route, "/healthz" | "/readyz") => {
            tracing::debug!(request_id = id, %method, route, status, milliseconds, "request");
        }
        None => tracing::info!(request_id = id, %method, route, status, milliseconds, "request"),
    }
    response
}

/// The client's own id if it is a plain word, so that logs of both sides meet; else a new one.
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
