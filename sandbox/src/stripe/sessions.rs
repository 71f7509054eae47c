//! The stored sessions, and the stored responses of idempotency keys.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{lists::Listed, options::SessionOptions, reversals::Charge};

/// The status of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionStatus {
    /// A shopper can pay.
    Open,
    /// A shopper paid or started a payment.
    Complete,
    /// The session can't be paid any more.
    Expired,
}

/// The status of the payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentStatus {
    /// Not paid, or in progress.
    Unpaid,
    /// Paid.
    Paid,
    /// The amount is zero, or the session is a setup.
    NoPaymentRequired,
}

/// A line item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The product's name.
    pub name: String,
    /// The product's description.
    #[serde(default)]
    pub description: Option<String>,
    /// The number of pieces.
    pub quantity: i64,
    /// The price of one piece, in Stripe's smallest unit.
    pub unit_amount: i64,
}

/// A Checkout Session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// `cs_test_…` or `cs_live_…`
    pub id: String,
    /// The status of the session.
    pub status: SessionStatus,
    /// The status of the payment.
    pub payment_status: PaymentStatus,
    /// The total, in Stripe's smallest unit.
    pub amount_total: i64,
    /// The discount of a promotion code, which the total is without.
    #[serde(default)]
    pub amount_discount: i64,
    /// The tax that the total contains.
    #[serde(default)]
    pub amount_tax: i64,
    /// The currency code in lower case.
    pub currency: String,
    /// The line items.
    pub lines: Vec<Line>,
    /// The cart's id.
    pub client_reference_id: Option<String>,
    /// The shopper's e-mail address.
    pub customer_email: Option<String>,
    /// The language of the page; `None`: that of the browser.
    #[serde(default)]
    pub locale: Option<String>,
    /// The data that the page collects, and its offers.
    #[serde(default)]
    pub options: SessionOptions,
    /// The metadata of the session.
    pub metadata: BTreeMap<String, String>,
    /// The metadata of the session's PaymentIntent.
    pub payment_intent_metadata: BTreeMap<String, String>,
    /// The description of the session's PaymentIntent.
    #[serde(default)]
    pub payment_intent_description: Option<String>,
    /// The id of the PaymentIntent, once a shopper paid.
    pub payment_intent: Option<String>,
    /// When the shopper paid, or started a delayed payment.
    #[serde(default)]
    pub charged_at: Option<DateTime<Utc>>,
    /// When the account got the money.
    #[serde(default)]
    pub paid_at: Option<DateTime<Utc>>,
    /// Whether the shopper paid by bank debit, which is a delayed payment, instead of a card.
    #[serde(default)]
    pub is_debit: bool,
    /// Whether a delayed payment failed.
    #[serde(default)]
    pub payment_failed: bool,
    /// The address that shoppers are sent to after paying.
    pub success_url: String,
    /// When the session was created.
    pub created: DateTime<Utc>,
    /// When the session expires.
    pub expires_at: DateTime<Utc>,
    /// `payment`, or `setup` for a foreign session.
    #[serde(default = "payment")]
    pub mode: String,
    /// Whether real money moves.
    #[serde(default)]
    pub livemode: bool,
    /// The refunds and disputes of the payment.
    #[serde(default)]
    pub charge: Charge,
}

fn payment() -> String {
    "payment".to_owned()
}

impl Listed for Session {
    fn id(&self) -> &str {
        &self.id
    }

    fn created(&self) -> i64 {
        self.created.timestamp()
    }
}

impl Session {
    /// Sets the mode of the key that creates it.
    #[must_use]
    pub(super) fn in_mode(self, livemode: bool) -> Self {
        let id = if livemode { self.id.replacen("_test_", "_live_", 1) } else { self.id };
        Self { id, livemode, ..self }
    }

    /// Sets the state after a payment by card.
    pub fn complete(&mut self) {
        self.status = SessionStatus::Complete;
        self.payment_status = PaymentStatus::Paid;
        self.payment_intent.get_or_insert_with(|| format!("pi_of_{}", self.id));
    }

