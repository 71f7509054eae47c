//! Payments of sessions, and the signed events about them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{
    Shared, lock,
    sessions::{PaymentStatus, Session, SessionStatus},
};
use crate::postgres::random_word;

/// The result of sending one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The type of the event.
    pub kind: String,
    /// The status code of the endpoint's response; `None` if there was none.
    pub status: Option<u16>,
}

/// The `Stripe-Signature` header for a body (<https://docs.stripe.com/webhooks#verify-manually>).
///
/// # Panics
/// Never; HMAC accepts keys of any length.
pub fn sign(body: &str, secret: &str, timestamp: i64) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(format!("{timestamp}.{body}").as_bytes());
    let signature: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={timestamp},v1={signature}")
}

/// Counts events, from the change that causes them until they are accepted or given up.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    begun: AtomicUsize,
    ended: AtomicUsize,
}

/// Counts one event as in transit until it is dropped.
#[derive(Debug)]
pub(super) struct OnItsWay(Arc<Traffic>);

impl Traffic {
    pub(super) fn begin(self: &Arc<Self>) -> OnItsWay {
        self.begun.fetch_add(1, Ordering::AcqRel);
        OnItsWay(self.clone())
    }

    /// The number of events so far; `None` while one is in transit.
    pub(super) fn all_ended(&self) -> Option<usize> {
        let ended = self.ended.load(Ordering::Acquire); // read first, so that events that begin meanwhile are noticed
        (self.begun.load(Ordering::Acquire) == ended).then_some(ended)
    }
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::AcqRel);
    }
}

impl Shared {
    /// A payment by card. Sends two events, that of the PaymentIntent first; one if there is nothing to
    /// pay.
    pub(super) async fn pay(&self, id: &str) -> Result<Vec<Delivery>> {
        let session = self.complete(id, PaymentStatus::Paid)?;
        if session.payment_intent.is_none() {
            return Ok(vec![self.send(&session, "checkout.session.completed").await]);
        }
        let intent = self.send(&session, "payment_intent.succeeded").await;
        Ok(vec![intent, self.send(&session, "checkout.session.completed").await])
    }

    pub(super) async fn pay_later(&self, id: &str) -> Result<Vec<Delivery>> {
        let session = self.complete(id, PaymentStatus::Unpaid)?;
        Ok(vec![self.send(&session, "checkout.session.completed").await])
    }

    pub(super) async fn money_arrives(&self, id: &str, arrives: bool) -> Result<Vec<Delivery>> {
        let in_progress = |session: &Session| {
            session.status == SessionStatus::Complete
                && session.payment_status == PaymentStatus::Unpaid
                && !session.payment_failed
        };
        let now = self.config.clock.now();
        let session = lock(&self.sessions).change(id, in_progress, |session| {
            if arrives {
                session.payment_status = PaymentStatus::Paid;
                session.paid_at = Some(now);
            }
            session.payment_failed = !arrives;
        })?;
        self.faults.begin_payment(id);
        self.save();
        if !arrives {
            return Ok(vec![self.send(&session, "checkout.session.async_payment_failed").await]);
        }
        let intent = self.send(&session, "payment_intent.succeeded").await;
        Ok(vec![intent, self.send(&session, "checkout.session.async_payment_succeeded").await])
    }

    fn complete(&self, id: &str, payment_status: PaymentStatus) -> Result<Session> {
        let now = self.config.clock.now();
        let takes_money = |session: &Session| session.status == SessionStatus::Open && session.expires_at > now;
        let session = lock(&self.sessions).change(id, takes_money, |session| {
            session.complete_with(payment_status);
            session.charged_at = Some(now);
            session.paid_at = (payment_status == PaymentStatus::Paid).then_some(now);
            session.is_debit = payment_status == PaymentStatus::Unpaid;
        })?;
        self.faults.begin_payment(id);
        self.save();
        Ok(session)
    }

    /// Sends an event, and retries a few times until it is accepted.
    pub(super) async fn send(&self, session: &Session, kind: &str) -> Delivery {
        let _on_its_way = self.traffic.begin();
        let body = self.record(self.event(session, kind)).to_string();
        let mut status = None;
        if lock(&self.webhook_url).is_none() || self.faults.loses(&session.id) {
            return Delivery { kind: kind.to_owned(), status };
        }
        if let Some(mail) = self.mail.get() {
            mail.post(body);
            return Delivery { kind: kind.to_owned(), status };
        }
        for pause in [0, 100, 500, 2_000, 5_000] {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if lock(&self.webhook_url).is_none() {
                break; // there is no endpoint
            }
            status = self.deliver(&body).await;
            if status.is_some_and(is_taken) {
                break;
            }
        }
        Delivery { kind: kind.to_owned(), status }
    }

    /// Builds an event of this type about the session in its given state.
    pub(super) fn event(&self, session: &Session, kind: &str) -> Value {
        let object = match kind {
            "payment_intent.succeeded" => session.intent_json(),
            kind => session.after_payment(kind).unwrap_or_else(|| session.to_json(&self.url())),
        };
        json!({
            "id": format!("evt_{}", random_word()), "object": "event", "api_version": "2026-09-30.endive",
            "created": self.config.clock.now().timestamp(), "livemode": session.livemode, "pending_webhooks": 1,
            "request": {"id": null, "idempotency_key": null}, "type": kind, "data": {"object": object},
        })
    }

    /// Delivers the event once, with a new signature as Stripe does; returns the status code.
    pub(super) async fn deliver(&self, body: &str) -> Option<u16> {
        let url = lock(&self.webhook_url).clone()?;
        let signature = sign(body, &self.config.webhook_secret, self.config.clock.now().timestamp());
        let request =
            self.http.post(&url).header("content-type", "application/json").header("stripe-signature", signature);
        let sent = request.body(body.to_owned()).send().await;
        sent.ok().map(|response| response.status().as_u16())
    }
}

/// Whether Stripe would regard the event as delivered.
pub(super) fn is_taken(status: u16) -> bool {
    (200..300).contains(&status)
}
