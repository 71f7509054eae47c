//! Checkout Sessions in Stripe's responses.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use common::payment_links::Reported;
use serde::Deserialize;

use super::{
    error::StripeError,
    ids::{Expandable, id},
    payment_intent::PaymentIntent,
};

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
    amount_subtotal: Option<i64>,
    currency: Option<String>,
    pub(crate) livemode: Option<bool>,
    payment_intent: Option<Expandable<PaymentIntent>>,
    #[serde(default, with = "chrono::serde::ts_seconds_option")]
    expires_at: Option<DateTime<Utc>>,
    #[serde(default)]
    metadata: Option<HashMap<String, String>>,
    /// When its delayed payment arrived; `None` if it was no delayed one, or unknown.
    #[serde(skip)]
    pub(crate) arrived_at: Option<DateTime<Utc>>,
}

/// A page of a list of sessions.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    pub(crate) data: Vec<Session>,
    pub(crate) has_more: bool,
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

    /// The id of the session's PaymentIntent; `None` if there is none yet.
    pub(crate) fn payment_intent(&self) -> Option<&str> {
        self.payment_intent.as_ref().map(|intent| match intent {
            Expandable::Id(id) | Expandable::Object(PaymentIntent { id, .. }) => id.as_str(),
        })
    }

    /// Whether the money arrived, perhaps later than the shopper paid.
    pub(crate) fn may_have_arrived_later(&self) -> bool {
        let is_by_card = self.expanded_intent().is_some_and(PaymentIntent::is_by_card);
        matches!(self.payment_status.as_deref(), Some("paid" | "no_payment_required")) && !is_by_card
    }

    /// When a delayed payment arrived, or else when the shopper paid; `None` if the session was
    /// received without its payment.
    pub(crate) fn paid_at(&self) -> Option<DateTime<Utc>> {
        self.arrived_at.or_else(|| self.expanded_intent()?.paid_at())
    }

    /// Whether the payment of a completed session failed for good.
    pub(crate) fn payment_has_failed(&self) -> bool {
        self.expanded_intent().is_some_and(PaymentIntent::has_failed)
    }

    fn expanded_intent(&self) -> Option<&PaymentIntent> {
        match &self.payment_intent {
            Some(Expandable::Object(intent)) => Some(intent),
            _ => None,
        }
    }

    /// The fields to compare with the payment link.
    pub(crate) fn reported(&self) -> Reported {
        Reported {
            mode: self.mode.clone(),
            payment_status: self.payment_status.clone(),
            amount: self.amount_total,
            subtotal: self.amount_subtotal,
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
            serde_json::from_str::<Session>(&json)
                .map(|session| (session.id.clone(), session.payment_intent().map(str::to_owned)))
        };
        assert_eq!(read("cs_test_a1", r#""pi_1""#).unwrap(), ("cs_test_a1".to_owned(), Some("pi_1".to_owned())));
        assert_eq!(read(&"c".repeat(255), "null").unwrap().1, None);
        assert_eq!(serde_json::from_str::<Session>(r#"{"id": "cs_1"}"#).unwrap().payment_intent(), None);
        for bad in ["", "cs\\u0000", "../account?", "cs 1", "cs_é", &"c".repeat(256)] {
            assert!(read(bad, "null").is_err() && read("cs_1", &format!("\"{bad}\"")).is_err(), "{bad}");
            assert!(read("cs_1", &format!(r#"{{"id": "{bad}"}}"#)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_session_has_its_payment_or_its_id() {
        let read = |intent: &str| {
            let json = format!(r#"{{"id": "cs_1", "payment_intent": {intent}}}"#);
            let session: Session = serde_json::from_str(&json).unwrap();
            let intent = session.payment_intent().map(str::to_owned);
            (intent, session.paid_at().map(|at| at.timestamp()), session.payment_has_failed())
        };
        let pi = Some("pi_1".to_owned());
        assert_eq!(read("null"), (None, None, false));
        assert_eq!(read(r#""pi_1""#), (pi.clone(), None, false));
        assert_eq!(read(r#"{"id": "pi_1"}"#), (pi.clone(), None, false));
        let charge = r#"{"id": "ch_1", "created": 1772000009, "amount": 9998}"#;
        for (latest_charge, paid_at) in [("null", 1_772_000_000), (r#""ch_1""#, 1_772_000_000), (charge, 1_772_000_009)]
        {
            let intent = format!(
                r#"{{"id": "pi_1", "created": 1772000000, "status": "succeeded", "latest_charge": {latest_charge}}}"#
            );
            assert_eq!(read(&intent), (pi.clone(), Some(paid_at), false), "{latest_charge}");
        }
        for (status, failed) in [("processing", false), ("requires_payment_method", true), ("canceled", true)] {
            assert_eq!(read(&format!(r#"{{"id": "pi_1", "status": "{status}"}}"#)), (pi.clone(), None, failed));
        }
    }
}
