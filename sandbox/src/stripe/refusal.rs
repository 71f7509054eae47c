//! Error responses.

use std::collections::BTreeMap;

use axum::{
    Json,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::json;

/// An error response in Stripe's format.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    /// The name of the parameter that the error is about.
    param: Option<String>,
    message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, kind: "invalid_request_error", code: None, param: None, message: message.into() }
    }

    pub(super) fn missing(status: StatusCode, id: &str) -> Self {
        Self { code: Some("resource_missing"), ..Self::new(status, format!("No such checkout.session: '{id}'")) }
    }

    /// An error whose message repeats the whole request.
    pub(super) fn repeating(status: u16, headers: &HeaderMap, parameters: &BTreeMap<String, String>) -> Self {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let message = format!(
            "Not possible with {} and {} and {} and {parameters:?}",
            header("authorization"),
            parameters.get("success_url").map_or("", String::as_str),
            parameters.get("customer_email").map_or("", String::as_str),
        );
        Self::new(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), message)
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn with_code(code: &'static str, message: impl Into<String>) -> Self {
        Self { code: Some(code), ..Self::invalid(message) }
    }

    /// The same error, about this parameter.
    pub(super) fn about(self, param: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..self }
    }

    /// The idempotency key was used for another request.
    pub(super) fn key_reused() -> Self {
        let message =
            "Keys for idempotent requests can only be used with the same parameters they were first used with.";
        Self { kind: "idempotency_error", ..Self::invalid(message) }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut error = json!({"type": self.kind, "message": self.message});
        if let Some(code) = self.code {
            error["code"] = json!(code);
        }
        if let Some(param) = self.param {
            error["param"] = json!(param);
        }
        (self.status, Json(json!({"error": error}))).into_response()
    }
}
