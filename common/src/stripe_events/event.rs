//! The fields of Stripe's events that matter, and the effects of events.

use chrono::{DateTime, Utc};

use crate::{carts::CartId, payment_links::Reported};

/// A Stripe event, reduced to the fields that matter here.
#[derive(Debug, Clone)]
pub struct StripeEvent {
    /// `evt_…`
    pub id: String,
    /// `checkout.session.completed` and so on.
    pub kind: String,
    /// When Stripe created the event.
    pub created_at: DateTime<Utc>,
    /// Whether it names an account: Stripe Connect sends the events of connected accounts so.
    pub is_of_other_account: bool,
    /// What it is about.
    pub object: StripeObject,
}

/// The object of an event: a Checkout Session, a PaymentIntent, or anything else.
#[derive(Debug, Clone, Default)]
pub struct StripeObject {
    /// `checkout.session` or `payment_intent`.
    pub object: Option<String>,
    /// `cs_…` or `pi_…`
    pub id: Option<String>,
    /// `open`, `complete` or `expired`; of a PaymentIntent `succeeded`; empty if it is not text.
    pub status: Option<String>,
    /// The session's PaymentIntent.
    pub payment_intent: Option<String>,
    /// Compared with the link's [`Expected`](crate::payment_links::Expected).
    pub reported: Reported,
    /// `metadata.cart_id`
    pub cart_id: Option<CartId>,
    /// `metadata.link_version`
    pub link_version: Option<i32>,
    /// A cart's id in `client_reference_id`. Anyone who opens a Stripe Payment Link can set
    /// that field, so it is used for reporting only.
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
    /// The cart ids in the object, that of its metadata first.
    pub fn named_carts(&self) -> impl Iterator<Item = &CartId> {
        self.cart_id.iter().chain(&self.reference)
    }

    /// The session and the PaymentIntent of an object of this kind.
    pub(super) fn ids(&self, kind: Kind) -> (Option<&str>, Option<&str>) {
        match kind {
            Kind::IntentSucceeded => (None, self.id.as_deref()),
            _ => (self.id.as_deref(), self.payment_intent.as_deref()),
        }
    }
}

/// What an event did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The cart is recovered now.
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
    /// The event is about one of our sessions, but does not match its link.
    Mismatch,
    /// No effect.
    None,
    /// The event was stored before.
    Repeated,
    /// Another transaction has its cart or link locked: it is not stored, and has to be applied again.
    Held,
}

impl Effect {
    /// The value that is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recovered => "recovered",
            Self::AlreadyRecovered => "already_recovered",
            Self::Processing => "processing",
            Self::PaymentFailed => "payment_failed",
            Self::Closed => "closed",
            Self::UnknownCart => "unknown_cart",
            Self::NotOurs => "not_ours",
            Self::Mismatch => "mismatch",
            Self::None => "none",
            Self::Repeated => "repeated",
            Self::Held => "held",
        }
    }
}
