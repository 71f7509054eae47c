//! The PaymentIntent of a session, and its expansion and that of its charge in responses.

use serde_json::{Value, json};

use super::{
    refusal::Refusal,
    sessions::{PaymentStatus, Session},
};

impl Session {
    /// The PaymentIntent in the format of Stripe's API
    /// (<https://docs.stripe.com/api/payment_intents/object>), with the id of its charge. `null` before
    /// a shopper paid.
    pub(super) fn intent_json(&self) -> Value {
        if self.payment_intent.is_none() {
            return Value::Null;
        }
        // https://docs.stripe.com/payments/paymentintents/lifecycle
        let status = match self.payment_status {
            PaymentStatus::Paid | PaymentStatus::NoPaymentRequired => "succeeded",
            PaymentStatus::Unpaid if self.payment_failed => "requires_payment_method",
            PaymentStatus::Unpaid => "processing",
        };
        let received = if status == "succeeded" { self.amount_total } else { 0 };
        json!({
            "id": self.payment_intent, "object": "payment_intent", "amount": self.amount_total,
            "amount_received": received, "currency": self.currency, "status": status,
            "description": self.payment_intent_description, "metadata": self.payment_intent_metadata,
            "latest_charge": self.charge_id(), "created": self.charged_at.unwrap_or(self.created).timestamp(),
            "livemode": self.livemode,
        })
    }

    pub(super) fn charge_id(&self) -> Option<String> {
        self.payment_intent.as_ref().map(|intent| intent.replacen("pi_", "ch_", 1))
    }

    /// Replaces ids in the session's JSON by the objects that `expand` names
    /// (<https://docs.stripe.com/expand>).
    pub(super) fn expand(&self, mut json: Value, expand: &[&str]) -> Result<Value, Refusal> {
        for path in expand {
            let is_nested = *path == "payment_intent.latest_charge";
            if !is_nested && *path != "payment_intent" {
                return Err(Refusal::invalid(format!("This property cannot be expanded ({path}).")));
            }
            if self.payment_intent.is_none() {
                continue;
            }
            if json["payment_intent"].is_string() {
                json["payment_intent"] = self.intent_json();
            }
            if is_nested {
                json["payment_intent"]["latest_charge"] = self.charge_json();
            }
        }
        Ok(json)
    }
}

/// The values of `expand[]` in a query; those of a list begin with `prefix`.
pub(super) fn expansions<'a>(query: &'a [(String, String)], prefix: &str) -> Vec<&'a str> {
    query
        .iter()
        .filter(|(name, _)| name.starts_with("expand["))
        .map(|(_, path)| path.strip_prefix(prefix).unwrap_or(path))
        .collect()
}
