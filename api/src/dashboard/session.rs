//! Sessions: a signed cookie, valid at every api and stored by none. Its signing key derives from
//! the API key that opened the session, so revoking that key ends the session. Signed-out sessions
//! are stored (`common::api_keys::ended_sessions`).
//!
//! Only the hash of a stored API key is known here, and a backup of the database contains that
//! hash, too. So the signing key also derives from a key in `API_KEY`: access to the database is
//! not enough to sign in.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use common::api_keys::{KeyHash, ended_sessions::SessionHash};
use cookie::{Cookie, CookieJar, Key as SigningKey, SameSite};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

use super::notice::Notice;
use crate::{
    auth::keys::{BootstrapKey, By, Key},
    http::base_path::at,
};

/// Name of the cookie.
const NAME: &str = "operator_session";
/// Session lifetime.
const LASTS: TimeDelta = TimeDelta::hours(12);

/// Opens and verifies sessions.
pub(crate) struct Sessions {
    /// The keys in `API_KEY`, in their order.
    keys: Vec<BootstrapKey>,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

/// Name of the form field with the CSRF token.
pub(crate) const TOKEN: &str = "token";

/// A signed-in operator, and what every page of theirs needs.
#[derive(Debug, Clone)]
pub(crate) struct Operator {
    pub(crate) session: Session,
    /// The name of their key.
    pub(crate) by: By,
    /// Whether their key may change anything. Otherwise pages offer no actions.
    pub(crate) may_change: bool,
    /// The time zone of the pages.
    pub(crate) zone: Tz,
    /// The time of the request.
    pub(crate) now: DateTime<Utc>,
    /// What the last action did, if this page is to show it.
    pub(crate) notice: Option<Notice>,
}

/// The session of an operator.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// When the session expires.
    pub(crate) ends_at: DateTime<Utc>,
    /// The API key that opened the session; the session ends when the key does.
    pub(crate) key: Key,
    /// The key of its row in `ended_sessions` once it is signed out.
    pub(crate) hash: SessionHash,
    /// CSRF token, which each form of the session carries.
    pub(crate) form_token: String,
}

impl Sessions {
    pub(crate) fn new(api_keys: &[BootstrapKey]) -> Self {
        Self { keys: api_keys.to_vec() }
    }

    /// The cookie of a new session, opened with `key`. `hash` is the key's hash if the key is a
    /// stored one. `None` if there is no such key.
    pub(crate) fn open(&self, key: Key, hash: Option<KeyHash>, secure: bool, now: DateTime<Utc>) -> Option<String> {
        // Random, so that no two sessions have the same form token.
        let (ends_at, random) = ((now + LASTS).timestamp(), Uuid::new_v4().simple());
        let (signing_key, value) = match key {
            Key::Bootstrap(place) => (signing_key(self.keys.get(place)?, None), format!("{ends_at}.{random}")),
            Key::Stored(id) => {
                (signing_key(self.keys.first()?, Some(&hash?)), format!("{ends_at}.{random}.{}", id.simple()))
            }
        };
        let seconds = cookie::time::Duration::seconds(LASTS.num_seconds());
        let mut jar = CookieJar::new();
        jar.signed_mut(&signing_key).add(base(value, secure).max_age(seconds));
        jar.delta().next().map(ToString::to_string)
    }

    /// A cookie that removes the session's cookie.
    pub(crate) fn close(secure: bool) -> String {
        base(String::new(), secure).max_age(cookie::time::Duration::ZERO).build().to_string()
    }

    /// The session in a request's `cookie` header, if one of the keys has signed it and it has not
    /// expired. `stored` returns the hash of a stored key that may have sessions now.
    pub(crate) fn find(
        &self,
        header: &str,
        now: DateTime<Utc>,
        stored: impl Fn(Uuid) -> Option<KeyHash>,
    ) -> Option<Session> {
        let mut jar = CookieJar::new();
        for cookie in Cookie::split_parse(header.to_owned()).flatten() {
            jar.add_original(cookie);
        }
        // The key's id is untrusted until the signature is verified.
        let said = jar.get(NAME)?.value().split('.').nth(2).map(str::parse::<Uuid>);
        let (id, hash) = match said {
            None => (None, None),
            Some(id) => {
                let id = id.ok()?;
                (Some(id), Some(stored(id)?))
            }
        };
        let (place, signing_key, cookie) = self.keys.iter().enumerate().find_map(|(place, key)| {
            let signing_key = signing_key(key, hash.as_ref());
            let cookie = jar.signed(&signing_key).get(NAME)?;
            Some((place, signing_key, cookie))
        })?;
        let ends_at = cookie.value().split_once('.')?.0.parse().ok();
        let ends_at = ends_at.and_then(|seconds| DateTime::from_timestamp(seconds, 0)).filter(|at| *at > now)?;
        let form_token = hex(&form_mac(&signing_key, cookie.value())?.finalize().into_bytes());
        let hash = SessionHash::of(cookie.value());
        Some(Session { ends_at, key: id.map_or(Key::Bootstrap(place), Key::Stored), hash, form_token })
    }
}

