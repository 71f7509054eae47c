//! Refunds and disputes of payments, by <https://docs.stripe.com/refunds>
//! and <https://docs.stripe.com/disputes/how-disputes-work>. Objects and events have the fields of
//! <https://docs.stripe.com/api/charges/object>, `/refunds/object` and `/disputes/object`.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    Delivery, Shared, lock,
    reversals::{Dispute, Refund},
    sessions::{PaymentStatus, Session},
};
use crate::postgres::random_word;

impl Session {
    /// The rest of the payment that can be refunded.
    pub(super) fn refundable(&self) -> i64 {
        let paid = self.payment_status == PaymentStatus::Paid;
        let barred = self.charge.disputes.iter().any(|dispute| dispute.status != "won");
        if paid && !barred { self.amount_total - self.charge.amount_refunded() } else { 0 }
    }

    /// The charge. That of a delayed payment is created when the shopper pays, and pending until the
    /// money arrives.
    pub(super) fn charge_json(&self) -> Value {
        let status = match self.payment_status {
            PaymentStatus::Paid | PaymentStatus::NoPaymentRequired => "succeeded",
            PaymentStatus::Unpaid if self.payment_failed => "failed",
            PaymentStatus::Unpaid => "pending",
        };
        let (paid, refunded) = (status == "succeeded", self.charge.amount_refunded());
        json!({
            "id": self.charge_id(), "object": "charge", "amount": self.amount_total,
            "amount_captured": if paid { self.amount_total } else { 0 }, "amount_refunded": refunded, "captured": paid,
            "created": self.charged_at.unwrap_or(self.created).timestamp(), "currency": self.currency, "customer": null,
            "description": self.payment_intent_description, "disputed": !self.charge.disputes.is_empty(),
            "livemode": self.livemode, "metadata": self.payment_intent_metadata, "paid": paid,
            "payment_intent": self.payment_intent, "refunded": refunded == self.amount_total, "status": status,
            "billing_details": {"address": null, "email": self.customer_email, "name": null, "phone": null},
            "payment_method_details": {"type": if self.is_debit { "us_bank_account" } else { "card" }},
        })
    }

    /// A refund has no `livemode`, and metadata of its own.
    fn refund_json(&self, refund: &Refund) -> Value {
        json!({
            "id": refund.id, "object": "refund", "amount": refund.amount, "balance_transaction": format!("txn_of_{}", refund.id),
            "charge": self.charge_id(), "created": self.created.timestamp(), "currency": self.currency,
            "failure_reason": refund.failed.then_some("expired_or_canceled_card"), "metadata": {},
            "payment_intent": self.payment_intent, "reason": "requested_by_customer",
            "status": if refund.failed { "failed" } else { "succeeded" },
        })
    }

    fn dispute_json(&self, dispute: &Dispute) -> Value {
        json!({
            "id": dispute.id, "object": "dispute", "amount": dispute.amount, "balance_transactions": [],
            "charge": self.charge_id(), "created": self.created.timestamp(), "currency": self.currency,
            "evidence": {"customer_email_address": self.customer_email}, "is_charge_refundable": false,
            "livemode": self.livemode, "metadata": {}, "payment_intent": self.payment_intent, "reason": "general",
            "status": dispute.status,
        })
    }

    /// The object of an event of this type: the charge, the last refund or the last dispute. `None`
    /// for events of other objects.
    pub(super) fn after_payment(&self, kind: &str) -> Option<Value> {
        match kind {
            "charge.refunded" => Some(self.charge_json()),
            kind if kind.starts_with("charge.dispute.") => {
                self.charge.disputes.last().map(|dispute| self.dispute_json(dispute))
            }
            kind if kind.starts_with("refund.") || kind.starts_with("charge.refund.") => {
                self.charge.refunds.last().map(|refund| self.refund_json(refund))
            }
            _ => None,
        }
    }

