//! Authenticates API keys and checks their scopes.
//!
//! Keys in `API_KEY` have every scope and stay valid for as long as the process is configured with
//! them. All other keys are stored in the database (`key_cache.rs`).

mod key_cache;
pub(crate) mod keys;
pub(crate) mod scoped_router;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use common::api_keys::KeyHash;

use self::keys::Granted;
use crate::{
    http::{compression::Compressible, error::ApiError},
    state::AppState,
};

/// Authenticates a request: 401 without a valid API key. Adds [`Granted`] to its extensions.
pub(crate) async fn require_key(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let given = request.headers().get("x-api-key").ok_or_else(ApiError::unauthorized)?;
    let key = KeyHash::of(given.as_bytes());
    let (_, scopes) = state.keys.find(&key).await?.ok_or_else(ApiError::unauthorized)?;
    request.extensions_mut().insert(Granted { scopes, key });
    let mut response = next.run(request).await;
    response.extensions_mut().insert(Compressible);
    Ok(response)
}
