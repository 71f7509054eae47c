//! The refunds and disputes of a payment.

use serde::{Deserialize, Serialize};

/// The refunds and disputes of a session's payment, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// The refunds.
    pub refunds: Vec<Refund>,
    /// The disputes.
    pub disputes: Vec<Dispute>,
}

/// A refund of a payment or of a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refund {
    /// `re_…`
    pub id: String,
    /// The amount in Stripe's smallest unit.
    pub amount: i64,
    /// Whether the shopper's bank returned the money.
    pub failed: bool,
}

/// A dispute about a payment or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispute {
    /// `du_…`
    pub id: String,
    /// The disputed amount in Stripe's smallest unit.
    pub amount: i64,
    /// The status, for example `needs_response`, `won` or `lost`.
    pub status: String,
}

impl Charge {
    /// The sum of the refunds that did not fail: `amount_refunded`.
    pub fn amount_refunded(&self) -> i64 {
        self.refunds.iter().filter(|refund| !refund.failed).map(|refund| refund.amount).sum()
    }

    /// The money that went back: refunds and lost disputes, in Stripe's smallest unit.
    pub fn returned(&self) -> i64 {
        let lost = self.disputes.iter().filter(|dispute| dispute.status == "lost").map(|dispute| dispute.amount);
        self.amount_refunded() + lost.sum::<i64>()
    }

    pub(super) fn is_disputed(&self) -> bool {
        self.disputes.iter().any(|dispute| dispute.status == "needs_response")
    }
}