    /// Adds a refund.
    ///
    /// # Errors
    /// If the rest of the payment is smaller.
    pub fn refund(&mut self, amount: i64) -> Result<()> {
        ensure!((1..=self.refundable()).contains(&amount), "{} can be refunded", self.refundable());
        self.charge.refunds.push(Refund { id: format!("re_{}", random_word()), amount, failed: false });
        Ok(())
    }

    /// Lets the last refund fail, which returns its amount to the account.
    ///
    /// # Errors
    /// If there is no refund, or it has failed.
    pub fn fail_refund(&mut self) -> Result<()> {
        let refund = self.charge.refunds.last_mut().filter(|refund| !refund.failed);
        refund.context("no refund can fail")?.failed = true;
        Ok(())
    }

    /// Opens a dispute.
    ///
    /// # Errors
    /// If the session is not paid, or its payment is refunded.
    pub fn dispute(&mut self, amount: i64) -> Result<()> {
        ensure!(self.payment_status == PaymentStatus::Paid, "only a payment can be disputed");
        ensure!(self.charge.amount_refunded() < self.amount_total, "a refunded payment can't be disputed");
        let status = "needs_response".to_owned();
        self.charge.disputes.push(Dispute { id: format!("du_{}", random_word()), amount, status });
        Ok(())
    }

    /// Closes the last dispute, `won` or `lost`. A dispute that was lost may be withdrawn later.
    ///
    /// # Errors
    /// If there is none, or it is won.
    pub fn close_dispute(&mut self, won: bool) -> Result<()> {
        let dispute = self.charge.disputes.last_mut().filter(|dispute| dispute.status != "won");
        let status = if won { "won" } else { "lost" };
        status.clone_into(&mut dispute.context("no dispute can be closed")?.status);
        Ok(())
    }
}

impl Shared {
    /// Changes a payment, then sends these events about it.
    pub(super) async fn after_payment(
        &self,
        id: &str,
        kinds: &[&str],
        change: impl Fn(&mut Session) -> Result<()>,
    ) -> Result<Vec<Delivery>> {
        let session = {
            let mut sessions = lock(&self.sessions);
            let mut session = sessions.find(id).with_context(|| format!("No such checkout.session: '{id}'"))?.clone();
            change(&mut session)?;
            sessions.change(id, |_| true, |stored| *stored = session.clone())?
        };
        self.save();
        self.faults.end_loss(id);
        let mut deliveries = Vec::new();
        for kind in kinds {
            deliveries.push(self.send(&session, kind).await);
        }
        Ok(deliveries)
    }

    /// Refunds `amount`, or the rest.
    pub(super) async fn refund(&self, id: &str, amount: Option<i64>) -> Result<Vec<Delivery>> {
        let kinds = ["refund.created", "charge.refunded"];
        self.after_payment(id, &kinds, |session| {
            let rest = session.refundable();
            session.refund(amount.unwrap_or(rest))
        })
        .await
    }

    pub(super) async fn fail_refund(&self, id: &str) -> Result<Vec<Delivery>> {
        let kinds = ["refund.updated", "charge.refund.updated", "refund.failed"];
        self.after_payment(id, &kinds, Session::fail_refund).await
    }

    /// Disputes `amount`, or the whole payment.
    pub(super) async fn dispute(&self, id: &str, amount: Option<i64>) -> Result<Vec<Delivery>> {
        let kinds = ["charge.dispute.created", "charge.dispute.funds_withdrawn"];
        self.after_payment(id, &kinds, |session| {
            let whole = session.amount_total;
            session.dispute(amount.unwrap_or(whole))
        })
        .await
    }

    pub(super) async fn close_dispute(&self, id: &str, won: bool) -> Result<Vec<Delivery>> {
        let kinds: &[&str] = match won {
            true => &["charge.dispute.closed", "charge.dispute.funds_reinstated"],
            false => &["charge.dispute.closed"],
        };
        self.after_payment(id, kinds, |session| session.close_dispute(won)).await
    }
}
