//! Stores what Stripe reports of a session that can't be paid any more, as the event about it would.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use common::{
    carts::{self, CartId},
    db::Connection,
    payment_links::{self, LinkPayment, Mismatch, Payment, PaymentLink, reconciliation},
    stripe_events::{self, Effect},
};

use super::SLACK;
use crate::{
    JobError, State,
    stripe::{Session, SessionState, error::StripeError},
};

/// Time from the creation of a session to its end, at most.
const LONGEST_SESSION: TimeDelta = TimeDelta::days(1);
/// Pause before a session of the other mode is requested again.
const OTHER_MODE_PAUSE: Duration = Duration::from_secs(60);

/// Final state of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Can't be paid any more.
    Closed,
    /// Was paid.
    Paid,
    /// Was completed by the shopper; the payment is processing.
    Processing,
}

/// Retrieves the link's session with its payment, and when that arrived.
pub(crate) async fn retrieve(state: &State, link: &PaymentLink, session_id: &str) -> Result<Session, StripeError> {
    let mut session = state.stripe.retrieve(session_id).await?;
    if session.may_have_arrived_later() {
        let created_at = link.attempted_at.unwrap_or(link.session_expires_at - LONGEST_SESSION);
        session.arrived_at = state.stripe.arrived_at(&session, created_at - SLACK).await?;
    }
    Ok(session)
}

/// Stores the outcome of the link's session, which is expired or completed; `None` if Stripe knows
/// none. Idempotent, also if the events about it arrive at the same time.
pub(crate) async fn store(
    state: &State,
    link: &PaymentLink,
    session_id: Option<&str>,
    session: Option<&Session>,
) -> Result<Settled, JobError> {
    let now = state.clock.now();
    let mut tx = state.lookups.begin().await?;
    let is_complete = |session: &&Session| session.state().is_ok_and(|state| state == SessionState::Complete);
    let settled = match session.filter(is_complete) {
        Some(session) => completed(&mut tx, link, session, state.clock.stopped(), now).await?,
        None => Settled::Closed,
    };
    if settled == Settled::Closed {
        payment_links::closed(&mut tx, &link.cart_id, link.version, now).await?;
    }
    // Last, because the statements above lock the cart before its links, the order used everywhere.
    if let Some(session_id) = session_id {
        let intent = session.and_then(Session::payment_intent);
        let livemode = session.and_then(|session| session.livemode);
        payment_links::attach_session(&mut tx, link, session_id, intent, livemode).await?;
    }
    tx.commit().await?;
    Ok(settled)
}

/// Closes a link whose session Stripe does not know, and reports it to the operator.
///
/// # Errors
/// If the key can't know the session, because it is of the other mode (test or live).
pub(crate) async fn store_missing(state: &State, link: &PaymentLink, session_id: &str) -> Result<(), JobError> {
    check_mode(state, link).await?;
    let mut tx = state.lookups.begin().await?;
    let why = Mismatch::SessionMissing;
    if payment_links::closed_because(&mut tx, link, why, state.clock.now()).await? {
        stripe_events::note_answer(&mut tx, link, session_id, why, state.clock.now()).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Fails if the link's session and the key are of different modes: to a key for test mode, sessions of
/// live mode do not exist (<https://docs.stripe.com/keys#test-live-modes>).
pub(crate) async fn check_mode(state: &State, link: &PaymentLink) -> Result<(), JobError> {
    let mut conn = state.lookups.acquire().await?;
    let session = payment_links::expected(&mut conn, &link.cart_id, link.version).await?.livemode;
    match (session, state.stripe.livemode()) {
        (Some(session), Some(key)) if session != key => {
            let mode = |live| if live { "live" } else { "test" };
            let why = format!(
                "the session was created in {} mode, and STRIPE_SECRET_KEY is for {} mode",
                mode(session),
                mode(key)
            );
            tracing::error!(link = link.idempotency_key(), "{why}");
            Err(JobError::Snooze { why, after: OTHER_MODE_PAUSE })
        }
        _ => Ok(()),
    }
}

/// Applies the payment of a completed session. A payment that does not match the link is recorded
/// for the operator; the session can't be paid again.
async fn completed(
    conn: &mut Connection,
    link: &PaymentLink,
    session: &Session,
    clock: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<Settled, JobError> {
    let Ok(cart) = link.cart_id.parse::<CartId>() else { return Ok(Settled::Closed) };
    carts::lock(&mut *conn, &cart).await?;
    let expected = payment_links::expected(&mut *conn, &link.cart_id, link.version).await?;
    let reported = session.reported();
    match expected.check_session(&reported).and_then(|()| expected.payment(&reported)) {
        Ok(Payment::Paid) => {
            let payment = LinkPayment {
                cart_id: &link.cart_id,
                version: link.version,
                paid_at: paid_at(link, session),
                paid_minor: reported.amount_minor(),
                session_id: None,
                payment_intent: None,
                livemode: None,
            };
            let effect = stripe_events::mark_paid(&mut *conn, &cart, payment, now).await?;
            if effect == Effect::UnknownCart {
                stripe_events::note_answer(conn, link, &session.id, Mismatch::CartDeleted, now).await?;
            }
            Ok(Settled::Paid)
        }
        Ok(Payment::Processing) if session.payment_has_failed() => {
            payment_links::payment_failed(conn, &link.cart_id, link.version, now).await?;
            Ok(Settled::Closed)
        }
        Ok(Payment::Processing) => {
            if !payment_links::processing(&mut *conn, &link.cart_id, link.version, now).await? {
                reconciliation::still_in_progress(conn, link, clock).await?;
            }
            Ok(Settled::Processing)
        }
        Err(why) => {
            tracing::error!(
                session = session.id,
                reason = why.as_str(),
                "A completed session does not match its link; its payment has no effect"
            );
            stripe_events::note_answer(&mut *conn, link, &session.id, why, now).await?;
            payment_links::closed_because(conn, link, why, now).await?;
            Ok(Settled::Closed)
        }
    }
}

/// When the shopper paid; the end of the session if Stripe does not report the time.
fn paid_at(link: &PaymentLink, session: &Session) -> DateTime<Utc> {
    session.paid_at().unwrap_or_else(|| {
        tracing::warn!(
            session = session.id,
            "Stripe returned a payment without its time; grant STRIPE_SECRET_KEY PaymentIntents: read and Charges: read"
        );
        link.session_expires_at
    })
}
