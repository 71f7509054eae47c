//! The API key.

use axum::{
    extract::{Request, State},
    http::HeaderMap,
    middleware::Next,
    response::Response,
};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::{AppState, error::ApiError};

/// Hashes of the keys: of one length, so that comparing them tells nothing by its time.
#[derive(Debug)]
pub(crate) struct ApiKeys(Vec<[u8; 32]>);

impl ApiKeys {
    pub(crate) fn new(keys: &[SecretString]) -> Self {
        Self(keys.iter().map(|key| hash(key.expose_secret().as_bytes())).collect())
    }

    fn accept(&self, headers: &HeaderMap) -> bool {
        let Some(given) = headers.get("x-api-key") else { return false };
        let given = hash(given.as_bytes());
        // Compared with all of them, whichever fits.
        self.0.iter().fold(Choice::from(0), |fits, key| fits | key.ct_eq(&given)).into()
    }

    /// Which of the keys it is, by its place.
    pub(crate) fn find(&self, given: &[u8]) -> Option<usize> {
        let given = hash(given);
        // Here too all of them are looked at.
        let fits: Vec<bool> = self.0.iter().map(|key| key.ct_eq(&given).into()).collect();
        fits.into_iter().position(|fits| fits)
    }
}

fn hash(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

pub(crate) async fn require_key(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if state.keys.accept(request.headers()) { Ok(next.run(request).await) } else { Err(ApiError::unauthorized()) }
}
