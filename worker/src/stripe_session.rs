//! Checkout Sessions in Stripe's answers.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use common::payment_links::Reported;
use serde::Deserialize;

use crate::stripe_error::StripeError;

/// A Checkout Session, reduced to the fields that the worker uses.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) url: Option<String>,
    status: Option<String>,
    mode: Option<String>,
    payment_status: Option<String>,
    amount_total: Option<i64>,
    currency: Option<String>,
    pub(crate) livemode: Option<bool>,
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
    #[serde(default)]
    pub(crate) has_more: bool,
}

/// Whether a session can be paid, was completed, or has expired.
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

    /// Whether the session's metadata names this request. (`client_reference_id` proves nothing:
    /// anyone who opens a Stripe Payment Link can set it.)
    pub(crate) fn is_of(&self, cart_id: &str, version: i32) -> bool {
        let named = |key: &str| self.metadata.as_ref()?.get(key).map(String::as_str);
        named("cart_id") == Some(cart_id) && named("link_version") == Some(version.to_string().as_str())
    }

    pub(crate) fn expires_at(&self, asked: DateTime<Utc>) -> DateTime<Utc> {
        self.expires_at.unwrap_or(asked)
    }

    /// The fields that are compared with the payment link.
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
