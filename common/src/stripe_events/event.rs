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

/// The object of an event: a Checkout Session, a PaymentIntent, a Charge, a Refund, a Dispute, or
/// anything else.
#[derive(Debug, Clone, Default)]
pub struct StripeObject {
    /// The type: `checkout.session`, `payment_intent`, `charge`, `refund` or `dispute`.
    pub object: Option<String>,
    /// The id, for example `cs_…` or `pi_…`.
    pub id: Option<String>,
    /// `open`, `complete` or `expired`, for a PaymentIntent `succeeded`; `failed` or `lost` for
    /// example of refunds and disputes. Empty if the field is not a string.
    pub status: Option<String>,
    /// The PaymentIntent of a session, charge, refund or dispute.
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
    /// A charge was refunded.
    Refunded,
    /// A refund failed, or was cancelled.
    RefundFailed,
    /// A dispute was opened, changed or closed.
    Disputed,
}

impl Kind {
    /// Whether money of a payment went back, or may.
    pub(super) fn is_reversal(self) -> bool {
        matches!(self, Self::Refunded | Self::RefundFailed | Self::Disputed)
    }
}

impl StripeEvent {
    /// The kind of the event (<https://docs.stripe.com/api/events/types>); `None` if it can't change
    /// anything. Every event about a dispute has the dispute's current status.
    pub(super) fn matters(&self) -> Option<Kind> {
        Some(match self.kind.as_str() {
            "checkout.session.completed" => Kind::Completed,
            "checkout.session.async_payment_succeeded" => Kind::MoneyArrived,
            "checkout.session.async_payment_failed" => Kind::MoneyFailed,
            "checkout.session.expired" => Kind::Expired,
            "payment_intent.succeeded" => Kind::IntentSucceeded,
            "charge.refunded" => Kind::Refunded,
            "refund.failed" | "refund.updated" | "charge.refund.updated"
                if matches!(self.object.status.as_deref(), Some("failed" | "canceled")) =>
            {
                Kind::RefundFailed
            }
            kind if kind.starts_with("charge.dispute.") => Kind::Disputed,
            _ => return None,
        })
    }
}

impl StripeObject {
    /// The cart ids in the object; the one in the metadata comes first.
    pub fn named_carts(&self) -> impl Iterator<Item = &CartId> {
        self.cart_id.iter().chain(&self.reference)
    }

    /// The ids of the session and of the PaymentIntent that the object of such an event is about.
    pub(super) fn ids(&self, kind: Kind) -> (Option<&str>, Option<&str>) {
        match kind {
            Kind::IntentSucceeded => (None, self.id.as_deref()),
            kind if kind.is_reversal() => (None, self.payment_intent.as_deref()),
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
    /// The refunds of a payment changed.
    Refunded,
    /// The state of a dispute changed.
    Disputed,
    /// A refund or dispute of a payment that no payment link is known to have. It takes effect once
    /// a link has the PaymentIntent.
    Unmatched,
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
