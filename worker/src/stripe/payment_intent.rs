//! PaymentIntents and their charges in Stripe's responses.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::ids::{Expandable, Id};

/// A PaymentIntent, reduced to the fields that the worker uses.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct PaymentIntent {
    pub(super) id: Id,
    status: Option<String>,
    #[serde(default, with = "chrono::serde::ts_seconds_option")]
    created: Option<DateTime<Utc>>,
    latest_charge: Option<Expandable<Charge>>,
}

/// A charge: an attempt to move money.
#[derive(Debug, Clone, Deserialize)]
struct Charge {
    #[serde(default, with = "chrono::serde::ts_seconds_option")]
    created: Option<DateTime<Utc>>,
    payment_method_details: Option<PaymentMethodDetails>,
}

#[derive(Debug, Clone, Deserialize)]
struct PaymentMethodDetails {
    #[serde(rename = "type")]
    kind: Option<String>,
}

impl PaymentIntent {
    /// When the shopper paid: the time of the charge, under which Stripe's dashboard and reports show
    /// the payment. Without a charge, the time of the PaymentIntent.
    pub(super) fn paid_at(&self) -> Option<DateTime<Utc>> {
        self.charge().and_then(|charge| charge.created).or(self.created)
    }

    /// Whether the payment was made by card, so that the money arrived at once.
    pub(super) fn is_by_card(&self) -> bool {
        let details = self.charge().and_then(|charge| charge.payment_method_details.as_ref());
        details.and_then(|details| details.kind.as_deref()) == Some("card")
    }

    fn charge(&self) -> Option<&Charge> {
        match &self.latest_charge {
            Some(Expandable::Object(charge)) => Some(charge),
            _ => None,
        }
    }

    /// Whether a payment of a completed session failed for good. A delayed payment that fails returns
    /// to `requires_payment_method`
    /// (<https://docs.stripe.com/payments/paymentintents/lifecycle>).
    pub(super) fn has_failed(&self) -> bool {
        matches!(self.status.as_deref(), Some("requires_payment_method" | "canceled"))
    }
}
