//! Error responses, all in one envelope.

use std::any::Any;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use common::{api_keys::Scope, batch::BatchError, carts::new::FieldError, db};
use serde::Serialize;
use utoipa::ToSchema;

/// `Retry-After` of 503 responses, in seconds.
const RETRY_AFTER_SECONDS: u64 = 2;
/// How to authenticate (RFC 6750, section 3).
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"Quick Checkout Tracker\"");

/// Machine-readable code of an error; `docs/api.md` lists all codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum ErrorCode {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    Conflict,
    PreconditionFailed,
    PayloadTooLarge,
    UnsupportedMediaType,
    ValidationError,
    RateLimited,
    InternalError,
    PaymentProviderError,
    Unavailable,
}

/// An error response.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: ErrorCode,
    message: String,
    details: Vec<FieldError>,
    retry_after_seconds: Option<u64>,
    /// Logged, never sent to the client.
    cause: Option<String>,
    /// Whether a lock of another transaction is the reason.
    is_locked: bool,
}

impl ApiError {
    fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            details: Vec::new(),
            retry_after_seconds: None,
            cause: None,
            is_locked: false,
        }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::BadRequest, message)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            ErrorCode::Unauthorized,
            "Missing or invalid API key: send it as x-api-key or as Authorization: Bearer",
        )
    }

    pub(crate) fn different_keys() -> Self {
        let message = "The request has different API keys; send one of them";
        Self::new(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized, message)
    }

    pub(crate) fn forbidden(needed: Scope) -> Self {
        let message = format!("This API key lacks the scope {}", needed.as_str());
        Self::new(StatusCode::FORBIDDEN, ErrorCode::Forbidden, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorCode::NotFound, message)
    }

    pub(crate) fn cart_not_found() -> Self {
        Self::not_found("Cart not found")
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            ErrorCode::MethodNotAllowed,
            "This endpoint does not support this method; see the Allow header",
        )
    }

    /// The connection can't be reused, because the rest of the body follows on it.
    pub(crate) fn request_timeout(after: std::time::Duration) -> Self {
        let message = format!("Request body not received within {} s", after.as_secs());
        Self::new(StatusCode::REQUEST_TIMEOUT, ErrorCode::RequestTimeout, message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, ErrorCode::Conflict, message)
    }

    pub(crate) fn precondition_failed() -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            ErrorCode::PreconditionFailed,
            "The cart was modified since you read it; fetch it again",
        )
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let limit = if limit < 1024 * 1024 { format!("{} KiB", limit >> 10) } else { format!("{} MiB", limit >> 20) };
        let message = format!("The body is larger than {limit}");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::PayloadTooLarge, message)
    }

    /// A line of an import is too long.
    pub(crate) fn line_too_long() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::PayloadTooLarge, "The line is longer than 1 MiB")
    }

    /// `message` names the content type to send.
    pub(crate) fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorCode::UnsupportedMediaType, message)
    }

    /// An error of the body itself has the field `body`.
    pub(crate) fn validation(mut details: Vec<FieldError>) -> Self {
        let message = match details.first() {
            Some(first) if first.field.is_empty() => format!("The body {}", first.message),
            Some(first) => format!("{} {}", first.field, first.message),
            None => "The request is invalid".to_owned(),
        };
        for detail in details.iter_mut().filter(|detail| detail.field.is_empty()) {
            detail.field = "body".to_owned();
        }
        Self { details, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, ErrorCode::ValidationError, message) }
    }

    pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::validation(vec![FieldError::new(field, message)])
    }

    pub(crate) fn rate_limited(retry_after_seconds: u64) -> Self {
        Self {
            retry_after_seconds: Some(retry_after_seconds),
            ..Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                ErrorCode::RateLimited,
                format!("Too many requests: try again in {retry_after_seconds} s"),
            )
        }
    }

    pub(crate) fn payment_provider(reason: &str) -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            ErrorCode::PaymentProviderError,
            format!("The payment link can't be made: {reason}"),
        )
    }

    pub(crate) fn unavailable(cause: impl ToString) -> Self {
        Self { cause: Some(cause.to_string()), ..Self::try_again("The database can't be reached") }
    }

    /// 503: a capacity limit is reached.
    pub(crate) fn busy() -> Self {
        Self::try_again("There is no room for more at the moment")
    }

    /// 503 for a short-lived conflict or shortage; the client should retry.
    pub(crate) fn try_again(why: &str) -> Self {
        let message = format!("{why}: try again in {RETRY_AFTER_SECONDS} s");
        Self {
            retry_after_seconds: Some(RETRY_AFTER_SECONDS),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, message)
        }
    }

    /// 503: another transaction holds the cart's lock. This request changed nothing.
    pub(crate) fn locked() -> Self {
        Self { is_locked: true, ..Self::try_again("Another request is changing the same cart") }
    }

    /// Whether this is [`ApiError::locked`].
    pub(crate) fn is_locked(&self) -> bool {
        self.is_locked
    }

    pub(crate) fn internal(cause: impl ToString) -> Self {
        Self {
            cause: Some(cause.to_string()),
            ..Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                ErrorCode::InternalError,
                "Internal error; quote the x-request-id when reporting it",
            )
        }
    }
}

