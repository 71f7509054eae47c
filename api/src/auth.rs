//! Authenticates API keys and checks their scopes.
//!
//! Keys in `API_KEY` have every scope and stay valid for as long as the process is configured with
//! them. All other keys are stored in the database (`key_cache.rs`).

mod key_cache;
pub(crate) mod keys;
pub(crate) mod scoped_router;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, header},
    middleware::Next,
    response::Response,
};
use common::api_keys::KeyHash;

use self::keys::Granted;
use crate::{
    http::{compression::Compressible, error::ApiError, etag},
    state::AppState,
};

/// Authenticates a request: 401 without a valid API key. Adds [`Granted`] to its extensions.
pub(crate) async fn require_key(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let key = KeyHash::of(given_key(request.headers())?);
    let known = state.keys.find(&key).await?.ok_or_else(ApiError::unauthorized)?;
    request.extensions_mut().insert(Granted { scopes: known.scopes, name: known.name, key });
    let mut response = next.run(request).await;
    response.extensions_mut().insert(Compressible);
    // Most responses have personal data, so no cache may share them.
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(etag::REVALIDATE);
    Ok(response)
}

/// The key in `x-api-key` or `Authorization: Bearer` (RFC 6750). Other schemes of `Authorization`
/// are ignored: a proxy may pass on its own.
///
/// # Errors
/// 401 without a key, and for two different ones.
fn given_key(headers: &HeaderMap) -> Result<&[u8], ApiError> {
    let plain = headers.get_all("x-api-key").iter().map(HeaderValue::as_bytes);
    let bearers = headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| bearer_token(value.as_bytes()));
    let mut keys = plain.chain(bearers);
    let key = keys.next().ok_or_else(ApiError::unauthorized)?;
    if keys.any(|other| other != key) { Err(ApiError::different_keys()) } else { Ok(key) }
}

fn bearer_token(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}
