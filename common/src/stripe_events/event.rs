//! What is read of an event, and what became of it.

use chrono::{DateTime, Utc};

use crate::{carts::CartId, payment_links::Reported};

/// What an event says that matters here.
#[derive(Debug, Clone)]
pub struct StripeEvent {
    /// `evt_…`
    pub id: String,
    /// `checkout.session.completed` and so on.
    pub kind: String,
    /// When it happened, says Stripe.
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
    /// What the link's [`Expected`](crate::payment_links::Expected) is compared with.
    pub reported: Reported,
    /// `metadata.cart_id`
    pub cart_id: Option<CartId>,
    /// `metadata.link_version`
    pub link_version: Option<i32>,
    /// A cart in `client_reference_id`. Whoever opens a Stripe Payment Link can choose
    /// that field, so it tells only whom to show the event to.
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
    /// The carts that the object names, the one of its metadata first.
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
    /// A payment is under way.
    Processing,
    /// A payment failed; the cart can have a new link.
    PaymentFailed,
    /// The session closed.
    Closed,
    /// It names no cart that is known.
    UnknownCart,
    /// It names a cart, but is not about a session of that cart.
    NotOurs,
    /// It is about a session of ours, and contradicts what we know of the session.
    Mismatch,
    /// Nothing.
    None,
    /// This very event came before.
    Repeated,
    /// Another transaction has its cart or link locked: it is not stored, and has to be applied again.
    Held,
}

impl Effect {
    /// As it is stored.
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