/// The signing key of sessions opened with a key in `API_KEY`, or with the stored key that has this
/// hash.
fn signing_key(bootstrap: &BootstrapKey, stored: Option<&KeyHash>) -> SigningKey {
    let Some(hash) = stored else { return SigningKey::derive_from(bootstrap.session_secret()) };
    // HMAC accepts keys of any length.
    let mac = Hmac::<Sha256>::new_from_slice(bootstrap.session_secret());
    let mac = mac.map(|mac| mac.chain_update("key of the database\0").chain_update(hash.as_bytes()).finalize());
    let secret = mac.map_or_else(|_| *bootstrap.session_secret(), |mac| mac.into_bytes().into());
    SigningKey::derive_from(&secret)
}

fn base(value: String, secure: bool) -> cookie::CookieBuilder<'static> {
    Cookie::build((NAME, value)).path(at("/")).http_only(true).same_site(SameSite::Strict).secure(secure)
}

/// Uses the half of the key that signs no cookies.
fn form_mac(key: &SigningKey, session: &str) -> Option<Hmac<Sha256>> {
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
    use secrecy::SecretString;

    use super::*;

    fn sessions(keys: &[&str]) -> Sessions {
        Sessions::new(&keys.iter().map(|key| BootstrapKey::new(&SecretString::from(*key))).collect::<Vec<_>>())
    }

    fn none(_: Uuid) -> Option<KeyHash> {
        None
    }

    fn now() -> DateTime<Utc> {
        "2026-11-24T09:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_session_is_its_keys_and_ends() {
        let now = now();
        let cookie = sessions(&["new", "old"]).open(Key::Bootstrap(1), None, true, now).unwrap();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && cookie.contains("Secure"));
        let header = cookie.split(';').next().unwrap();
        let found = sessions(&["old"]).find(header, now, none).expect("another process knows it");
        assert_eq!((found.ends_at, found.key), (now + LASTS, Key::Bootstrap(0)));
        assert!(sessions(&["new"]).find(header, now, none).is_none(), "its key is gone");
        assert!(sessions(&["old"]).find(header, now + LASTS, none).is_none(), "it is over");
        let forged = header.replace(&(now + LASTS).timestamp().to_string(), "9999999999");
        assert!(sessions(&["old"]).find(&forged, now, none).is_none(), "it was changed");
        let other = sessions(&["old"]).open(Key::Bootstrap(0), None, true, now).unwrap();
        let other = sessions(&["old"]).find(other.split(';').next().unwrap(), now, none).unwrap();
        assert_ne!(found.form_token, other.form_token);
    }

    #[test]
    fn a_session_of_a_key_of_the_database_is_that_keys_alone() {
        let now = now();
        let (id, hash) = (Uuid::new_v4(), KeyHash::of(b"qct_1"));
        let cookie = sessions(&["env", "old"]).open(Key::Stored(id), Some(hash), true, now).unwrap();
        let header = cookie.split(';').next().unwrap();
        let live = |asked: Uuid| (asked == id).then_some(hash);
        assert_eq!(sessions(&["new", "env"]).find(header, now, live).unwrap().key, Key::Stored(id));
        assert!(sessions(&["env"]).find(header, now, none).is_none(), "it was revoked");
        assert!(sessions(&["other"]).find(header, now, live).is_none(), "the hash alone signs nothing");
        let another = |_| Some(KeyHash::of(b"qct_2"));
        assert!(sessions(&["env"]).find(header, now, another).is_none(), "it is another key");
        // Without its key's id, the cookie would claim to be opened with a key in `API_KEY`.
        let cut = header.rsplit_once('.').unwrap().0;
        assert!(sessions(&["env"]).find(cut, now, live).is_none());
    }
}
