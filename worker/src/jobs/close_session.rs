//! Closes a Stripe session, so that it can't be paid, or records that it was paid.

use common::payment_links::{
    LinkStatus, PaymentLink, SessionSettings,
    checkout::{self, CheckoutCart},
};

use super::{
    find_session::{self, InFlight, is_held_by_another},
    session_outcome::{self, Settled},
};
use crate::{
    JobError, State, WorkerConfig,
    stripe::{NOT_ASKED, NewSession, Session, SessionState, error::StripeError},
};

/// Closes the session of `link` at Stripe and stores the result. Idempotent, also if two calls run
/// concurrently.
pub(crate) async fn settle(state: &State, link: &PaymentLink) -> Result<Settled, JobError> {
    if link.status == LinkStatus::Processing {
        return Ok(Settled::Processing);
    }
    let session_id = match &link.session_id {
        Some(session_id) => Some(session_id.clone()),
        None => find_out(state, link).await?.map(|session| session.id),
    };
    let session = match &session_id {
        Some(session_id) => end(state, link, session_id).await?,
        None => None,
    };
    session_outcome::store(state, link, session_id.as_deref(), session.as_ref()).await
}

/// Expires a session. Returns it expired or completed; `None` if Stripe does not know it.
async fn end(state: &State, link: &PaymentLink, session_id: &str) -> Result<Option<Session>, JobError> {
    let answer = match state.stripe.expire(session_id).await {
        // Stripe expires open sessions only, so this one is already expired or completed.
        Err(error) if error.is_invalid_request() => session_outcome::retrieve(state, link, session_id).await,
        answer => answer,
    };
    let session = match answer {
        Err(error) if error.is_missing() => {
            session_outcome::check_mode(state, link).await?;
            return Ok(None);
        }
        answer => answer?,
    };
    match session.state()? {
        SessionState::Open => Err(JobError::retry("Stripe did not close the session")),
        SessionState::Expired | SessionState::Complete => Ok(Some(session)),
    }
}

/// Finds the session of a link whose creation got no response from Stripe; `None` if there is none
/// or it has expired.
async fn find_out(state: &State, link: &PaymentLink) -> Result<Option<Session>, JobError> {
    if link.attempted_at.is_none() {
        return Ok(None);
    }
    let mut conn = state.lookups.acquire().await?;
    let checkout = checkout::read(&mut conn, &link.cart_id, link.version, &state.clock).await?;
    drop(conn);
    if checkout.as_ref().is_some_and(|checkout| link.session_expires_at <= checkout.now) {
        return Ok(None); // any session has expired by now
    }
    // If the cart was deleted, the parameters of the request are lost.
    let Some((cart, settings)) = checkout.and_then(|checkout| Some((checkout.cart?, checkout.settings))) else {
        return find_session::find(state, link, InFlight::Perhaps).await;
    };
    let settings = settings.unwrap_or_else(|| current_settings(&state.config));
    let turn = state.stripe.turn().await?;
    let in_flight = match state.stripe.create(turn, &new_session(link, &cart, &settings)).await {
        Ok(session) if !is_held_by_another(state, link, &session.id).await? => return Ok(Some(session)),
        // The first request has ended: Stripe replays its result, or rejects the new one.
        Ok(_) | Err(StripeError::KeySpent { replayed: true, .. }) => InFlight::No,
        Err(error) if error.is_invalid_request() => InFlight::No,
        // The cart was changed since the request, or Stripe's response is invalid.
        Err(StripeError::KeySpent { .. } | StripeError::Unexpected(_) | StripeError::Unreadable(_)) => {
            InFlight::Perhaps
        }
        Err(StripeError::Refused { kind, .. }) if kind == NOT_ASKED => InFlight::Perhaps,
        // Unknown for now. (If Stripe rejects the key, it may have accepted it at the time.)
        Err(error) => return Err(error.into()),
    };
    find_session::find(state, link, in_flight).await
}

/// Builds the request for a session, the same at every attempt.
pub(crate) fn new_session<'a>(
    link: &'a PaymentLink,
    cart: &'a CheckoutCart,
    settings: &'a SessionSettings,
) -> NewSession<'a> {
    NewSession {
        cart_id: &link.cart_id,
        version: link.version,
        cart,
        settings,
        expires_at: link.session_expires_at,
        idempotency_key: link.idempotency_key(),
    }
}

/// The settings of sessions that are requested now.
pub(crate) fn current_settings(config: &WorkerConfig) -> SessionSettings {
    SessionSettings {
        checkout: config.checkout.clone(),
        public_url: config.shared.public_url.clone(),
        without_email: false,
    }
}
