//! Stripe's events, reduced to the fields used here, and their effects.

use chrono::{DateTime, Utc};
use strum::IntoStaticStr;

use crate::{carts::CartId, payment_links::Reported};

/// A Stripe event, reduced to the fields used here.
#[derive(Debug, Clone)]
pub struct StripeEvent {
    /// `evt_…`
    pub id: String,
    /// The type, for example `checkout.session.completed`.
    pub kind: String,
    /// When Stripe created the event.
    pub created_at: DateTime<Utc>,
    /// Whether the event names an account, as Stripe Connect's events of connected accounts do.
    pub is_of_other_account: bool,
    /// The object of the event.
    pub object: StripeObject,
}

/// The object of an event: a Checkout Session, a PaymentIntent, or anything else.
#[derive(Debug, Clone, Default)]
pub struct StripeObject {
    /// `checkout.session` or `payment_intent`.
    pub object: Option<String>,
    /// The id, `cs_…` or `pi_…`.
    pub id: Option<String>,
    /// `open`, `complete` or `expired`, for a PaymentIntent `succeeded`; empty if the field is not
    /// a string.
    pub status: Option<String>,
    /// The session's PaymentIntent.
    pub payment_intent: Option<String>,
    /// The data to compare with the link's [`Expected`](crate::payment_links::Expected).
    pub reported: Reported,
    /// `metadata.cart_id`
    pub cart_id: Option<CartId>,
    /// `metadata.link_version`
    pub link_version: Option<i32>,
    /// A cart's id in `client_reference_id`. Anyone who opens a Stripe Payment Link can set that
    /// field, so it is used only for reporting.
    pub reference: Option<CartId>,
}

/// The events that can change a cart or a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Completed,
    MoneyArrived,
    MoneyFailed,
    Expired,
    IntentSucceeded,
}

impl StripeEvent {
    pub(super) fn matters(&self) -> Option<Kind> {
        Some(match self.kind.as_str() {
            "checkout.session.completed" => Kind::Completed,
            "checkout.session.async_payment_succeeded" => Kind::MoneyArrived,
            "checkout.session.async_payment_failed" => Kind::MoneyFailed,
            "checkout.session.expired" => Kind::Expired,
            "payment_intent.succeeded" => Kind::IntentSucceeded,
            _ => return None,
        })
    }
}

impl StripeObject {
    /// The cart ids in the object; the one in the metadata comes first.
    pub fn named_carts(&self) -> impl Iterator<Item = &CartId> {
        self.cart_id.iter().chain(&self.reference)
    }

    /// The ids of the session and of the PaymentIntent in the object of such an event.
    pub(super) fn ids(&self, kind: Kind) -> (Option<&str>, Option<&str>) {
        match kind {
            Kind::IntentSucceeded => (None, self.id.as_deref()),
            _ => (self.id.as_deref(), self.payment_intent.as_deref()),
        }
    }
}

/// The effect of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Effect {
    /// The event recovered the cart.
    Recovered,
    /// The cart was recovered before.
    AlreadyRecovered,
    /// A payment is in progress.
    Processing,
    /// A payment failed; the cart can have a new link.
    PaymentFailed,
    /// The session closed.
    Closed,
    /// The event names no known cart.
    UnknownCart,
    /// The event names a cart, but is about none of the cart's sessions.
    NotOurs,
    /// The event is about a session of a payment link, but does not match the link.
    Mismatch,
    /// No effect.
    None,
    /// The event was stored before, and had no effect again.
    Repeated,
    /// Another transaction has the cart or link locked. The event was not stored and must be
    /// applied again.
    Held,
}

impl Effect {
    /// The value that is stored.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
