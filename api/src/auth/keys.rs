//! The keys to the API, and the scopes that a request's key has.

use std::{fmt, sync::Arc};

use axum::{extract::FromRequestParts, http::request::Parts};
use chrono::{DateTime, Utc};
use common::{
    api_keys::{BOOTSTRAP, KeyHash, Scope, Scopes, ended_sessions::SessionHash},
    audit::KeyName,
    clock::Clock,
    db::Database,
};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::key_cache::KeyStore;
use crate::http::error::ApiError;

/// Hash and session secret of a key in `API_KEY`. The key itself is not stored.
#[derive(Clone)]
pub struct BootstrapKey {
    hash: KeyHash,
    /// The key that signs dashboard sessions derives from this secret.
    session_secret: [u8; 32],
}

impl BootstrapKey {
    pub(crate) fn new(key: &SecretString) -> Self {
        let key = key.expose_secret();
        let session_secret = Sha256::new().chain_update("operator session\0").chain_update(key).finalize().into();
        Self { hash: KeyHash::of(key.as_bytes()), session_secret }
    }

    pub(crate) fn session_secret(&self) -> &[u8; 32] {
        &self.session_secret
    }
}

impl fmt::Debug for BootstrapKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BootstrapKey")
    }
}

/// An authenticated API key, with its name and scopes.
#[derive(Debug, Clone)]
pub(crate) struct KnownKey {
    pub(crate) key: Key,
    pub(crate) name: KeyName,
    pub(crate) scopes: Scopes,
}

/// An authenticated API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// A key in `API_KEY`, by its index.
    Bootstrap(usize),
    /// A key in the database, by its id.
    Stored(Uuid),
}

/// All API keys that this process accepts.
#[derive(Debug)]
pub(crate) struct ApiKeys {
    bootstrap: Vec<BootstrapKey>,
    bootstrap_name: KeyName,
    store: Arc<KeyStore>,
}

impl ApiKeys {
    /// Starts the task that loads the stored keys. Must be called within a tokio runtime.
    pub(crate) fn start(bootstrap: &[BootstrapKey], database: Database, clock: Clock) -> Self {
        Self {
            bootstrap: bootstrap.to_vec(),
            bootstrap_name: KeyName::new(BOOTSTRAP),
            store: KeyStore::start(database, clock),
        }
    }

    /// Looks up a key by its hash; `None` if it is unknown.
    ///
    /// Compares hashes of equal length, with every key of a kind, so that the response time reveals
    /// nothing.
    ///
    /// # Errors
    /// 503 if the key is not in `API_KEY` and the stored keys were never loaded.
    pub(crate) async fn find(&self, given: &KeyHash) -> Result<Option<KnownKey>, ApiError> {
        let fits: Vec<bool> = self.bootstrap.iter().map(|key| key.hash.fits(given).into()).collect();
        if let Some(place) = fits.into_iter().position(|fits| fits) {
            return Ok(self.known(Key::Bootstrap(place)));
        }
        let stored = self.store.find(given).await?;
        Ok(stored.map(|key| KnownKey { key: Key::Stored(key.id), name: key.name, scopes: key.scopes }))
    }

    /// The name and scopes of a key; `None` if it is not valid now.
    pub(crate) fn known(&self, key: Key) -> Option<KnownKey> {
        match key {
            // Keys in `API_KEY` are valid for as long as the process runs.
            Key::Bootstrap(_) => Some(KnownKey { key, name: self.bootstrap_name.clone(), scopes: Scopes::all() }),
            Key::Stored(id) => {
                self.store.get(id).map(|stored| KnownKey { key, name: stored.name, scopes: stored.scopes })
            }
        }
    }

    /// The hash of a stored key, if the key is valid now and opens the dashboard.
    pub(crate) fn dashboard(&self, id: Uuid) -> Option<KeyHash> {
        self.store.get(id).filter(|key| opens_dashboard(key.scopes)).map(|key| key.hash)
    }

    /// Whether the session was signed out, at any api process.
    ///
    /// # Errors
    /// 503 if the signed-out sessions were never read from the database.
    pub(crate) async fn is_signed_out(&self, session: &SessionHash) -> Result<bool, ApiError> {
        self.store.loaded().await?;
        Ok(self.store.is_signed_out(session))
    }

    /// Signs a session out in this process; the others read it from the database. `ends_at` is when
    /// the session would expire.
    pub(crate) fn sign_out(&self, session: SessionHash, ends_at: DateTime<Utc>) {
        self.store.sign_out(session, ends_at);
    }

    /// Resolves when the session is signed out, or its key no longer opens the dashboard.
    pub(crate) async fn session_ended(&self, key: Key, session: SessionHash) {
        let key_ended = || !self.known(key).is_some_and(|key| opens_dashboard(key.scopes));
        self.store.wait_until(|| key_ended() || self.store.is_signed_out(&session)).await;
    }
}

/// Whether a key with these scopes can sign in to the dashboard.
pub(crate) fn opens_dashboard(scopes: Scopes) -> bool {
    scopes.has(Scope::Operator) || scopes.has(Scope::Support)
}

/// The API key of a request and its scopes, in the request's extensions.
#[derive(Debug, Clone)]
pub(crate) struct Granted {
    pub(crate) scopes: Scopes,
    pub(crate) name: KeyName,
    pub(crate) key: KeyHash,
}

impl Granted {
    /// Whether responses may contain the shopper's fields.
    pub(crate) fn may_read(&self) -> bool {
        self.scopes.has(Scope::Read)
    }
}

/// Rejects with 401 on routes without [`require_key`].
impl<S: Sync> FromRequestParts<S> for Granted {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get().cloned().ok_or_else(ApiError::unauthorized)
    }
}

/// The name of a request's API key, for the audit log.
#[derive(Debug, Clone)]
pub(crate) struct By(pub(crate) KeyName);

impl<S: Sync> FromRequestParts<S> for By {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Ok(Self(Granted::from_request_parts(parts, state).await?.name))
    }
}
