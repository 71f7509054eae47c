//! Checkout Sessions in Stripe's responses.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use common::payment_links::Reported;
use serde::{Deserialize, Deserializer, de::Error};

use super::error::StripeError;

/// A Checkout Session, reduced to the fields that the worker uses.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Session {
    #[serde(deserialize_with = "id")]
    pub(crate) id: String,
    pub(crate) url: Option<String>,
    status: Option<String>,
    mode: Option<String>,
    payment_status: Option<String>,
    amount_total: Option<i64>,
    currency: Option<String>,
    pub(crate) livemode: Option<bool>,
    #[serde(default, deserialize_with = "optional_id")]
    pub(crate) payment_intent: Option<String>,
    #[serde(default, with = "chrono::serde::ts_seconds_option")]
    expires_at: Option<DateTime<Utc>>,
    #[serde(default)]
    metadata: Option<HashMap<String, String>>,
}

/// A page of a list of sessions.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    pub(crate) data: Vec<Session>,
    pub(crate) has_more: bool,
}

/// Maximum characters of an id, see
/// <https://docs.stripe.com/upgrades#what-changes-does-stripe-consider-to-be-backward-compatible>.
const LONGEST_ID: usize = 255;

/// An id of Stripe's. Validated, because it is stored and used in paths.
#[derive(Deserialize)]
#[serde(transparent)]
struct Id(#[serde(deserialize_with = "id")] String);

fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let id = String::deserialize(deserializer)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    let well_formed = (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(plain);
    if well_formed { Ok(id) } else { Err(D::Error::custom("not an id of Stripe's")) }
}

fn optional_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<Id>::deserialize(deserializer)?.map(|Id(id)| id))
}

/// Status of a session: can be paid, was completed by the shopper, or can't be paid any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionState {
    Open,
    Complete,
    Expired,
}

impl Session {
    pub(crate) fn state(&self) -> Result<SessionState, StripeError> {
        match self.status.as_deref() {
            Some("open") => Ok(SessionState::Open),
            Some("complete") => Ok(SessionState::Complete),
            Some("expired") => Ok(SessionState::Expired),
            _ => Err(StripeError::Unexpected("the session has an unknown status")),
        }
    }

    /// Whether the session's metadata names this request. (`client_reference_id` is no proof:
    /// anyone who opens a Stripe Payment Link can set it.)
    pub(crate) fn is_of(&self, cart_id: &str, version: i32) -> bool {
        let named = |key: &str| self.metadata.as_ref()?.get(key).map(String::as_str);
        named("cart_id") == Some(cart_id) && named("link_version") == Some(version.to_string().as_str())
    }

    pub(crate) fn expires_at(&self, asked: DateTime<Utc>) -> DateTime<Utc> {
        self.expires_at.unwrap_or(asked)
    }

    /// The fields to compare with the payment link.
    pub(crate) fn reported(&self) -> Reported {
        Reported {
            mode: self.mode.clone(),
            payment_status: self.payment_status.clone(),
            amount: self.amount_total,
            currency: self.currency.clone(),
            livemode: self.livemode,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_words() {
        let read = |id: &str, intent: &str| {
            let json = format!(r#"{{"id": "{id}", "payment_intent": {intent}}}"#);
            serde_json::from_str::<Session>(&json).map(|session| (session.id, session.payment_intent))
        };
        assert_eq!(read("cs_test_a1", r#""pi_1""#).unwrap(), ("cs_test_a1".to_owned(), Some("pi_1".to_owned())));
        assert_eq!(read(&"c".repeat(255), "null").unwrap().1, None);
        assert_eq!(serde_json::from_str::<Session>(r#"{"id": "cs_1"}"#).unwrap().payment_intent, None);
        for bad in ["", "cs\\u0000", "../account?", "cs 1", "cs_é", &"c".repeat(256)] {
            assert!(read(bad, "null").is_err() && read("cs_1", &format!("\"{bad}\"")).is_err(), "{bad}");
        }
    }
}