    /// The session in the format of Stripe's API. The address is present while the session is open.
    pub(super) fn to_json(&self, base: &str) -> Value {
        let open = self.status == SessionStatus::Open;
        // A setup session has no amount.
        let is_payment = self.mode == "payment";
        let (subtotal, amount) = (is_payment.then(|| self.amount_subtotal()), is_payment.then_some(self.amount_total));
        let currency = is_payment.then_some(&self.currency);
        let details =
            json!({"amount_discount": self.amount_discount, "amount_shipping": 0, "amount_tax": self.amount_tax});
        let countries = &self.options.shipping_countries;
        let shipping = (!countries.is_empty()).then(|| json!({"allowed_countries": countries}));
        let tax = match (self.options.automatic_tax, self.status) {
            (false, _) => json!({"enabled": false, "liability": null, "provider": null, "status": null}),
            (true, SessionStatus::Complete) => {
                json!({"enabled": true, "liability": {"type": "self"}, "provider": "stripe", "status": "complete"})
            }
            (true, _) => json!({"enabled": true, "liability": {"type": "self"}, "provider": "stripe",
                                "status": "requires_location_inputs"}),
        };
        json!({
            "id": self.id, "object": "checkout.session", "livemode": self.livemode, "mode": self.mode,
            "status": self.status, "payment_status": self.payment_status,
            "amount_subtotal": subtotal, "amount_total": amount, "currency": currency,
            "total_details": is_payment.then_some(details),
            "client_reference_id": self.client_reference_id, "customer": null, "customer_email": self.customer_email,
            "locale": self.locale, "metadata": self.metadata, "payment_intent": self.payment_intent, "success_url": self.success_url,
            "cancel_url": null, "created": self.created.timestamp(), "expires_at": self.expires_at.timestamp(),
            "url": open.then(|| format!("{base}/c/pay/{}", self.id)),
            "allow_promotion_codes": self.options.promotion_codes.then_some(true), "automatic_tax": tax,
            "billing_address_collection": self.options.billing_address,
            "phone_number_collection": {"enabled": self.options.phone}, "shipping_address_collection": shipping,
            "custom_fields": [], "custom_text": {"after_submit": null, "shipping_address": null, "submit": null,
            "terms_of_service_acceptance": null}, "payment_method_types": ["card", "us_bank_account"],
            "shipping_options": [], "ui_mode": "hosted_page",
        })
    }
}

/// The response stored under an idempotency key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) status: u16,
    pub(super) body: Value,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Sessions {
    sessions: Vec<Session>,
    /// The place of each cart's newest session.
    #[serde(skip)]
    newest: HashMap<String, usize>,
    keys: HashMap<String, Stored>,
    /// Carts that had two sessions open at the same time.
    #[serde(default)]
    overlapping: Vec<String>,
}

impl Sessions {
    pub(super) fn load(file: Option<&Path>) -> Result<Self> {
        match file {
            Some(file) if file.exists() => {
                let text = fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
                let mut all: Self =
                    serde_json::from_str(&text).with_context(|| format!("{} is damaged; delete it", file.display()))?;
                let cart = |(place, session): (usize, &Session)| Some((session.client_reference_id.clone()?, place));
                all.newest = all.sessions.iter().enumerate().filter_map(cart).collect();
                Ok(all)
            }
            _ => Ok(Self::default()),
        }
    }

    pub(super) fn save(&self, file: Option<&Path>) -> Result<()> {
        let Some(file) = file else { return Ok(()) };
        let beside = file.with_extension("new");
        fs::write(&beside, serde_json::to_vec(self)?)?;
        Ok(fs::rename(beside, file)?)
    }

    pub(super) fn all(&self) -> Vec<Session> {
        self.sessions.clone()
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Session> {
        self.sessions.iter().rev()
    }

    pub(super) fn overlapping(&self) -> Vec<String> {
        self.overlapping.clone()
    }

    pub(super) fn add(&mut self, session: Session) {
        // Sessions of other tools name no cart.
        if let Some(cart) = &session.client_reference_id
            && let Some(before) = self.newest.insert(cart.clone(), self.sessions.len())
            && self.sessions.get(before).is_some_and(|before| before.status == SessionStatus::Open)
        {
            self.overlapping.push(cart.clone());
        }
        self.sessions.push(session);
    }

    pub(super) fn find(&self, id: &str) -> Option<&Session> {
        self.sessions.iter().find(|session| session.id == id)
    }

    /// Changes the session with this id if `may` returns `true` for it.
    pub(super) fn change(
        &mut self,
        id: &str,
        may: impl Fn(&Session) -> bool,
        change: impl Fn(&mut Session),
    ) -> Result<Session> {
        let Some(session) = self.sessions.iter_mut().find(|session| session.id == id) else {
            bail!("No such checkout.session: '{id}'")
        };
        if !may(session) {
            bail!("the session is {:?}, its payment {:?}", session.status, session.payment_status)
        }
        change(session);
        Ok(session.clone())
    }

    pub(super) fn expire_due(&mut self, now: DateTime<Utc>) -> Vec<Session> {
        let due = self
            .sessions
            .iter_mut()
            .filter(|session| session.status == SessionStatus::Open && session.expires_at <= now);
        due.map(|session| {
            session.status = SessionStatus::Expired;
            session.clone()
        })
        .collect()
    }

    pub(super) fn stored(&self, key: &str) -> Option<&Stored> {
        self.keys.get(key)
    }

    pub(super) fn store(&mut self, key: &str, stored: Stored) {
        self.keys.insert(key.to_owned(), stored);
    }
}
