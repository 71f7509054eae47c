//! Metrics and trace span of a call to Stripe.

use common::observability::{metrics, traces::SPAN_TARGET};
use http::{Method, StatusCode};
use tracing::{Span, field};

/// A call in progress. Dropping it without [`Call::answered`] counts it as `no_answer`.
#[derive(Debug)]
pub(crate) struct Call {
    operation: &'static str,
    outcome: &'static str,
    span: Span,
}

impl Call {
    pub(crate) fn begin(method: &Method, path: &str) -> Self {
        let operation = operation(method, path);
        let span = tracing::info_span!(
            target: SPAN_TARGET,
            "stripe",
            otel.name = format_args!("stripe {operation}"),
            otel.kind = "client",
            otel.status_code = field::Empty,
            stripe.operation = operation,
            http.request.method = %method,
            http.response.status_code = field::Empty,
        );
        Self { operation, outcome: "no_answer", span }
    }

    /// The span that instruments the call.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    pub(crate) fn answered(mut self, status: StatusCode) {
        self.outcome = match status {
            _ if status.is_success() => "ok",
            StatusCode::TOO_MANY_REQUESTS => "rate_limited",
            _ if status.is_client_error() => "refused",
            _ => "failed",
        };
        self.span.record("http.response.status_code", status.as_u16());
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.outcome != "ok" {
            self.span.record("otel.status_code", "ERROR");
        }
        metrics::stripe_request(self.operation, self.outcome);
    }
}

/// The operation by the path's shape. The path itself is no label, because it contains an id.
fn operation(method: &Method, path: &str) -> &'static str {
    match (method, path) {
        (&Method::POST, path) if path.ends_with("/expire") => "expire",
        (&Method::POST, _) => "create",
        (_, path) if path.ends_with("/sessions") || path.ends_with("/events") => "list",
        _ => "retrieve",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_distinguished_without_ids() {
        let named = |method, path| operation(&method, path);
        assert_eq!(named(Method::POST, "/v1/checkout/sessions"), "create");
        assert_eq!(named(Method::POST, "/v1/checkout/sessions/cs_1/expire"), "expire");
        assert_eq!(named(Method::GET, "/v1/checkout/sessions"), "list");
        assert_eq!(named(Method::GET, "/v1/checkout/sessions/cs_1"), "retrieve");
    }
}
