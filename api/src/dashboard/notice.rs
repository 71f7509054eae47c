//! Notices: what an action did, or why it did nothing, shown on the next page. A cookie has the
//! text, signed with the session's form token, so that reloading a page does not repeat it and no
//! link can forge it.

use axum::http::{HeaderMap, HeaderValue, header};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use cookie::{Cookie, SameSite};
use hmac::{Hmac, KeyInit, Mac};
use maud::{Markup, html};
use sha2::Sha256;

use super::session::Session;
use crate::http::base_path::at;

/// Name of the cookie.
const NAME: &str = "operator_notice";
/// Lifetime of the cookie in seconds; the page that shows it is loaded at once.
const LASTS: i64 = 60;
/// The most bytes of a text, so that the cookie stays below 4 KiB.
const MAX_BYTES: usize = 2_000;

/// A text about the action that was just done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    /// Whether the action failed.
    is_problem: bool,
    text: String,
}

impl Notice {
    /// An action succeeded.
    pub(crate) fn done(text: &str) -> Self {
        Self { is_problem: false, text: text.to_owned() }
    }

    /// An action failed.
    pub(crate) fn problem(text: &str) -> Self {
        Self { is_problem: true, text: text.to_owned() }
    }

    /// The notice in a request's cookie, if it was written for this session.
    pub(crate) fn find(headers: &HeaderMap, session: &Session) -> Option<Self> {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let cookie = cookies.flat_map(Cookie::split_parse).flatten().find(|cookie| cookie.name() == NAME)?;
        let (kind, rest) = cookie.value().split_once('.')?;
        let (text, signature) = rest.split_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        mac(session, kind, text)?.verify_slice(&signature).ok()?;
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        Some(Self { is_problem: kind == "problem", text })
    }

    /// The value of `Set-Cookie` with which the session's next page shows the notice.
    pub(crate) fn cookie(&self, session: &Session, secure: bool) -> Option<HeaderValue> {
        let kind = if self.is_problem { "problem" } else { "done" };
        let text = URL_SAFE_NO_PAD.encode(&self.text[..self.text.floor_char_boundary(MAX_BYTES)]);
        let signature = URL_SAFE_NO_PAD.encode(mac(session, kind, &text)?.finalize().into_bytes());
        written(format!("{kind}.{text}.{signature}"), LASTS, secure)
    }

    /// The value of `Set-Cookie` that removes the cookie once the notice was shown.
    pub(crate) fn shown() -> Option<HeaderValue> {
        written(String::new(), 0, false)
    }

    pub(crate) fn show(&self) -> Markup {
        let (class, role) = if self.is_problem { ("notice wrong", "alert") } else { ("notice", "status") };
        html! { p class=(class) role=(role) dir="auto" { (self.text) } }
    }
}

fn mac(session: &Session, kind: &str, text: &str) -> Option<Hmac<Sha256>> {
    let mac = Hmac::<Sha256>::new_from_slice(session.form_token.as_bytes()).ok()?;
    Some(mac.chain_update(b"notice\0").chain_update(kind).chain_update([0]).chain_update(text))
}

fn written(value: String, seconds: i64, secure: bool) -> Option<HeaderValue> {
    let cookie = Cookie::build((NAME, value)).path(at("/")).http_only(true).same_site(SameSite::Strict).secure(secure);
    let cookie = cookie.max_age(cookie::time::Duration::seconds(seconds)).build();
    HeaderValue::from_str(&cookie.to_string()).ok()
}

#[cfg(test)]
mod tests {
    use common::api_keys::ended_sessions::SessionHash;

    use super::*;
    use crate::auth::keys::Key;

    fn session(form_token: &str) -> Session {
        let hash = SessionHash::of("session");
        Session {
            ends_at: chrono::DateTime::UNIX_EPOCH,
            key: Key::Bootstrap(0),
            hash,
            form_token: form_token.to_owned(),
        }
    }

    fn request(cookie: &HeaderValue) -> HeaderMap {
        let cookie = cookie.to_str().unwrap().split(';').next().unwrap();
        HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(&format!("other=1; {cookie}")).unwrap())])
    }

    #[test]
    fn a_notice_is_its_sessions() {
        for notice in [Notice::done("Cart of „Ada“ expired; 100 %."), Notice::problem("")] {
            let cookie = notice.cookie(&session("one"), true).unwrap();
            assert!(cookie.to_str().unwrap().contains("HttpOnly") && cookie.to_str().unwrap().contains("Secure"));
            assert_eq!(Notice::find(&request(&cookie), &session("one")), Some(notice));
            assert_eq!(Notice::find(&request(&cookie), &session("another")), None);
            let forged = cookie.to_str().unwrap().replace("done.", "problem.").replace("problem..", "problem.eA.");
            assert_eq!(Notice::find(&request(&HeaderValue::from_str(&forged).unwrap()), &session("one")), None);
        }
        assert_eq!(Notice::find(&HeaderMap::new(), &session("one")), None);
        assert_eq!(Notice::find(&request(&Notice::shown().unwrap()), &session("one")), None);
    }

    #[test]
    fn a_long_notice_is_cut() {
        let cookie = Notice::problem(&"ü".repeat(5_000)).cookie(&session("one"), true).unwrap();
        assert!(cookie.len() < 4_000, "{}", cookie.len());
        let found = Notice::find(&request(&cookie), &session("one")).unwrap();
        assert_eq!(found.text, "ü".repeat(1_000));
    }
}
