//! Reads request bodies and renders response bodies.

use std::time::Duration;

use axum::{
    body::{Bytes, HttpBody},
    extract::{FromRequest, Request, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use common::json;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{declared::fields::KnownFields, error::ApiError, schema};

/// Maximum size of a request body, in bytes; imports have no limit.
pub(crate) const BODY_BYTES: usize = 1024 * 1024;

/// A body of well-formed JSON of any type, as the text that was sent. Unknown fields are refused if
/// the client asks for strict handling.
#[derive(Debug)]
pub(crate) struct JsonBody(pub(crate) Box<RawValue>);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::unsupported_media_type("The body must be JSON: send content-type: application/json"));
        }
        let strict = request.extensions().get::<KnownFields>().cloned();
        let bytes = read(request, state).await?;
        if bytes.is_empty() {
            return Err(ApiError::bad_request("The body is empty; it must be JSON"));
        }
        let body = json::parse(&bytes)
            .map_err(|error| ApiError::bad_request(format!("The body is not well-formed JSON: {error}")))?;
        let unknown = strict.map(|known| known.unknown_in(&body)).unwrap_or_default();
        if unknown.is_empty() { Ok(Self(body)) } else { Err(ApiError::validation(unknown)) }
    }
}

/// Time limit for receiving a body that is sent with an API key.
const BODY_TIME: Duration = Duration::from_secs(30);

/// The raw body, at most 1 MiB.
pub(crate) async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    check_encoding(request.headers())?;
    // A body that announces too large a size is rejected before it is read.
    if request.body().size_hint().lower() > BODY_BYTES as u64 {
        return Err(ApiError::too_large(BODY_BYTES));
    }
    within_time(BODY_TIME, Bytes::from_request(request, state)).await?.map_err(|rejection: BytesRejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            ApiError::too_large(BODY_BYTES)
        } else {
            ApiError::bad_request("The body could not be read to its end")
        }
    })
}

/// Reads a body for at most `limit`, then returns 408.
pub(crate) async fn within_time<T>(limit: Duration, reading: impl Future<Output = T>) -> Result<T, ApiError> {
    tokio::time::timeout(limit, reading).await.map_err(|_| ApiError::request_timeout(limit))
}

/// Rejects compressed bodies. Nothing is decompressed here, so no body grows in memory.
pub(crate) fn check_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let encoding = headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
    match encoding {
        Some(encoding) if !encoding.eq_ignore_ascii_case(b"identity") => {
            Err(ApiError::unsupported_media_type("The body must not be compressed"))
        }
        _ => Ok(()),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|essence| essence == "application/json" || essence.ends_with("+json"))
}

/// `content-type` without its parameters, in lower case.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    value.split(';').next().map(|essence| essence.trim().to_ascii_lowercase())
}

/// `{"success":true,"data":…}`
#[derive(Serialize, ToSchema)]
pub(crate) struct Success<T> {
    #[schema(schema_with = schema::only_true)]
    success: bool,
    data: T,
}

/// The `data` of a success.
#[derive(Debug)]
pub(crate) struct Data<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Data<T> {
    fn into_response(self) -> Response {
        Rendered(render(&self.0)).into_response()
    }
}

/// The body of a success, already serialized.
#[derive(Debug)]
pub(crate) struct Rendered(pub(crate) Bytes);

impl IntoResponse for Rendered {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], self.0).into_response()
    }
}

/// Initial buffer size; most responses contain one cart and fit.
const ANSWER_BYTES: usize = 1024;

/// Serializes the envelope of a success.
pub(crate) fn render<T: Serialize>(data: &T) -> Bytes {
    let mut text = Vec::with_capacity(ANSWER_BYTES);
    match serde_json::to_writer(&mut text, &Success { success: true, data }) {
        Ok(()) => text.into(),
        // No response type fails to serialize. A panic would return 500 in the error envelope.
        Err(error) => panic!("an answer can't be written: {error}"),
    }
}