impl ApiError {
    /// The error as clients see it.
    pub(crate) fn body(&self) -> Body<'_> {
        Body { code: self.code, message: &self.message, details: &self.details }
    }

    /// The message for people who see no JSON.
    pub(crate) fn in_words(&self) -> String {
        match self.details.first() {
            Some(first) if first.field == "totalValue" => format!("The cart's value {}", first.message),
            _ => self.message.clone(),
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.code == ErrorCode::NotFound
    }

    /// Whether the request is refused for what it asks for: nothing has failed.
    pub(crate) fn is_refusal(&self) -> bool {
        self.status.is_client_error()
    }

    pub(crate) fn is_conflict(&self) -> bool {
        self.code == ErrorCode::Conflict
    }

    /// The cause, for the log only.
    pub(crate) fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        if db::is_unavailable(&error) || db::exceeds_limit(&error) {
            Self::unavailable(error)
        } else if db::is_locked(&error) {
            Self::locked()
        } else {
            Self::internal(db::redacted(&error))
        }
    }
}

impl From<BatchError> for ApiError {
    fn from(error: BatchError) -> Self {
        if error.is_unavailable() || error.exceeds_limit() {
            Self::unavailable(error)
        } else if error.is_locked() {
            Self::locked()
        } else {
            Self::internal(error)
        }
    }
}

/// The internal cause of an error. The request log takes it from the response's extensions.
#[derive(Debug, Clone)]
pub(crate) struct Cause(pub(crate) String);

/// The message of an error. Pages for browsers take it from the response's extensions.
#[derive(Debug, Clone)]
pub(crate) struct Message(pub(crate) String);

/// `{"success":false,"error":…}`
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(crate) struct Envelope<'a> {
    #[schema(schema_with = super::schema::only_false)]
    success: bool,
    error: Body<'a>,
}

/// `error` of the envelope, and of a line of an import's response.
#[derive(Serialize, ToSchema)]
#[schema(as = ErrorBody)]
pub(crate) struct Body<'a> {
    pub(crate) code: ErrorCode,
    /// For people; the wording may change.
    #[schema(example = "items[0].price must be a number from 0 to 9999999999.99")]
    pub(crate) message: &'a str,
    /// All validation errors of a body, one for each field.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) details: &'a [FieldError],
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let words = Message(self.in_words());
        let mut response = (self.status, Json(Envelope { success: false, error: self.body() })).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE);
        }
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(cause) = self.cause {
            response.extensions_mut().insert(Cause(cause));
        }
        response.extensions_mut().insert(words);
        response
    }
}

/// Returns 500 in the error envelope after a handler panicked; the log gets the panic's message.
pub(crate) fn answer_panic(panic: Box<dyn Any + Send + 'static>) -> Response {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    ApiError::internal(format!("a handler panicked: {message}")).into_response()
}
