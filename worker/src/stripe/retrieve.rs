//! Retrieves sessions with their payments.

use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use stripe_checkout::checkout_session::RetrieveCheckoutSession;
use stripe_client_core::{RequestBuilder, StripeMethod, StripeRequest};
use stripe_types::RangeQueryTs;

use super::{Session, Stripe, error::StripeError, ids::Id, with_id};

/// The PaymentIntent of a session and its newest charge
/// (<https://docs.stripe.com/expand#multiple-levels>).
const PAYMENT: &str = "payment_intent.latest_charge";
/// The event of a delayed payment that arrived.
const ARRIVED: &str = "checkout.session.async_payment_succeeded";
/// The event of a session that the shopper completed.
const COMPLETED: &str = "checkout.session.completed";
/// Maximum number of pages of events to read.
const PAGES: usize = 10;

/// The parameters of a list of events (<https://docs.stripe.com/api/events/list>).
#[derive(Debug, Serialize)]
struct EventQuery<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    limit: i64,
    created: RangeQueryTs,
    #[serde(skip_serializing_if = "Option::is_none")]
    starting_after: Option<&'a str>,
}

/// A page of a list of events, newest first.
#[derive(Debug, Deserialize)]
struct Events {
    data: Vec<Event>,
    has_more: bool,
}

#[derive(Debug, Deserialize)]
struct Event {
    id: Id,
    #[serde(with = "chrono::serde::ts_seconds")]
    created: DateTime<Utc>,
    data: EventData,
}

#[derive(Debug, Deserialize)]
struct EventData {
    object: EventObject,
}

#[derive(Debug, Deserialize)]
struct EventObject {
    id: Id,
}

impl Stripe {
    /// Retrieves a session with its payment. A restricted key may lack the right to read payments;
    /// the session has only the PaymentIntent's id then.
    pub(crate) async fn retrieve(&self, session_id: &str) -> Result<Session, StripeError> {
        let request = RetrieveCheckoutSession::new(session_id);
        let with_payment = request.clone().expand([PAYMENT.to_owned()]).build();
        let answer = match self.call(self.turn().await?, with_payment, None).await {
            Err(StripeError::Refused { status: StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN, .. }) => {
                self.call(self.turn().await?, request.build(), None).await
            }
            answer => answer,
        };
        answer.and_then(|session| with_id(session, session_id))
    }

    /// When the delayed payment of a session arrived, by Stripe's event: a PaymentIntent and its charge
    /// have only the time at which the shopper paid, and a balance transaction may be created before
    /// the money arrives. For a session without a PaymentIntent, because nothing was to be paid: when the
    /// shopper completed it. `from` is a time before that.
    ///
    /// `None` if there is no such event among the newest 1,000 of this type, or the key may not read
    /// the list. Stripe lists events of the last 30 days.
    pub(crate) async fn arrived_at(
        &self,
        session: &Session,
        from: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, StripeError> {
        let kind = if session.payment_intent().is_none() { COMPLETED } else { ARRIVED };
        let mut last: Option<Id> = None;
        for _ in 0..PAGES {
            let starting_after = last.as_ref().map(Id::as_str);
            let created = RangeQueryTs::gte(from.timestamp());
            let query = EventQuery { kind, limit: 100, created, starting_after };
            let request = RequestBuilder::new(StripeMethod::Get, "/events").query(&query);
            let page: Events = match self.call(self.turn().await?, request, None).await {
                Err(error @ StripeError::Refused { status: StatusCode::UNAUTHORIZED, .. }) => return Err(error),
                Err(StripeError::Refused { .. } | StripeError::Unreadable(_) | StripeError::TooLarge) => {
                    return Ok(None);
                }
                Err(StripeError::Unavailable { status, .. }) if status.is_client_error() => return Ok(None),
                page => page?,
            };
            if let Some(event) = page.data.iter().find(|event| event.data.object.id.as_str() == session.id) {
                return Ok(Some(event.created));
            }
            last = page.data.into_iter().next_back().map(|event| event.id);
            if !page.has_more || last.is_none() {
                break;
            }
        }
        Ok(None)
    }
}
