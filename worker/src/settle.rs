//! Making sure that nobody can pay with a session any more, or learning that
//! somebody has.

use chrono::TimeDelta;
use common::{
    carts::CartId,
    checkout::{self, CheckoutCart},
    payment_links::{self, LinkStatus, PaymentLink},
    stripe_events,
};
use http::StatusCode;

use crate::{
    JobError, State,
    stripe::{NewSession, Session, SessionState},
    stripe_error::StripeError,
};

/// Clocks of ours and Stripe's may differ by this much, and a request may have been on its way.
const SLACK: TimeDelta = TimeDelta::minutes(5);

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Nobody can pay with it.
    Closed,
    /// Somebody did.
    Paid,
    /// Somebody did, and the money is under way.
    Processing,
}

/// Closes the session of `link` at Stripe, and writes down what Stripe said.
/// May run twice, and beside itself.
pub(crate) async fn settle(state: &State, link: &PaymentLink) -> Result<Settled, JobError> {
    if link.status == LinkStatus::Processing {
        return Ok(Settled::Processing);
    }
    let session_id = match &link.session_id {
        Some(session_id) => Some(session_id.clone()),
        None => find_out(state, link).await?.map(|session| session.id),
    };
    let settled = match &session_id {
        Some(session_id) => close(state, session_id).await?,
        None => Settled::Closed,
    };
    write_down(state, link, session_id.as_deref(), settled).await?;
    Ok(settled)
}

/// Closes a session; one that can't be closed tells why.
pub(crate) async fn close(state: &State, session_id: &str) -> Result<Settled, JobError> {
    let session = match state.stripe.expire(session_id).await {
        Ok(session) => session,
        // Stripe expires open sessions only: it is expired already, or completed.
        Err(StripeError::Refused { status, .. }) if status == StatusCode::BAD_REQUEST => {
            state.stripe.retrieve(session_id).await?
        }
        Err(StripeError::Refused { status, .. }) if status == StatusCode::NOT_FOUND => return Ok(Settled::Closed),
        Err(error) => return Err(error.into()),
    };
    match session.state() {
        SessionState::Expired => Ok(Settled::Closed),
        SessionState::Paid => Ok(Settled::Paid),
        SessionState::Processing => Ok(Settled::Processing),
        SessionState::Open => Err(JobError::retry("Stripe did not close the session")),
    }
}

async fn write_down(
    state: &State,
    link: &PaymentLink,
    session_id: Option<&str>,
    settled: Settled,
) -> Result<(), JobError> {
    let now = state.clock.now();
    let mut tx = state.by_key.begin().await?;
    match (settled, link.cart_id.parse::<CartId>()) {
        (Settled::Paid, Ok(cart)) => {
            stripe_events::money_came(&mut tx, &cart, link.version, now, now).await?;
        }
        (Settled::Processing, _) => {
            payment_links::processing(&mut tx, &link.cart_id, link.version, now).await?;
        }
        _ => {
            payment_links::closed(&mut tx, &link.cart_id, link.version, now).await?;
        }
    }
    // After the above, which locks the cart before its links, as everybody does.
    if let Some(session_id) = session_id {
        payment_links::learn_session(&mut tx, link, session_id).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Stripe was asked for this session and the answer never came: did it make one?
async fn find_out(state: &State, link: &PaymentLink) -> Result<Option<Session>, JobError> {
    let Some(attempted_at) = link.attempted_at else { return Ok(None) };
    if link.session_expires_at <= state.clock.now() {
        return Ok(None); // whatever was made has ended by itself
    }
    let cart = checkout::for_checkout(&mut state.by_key.acquire().await?, &link.cart_id).await?;
    if let Some(cart) = cart {
        let turn = state.stripe.turn().await?;
        match state.stripe.create(turn, &new_session(state, link, &cart)).await {
            Ok(session) => return Ok(Some(session)),
            // What it refuses now it refused then. (Not so where the key is to blame.)
            Err(StripeError::Refused { status, .. }) if status == StatusCode::BAD_REQUEST => return Ok(None),
            Err(StripeError::KeySpent { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // The cart is gone, and with it what Stripe was asked; or the key is spent: look for it.
    let to = link.updated_at.max(attempted_at) + SLACK;
    Ok(state.stripe.search(&link.cart_id, link.version, attempted_at - SLACK, to).await?)
}

/// What Stripe is asked for, each time the same.
pub(crate) fn new_session<'a>(state: &State, link: &'a PaymentLink, cart: &'a CheckoutCart) -> NewSession<'a> {
    NewSession {
        cart_id: &link.cart_id,
        version: link.version,
        cart,
        expires_at: link.session_expires_at,
        success_url: format!("{}/pay/{}/thanks", state.config.public_url, cart.recovery_token),
        idempotency_key: link.idempotency_key(),
    }
}
