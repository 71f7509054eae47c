//! Sessions: a signed cookie and nothing else, so that all apis share them and
//! none keeps them. Its key derives from the API key that opened it: taking that
//! key away ends the session.

use chrono::{DateTime, TimeDelta, Utc};
use cookie::{Cookie, CookieJar, Key, SameSite};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// The cookie.
const NAME: &str = "operator_session";
/// For so long somebody stays signed in.
const LASTS: TimeDelta = TimeDelta::hours(12);

/// Opens and knows sessions.
pub(crate) struct Sessions {
    /// One an API key, in their order.
    keys: Vec<Key>,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

/// Somebody who signed in.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// When it ends.
    pub(crate) ends_at: DateTime<Utc>,
    /// What each form carries, so that no other site can fill one in.
    pub(crate) form_token: String,
}

impl Sessions {
    pub(crate) fn new(api_keys: &[SecretString]) -> Self {
        let derive = |key: &SecretString| {
            let master = Sha256::new().chain_update("operator session\0").chain_update(key.expose_secret()).finalize();
            Key::derive_from(&master)
        };
        Self { keys: api_keys.iter().map(derive).collect() }
    }

    /// The cookie of a new session, opened with the API key at `key`. `None`: there is no such key.
    pub(crate) fn open(&self, key: usize, secure: bool, now: DateTime<Utc>) -> Option<String> {
        let key = self.keys.get(key)?;
        // Random, so that no two sessions have the same form token.
        let value = format!("{}.{}", (now + LASTS).timestamp(), uuid::Uuid::new_v4().simple());
        let seconds = cookie::time::Duration::seconds(LASTS.num_seconds());
        let mut jar = CookieJar::new();
        jar.signed_mut(key).add(base(value, secure).max_age(seconds));
        jar.delta().next().map(ToString::to_string)
    }

    /// A cookie that takes the session away.
    pub(crate) fn close(secure: bool) -> String {
        base(String::new(), secure).max_age(cookie::time::Duration::ZERO).build().to_string()
    }

    /// The session of a request's `cookie` header, if it is signed by one of the keys and goes on.
    pub(crate) fn find(&self, header: &str, now: DateTime<Utc>) -> Option<Session> {
        let mut jar = CookieJar::new();
        for cookie in Cookie::split_parse(header.to_owned()).flatten() {
            jar.add_original(cookie);
        }
        let (key, cookie) = self.keys.iter().find_map(|key| Some((key, jar.signed(key).get(NAME)?)))?;
        let ends_at = cookie.value().split_once('.')?.0.parse().ok();
        let ends_at = ends_at.and_then(|seconds| DateTime::from_timestamp(seconds, 0)).filter(|at| *at > now)?;
        Some(Session { ends_at, form_token: hex(&form_mac(key, cookie.value())?.finalize().into_bytes()) })
    }
}

fn base(value: String, secure: bool) -> cookie::CookieBuilder<'static> {
    Cookie::build((NAME, value)).path("/").http_only(true).same_site(SameSite::Strict).secure(secure)
}

/// Under the half of the key that signs no cookies.
fn form_mac(key: &Key, session: &str) -> Option<Hmac<Sha256>> {
    let mac = Hmac::<Sha256>::new_from_slice(key.encryption()).ok()?;
    Some(mac.chain_update(session.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(keys: &[&str]) -> Sessions {
        Sessions::new(&keys.iter().map(|key| SecretString::from(*key)).collect::<Vec<_>>())
    }

    #[test]
    fn a_session_is_its_keys_and_ends() {
        let now = "2026-11-24T09:00:00Z".parse().unwrap();
        let cookie = sessions(&["new", "old"]).open(1, true, now).unwrap();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && cookie.contains("Secure"));
        let header = cookie.split(';').next().unwrap();
        let found = sessions(&["old"]).find(header, now).expect("another process knows it");
        assert_eq!(found.ends_at, now + LASTS);
        assert!(sessions(&["new"]).find(header, now).is_none(), "its key is gone");
        assert!(sessions(&["old"]).find(header, now + LASTS).is_none(), "it is over");
        let forged = header.replace(&(now + LASTS).timestamp().to_string(), "9999999999");
        assert!(sessions(&["old"]).find(&forged, now).is_none(), "it was changed");
        let other = sessions(&["old"]).open(0, true, now).unwrap();
        let other = sessions(&["old"]).find(other.split(';').next().unwrap(), now).unwrap();
        assert_ne!(found.form_token, other.form_token);
    }
}
