//! Events on the same account about sessions that the product did not create: sessions of a Stripe
//! Payment Link, whose `client_reference_id` the payer chooses
//! (<https://docs.stripe.com/payment-links/url-parameters>), or of the merchant's other tools.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::{
    Charge, Delivery, FakeStripe, SessionOptions,
    sessions::{PaymentStatus, Session, SessionStatus},
};
use crate::postgres::random_word;

/// The kinds of foreign sessions; each names a cart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// A payment of 0.50 USD by a Payment Link.
    PaymentLink,
    /// Like `PaymentLink`, with a discount of 100 %.
    Free,
    /// A session of a tool that copies the product's metadata, in another currency.
    OtherCurrency,
    /// A setup session, which saves a card; nothing is paid.
    Setup,
    /// A PaymentIntent of one cent.
    CentIntent,
    /// A Payment Link's session that expired without a payment.
    Expired,
    /// A bank debit that failed.
    MoneyFailed,
}

/// A new session that names no cart.
pub(super) fn session(created: DateTime<Utc>) -> Session {
    Session {
        id: format!("cs_test_{}", random_word()),
        status: SessionStatus::Open,
        payment_status: PaymentStatus::Unpaid,
        amount_total: 50,
        amount_discount: 0,
        amount_tax: 0,
        currency: "usd".to_owned(),
        lines: Vec::new(),
        client_reference_id: None,
        customer_email: None,
        locale: None,
        options: SessionOptions::default(),
        metadata: [].into(),
        payment_intent_metadata: [].into(),
        payment_intent_description: None,
        payment_intent: None,
        charged_at: None,
        paid_at: None,
        is_debit: false,
        payment_failed: false,
        success_url: "https://buy.stripe.com/thanks".to_owned(),
        created,
        expires_at: created + TimeDelta::hours(24),
        mode: "payment".to_owned(),
        livemode: false,
        charge: Charge::default(),
    }
}

impl Foreign {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::PaymentLink,
        Self::Free,
        Self::OtherCurrency,
        Self::Setup,
        Self::CentIntent,
        Self::Expired,
        Self::MoneyFailed,
    ];

    /// The type of the event.
    fn kind(self) -> &'static str {
        match self {
            Self::PaymentLink | Self::Free | Self::OtherCurrency | Self::Setup => "checkout.session.completed",
            Self::CentIntent => "payment_intent.succeeded",
            Self::Expired => "checkout.session.expired",
            Self::MoneyFailed => "checkout.session.async_payment_failed",
        }
    }

    /// A session that names this cart and the version of its link.
    fn session(self, cart: &str, version: i32, now: DateTime<Utc>) -> Session {
        let named = [("cart_id".to_owned(), cart.to_owned()), ("link_version".to_owned(), version.to_string())];
        let session = Session {
            status: SessionStatus::Complete,
            payment_status: PaymentStatus::Paid,
            client_reference_id: Some(cart.to_owned()),
            payment_intent: Some(format!("pi_{}", random_word())),
            ..session(now)
        };
        let tool = Session { metadata: named.clone().into(), payment_intent_metadata: named.into(), ..session.clone() };
        match self {
            Self::PaymentLink => session,
            Self::Free => Session {
                payment_status: PaymentStatus::NoPaymentRequired,
                amount_total: 0,
                payment_intent: None,
                ..session
            },
            Self::OtherCurrency => Session { currency: "jpy".to_owned(), ..tool },
            Self::Setup => Session {
                payment_status: PaymentStatus::NoPaymentRequired,
                mode: "setup".to_owned(),
                payment_intent: None,
                ..tool
            },
            Self::CentIntent => Session { amount_total: 1, ..tool },
            Self::Expired => Session {
                status: SessionStatus::Expired,
                payment_status: PaymentStatus::Unpaid,
                payment_intent: None,
                ..tool
            },
            Self::MoneyFailed => Session { payment_status: PaymentStatus::Unpaid, ..tool },
        }
    }
}

impl FakeStripe {
    /// Sends the event of a session that the product did not create.
    pub async fn send_foreign(&self, foreign: Foreign, cart: &str, version: i32) -> Delivery {
        let session = foreign.session(cart, version, self.shared.config.clock.now());
        self.shared.send(&session, foreign.kind()).await
    }

    /// Builds the same event without sending it.
    pub fn foreign_event(&self, foreign: Foreign, cart: &str, version: i32) -> Value {
        let session = foreign.session(cart, version, self.shared.config.clock.now());
        self.shared.event(&session, foreign.kind())
    }

    /// Builds an event of this type about one of the product's sessions, changed by `change`,
    /// without sending it.
    ///
    /// # Panics
    /// If there is no such session.
    pub fn event_of(&self, session_id: &str, kind: &str, change: impl FnOnce(&mut Session)) -> Value {
        let found = self.sessions().into_iter().find(|session| session.id == session_id);
        let mut session = found.expect("a session of this id");
        change(&mut session);
        self.shared.event(&session, kind)
    }
}
