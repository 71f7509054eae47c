//! Creates the Stripe session that a row of `payment_links` requests.

use std::time::Duration;

use apalis::prelude::Data;
use common::{
    carts::CartStatus,
    jobs::CreatePaymentLink,
    payment_links::{
        self, Expected, Failure, LinkStatus, Mismatch, Opening, PaymentLink, SessionSettings,
        checkout::{Attempt, Checkout, CheckoutCart, NewAttempt},
    },
};

use super::{
    close_session::{self, new_session},
    find_session,
    session_outcome::Settled,
};
use crate::{
    JobError, State,
    stripe::{
        Session, SessionState, Turn,
        error::{KEY_REFUSED_PAUSE, StripeError},
    },
};

/// Maximum bytes of a checkout URL, several times the length of Stripe's.
const LONGEST_ADDRESS: usize = 8 * 1024;
/// Maximum characters of a host in an error message.
const LONGEST_HOST: usize = 253;
/// The shortest pause before a request is sent again for which Stripe did not accept the key; the
/// longest is [`KEY_REFUSED_PAUSE`]. In between, a request waits as long as it has waited so far.
const SHORTEST_KEY_PAUSE: Duration = Duration::from_secs(1);

pub(crate) async fn run(job: CreatePaymentLink, state: Data<State>) -> Result<(), JobError> {
    let state = &*state;
    let turn = state.stripe.turn().await?;
    let Some(mut begun) = begin(state, &job, false).await? else { return Ok(()) };
    if begun.has_unsettled {
        if !close_older(state, &begun.link).await? {
            return Ok(());
        }
        let Some(again) = begin(state, &job, true).await? else { return Ok(()) };
        begun = again;
    }
    match (begun.cart, begun.attempt) {
        (Some(cart), Some(attempt)) => create(state, turn, begun.link, &cart, attempt).await,
        _ => Ok(()), // withdrawn at the same moment
    }
}

/// Reads the request and its cart, and begins an attempt unless an older request is unsettled. Stored
/// before Stripe is called, because a session may exist from the call on. `None` if there is nothing to
/// do any more.
async fn begin(state: &State, job: &CreatePaymentLink, older_are_closed: bool) -> Result<Option<Checkout>, JobError> {
    let attempt = NewAttempt { cart_id: job.cart_id.clone(), version: job.version, older_are_closed };
    let checkout = state.batches.begin.run(attempt).await?;
    let pending = checkout.filter(|checkout| checkout.link.status == LinkStatus::Pending);
    let is_payable = |cart: &CheckoutCart| cart.status == CartStatus::Abandoned;
    if let Some(Checkout { link, cart, .. }) = &pending
        && !cart.as_ref().is_some_and(is_payable)
    {
        // Ending a cart withdraws its requests, so this occurs only after manual SQL.
        let why = Failure::new("cart_not_payable", "the cart can't be paid any more");
        let mut conn = state.lookups.acquire().await?;
        payment_links::fail(&mut conn, link, why, state.clock.now()).await?;
        conn.commit().await?;
        return Ok(None);
    }
    Ok(pending)
}

/// Closes the sessions of older requests, because a cart has at most one open session. `false` if the
/// cart is being paid with one, or was: then there is no link.
async fn close_older(state: &State, link: &PaymentLink) -> Result<bool, JobError> {
    let older = {
        let mut conn = state.lookups.acquire().await?;
        payment_links::unsettled_before(&mut conn, &link.cart_id, link.version).await?
    };
    for older in older {
        match close_session::settle(state, &older).await? {
            Settled::Closed => {}
            Settled::Paid => return Ok(false), // the cart is recovered and this request withdrawn
            Settled::Processing => {
                let mut conn = state.lookups.acquire().await?;
                let why = Failure::new("payment_under_way", "a payment is in progress");
                payment_links::fail(&mut conn, link, why, state.clock.now()).await?;
                conn.commit().await?;
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Requests the session from Stripe. `link` was read before this attempt, so it shows earlier
/// attempts only.
async fn create(
    state: &State,
    turn: Turn,
    link: PaymentLink,
    cart: &CheckoutCart,
    attempt: Attempt,
) -> Result<(), JobError> {
    let Attempt { settings, session_expires_at } = &attempt;
    let link = &PaymentLink { session_expires_at: *session_expires_at, ..link };
    if !cart.is_as_requested() {
        // Only manual SQL causes this. Payments would not match the stored amount.
        let why = "the cart's total or currency changed since the link was requested";
        let mut tx = state.lookups.begin().await?;
        payment_links::give_up(&mut tx, link, Failure::new("cart_changed", why), state.clock.now()).await?;
        tx.commit().await?;
        return Err(JobError::GiveUp { why: why.to_owned() });
    }
    match state.stripe.create(turn, &new_session(link, cart, settings)).await {
        Ok(session) => {
            let is_open = session.state()? == SessionState::Open;
            // The current key determines the mode, even if an earlier attempt used another key.
            let livemode = state.stripe.livemode().or(cart.expected.livemode);
            let total_may_differ = settings.total_may_differ();
            let expected = Expected { livemode, total_may_differ, ..cart.expected.clone() };
            let fits = expected.check_session(&session.reported());
            match fits.and_then(|()| is_open.then_some(()).ok_or(Mismatch::Status)) {
                Ok(()) => keep(state, link, session).await,
                Err(mismatch) => {
                    let why = format!("Stripe's session does not match the request: {mismatch}");
                    refuse_session(state, link, &session, mismatch.as_str(), why).await
                }
            }
        }
        Err(error) => not_made(state, link, settings, error).await,
    }
}

/// Replaces a request that another one can heal, ends one that Stripe refuses for good, and retries
/// all others.
async fn not_made(
    state: &State,
    link: &PaymentLink,
    settings: &SessionSettings,
    error: StripeError,
) -> Result<(), JobError> {
    if error.is_key_refused() {
        // As in an outage, the request stays pending; no attempt counts.
        let waited = link.attempted_at.and_then(|first| (state.clock.now() - first).to_std().ok());
        let after = waited.unwrap_or_default().clamp(SHORTEST_KEY_PAUSE, KEY_REFUSED_PAUSE);
        return Err(JobError::Snooze { why: error.to_string(), after });
    }
    let (code, message) = match &error {
        StripeError::Refused { code, message, .. } => (code.as_str(), message),
        StripeError::KeySpent { message, .. } => ("idempotency_key_spent", message),
        _ => return Err(error.into()),
    };
    let why = Failure::new(code, message);
    let mut tx = state.lookups.begin().await?;
    let next = match error.remedy(!settings.without_email) {
        Some(remedy) => payment_links::replace(&mut tx, link, why, remedy, &state.clock).await?,
        None => {
            payment_links::give_up(&mut tx, link, why, state.clock.now()).await?;
            None
        }
    };
    tx.commit().await?;
    match next {
        Some(next) => {
            tracing::warn!(message, version = next.version, "Stripe refused a payment link; requesting it differently");
            Ok(())
        }
        None => Err(JobError::GiveUp { why: error.to_string() }),
    }
}

async fn keep(state: &State, link: &PaymentLink, session: Session) -> Result<(), JobError> {
    let Some(url) = session.url.clone() else {
        return Err(JobError::retry("Stripe's session has no address"));
    };
    let can_be_stored = url.len() <= LONGEST_ADDRESS && !url.contains('\0');
    if !can_be_stored || state.config.checkout_hosts.check(&url).is_none() {
        return refuse_address(state, link, &session, &url).await;
    }
    let opening = Opening {
        cart_id: link.cart_id.clone(),
        version: link.version,
        session_id: session.id.clone(),
        url,
        session_expires_at: session.expires_at(link.session_expires_at),
        livemode: session.livemode,
    };
    let kept = state.batches.open.run(opening).await?;
    if !kept && find_session::is_held_by_another(state, link, &session.id).await? {
        let why = "Stripe's answer does not fit the request: another payment link has the session".to_owned();
        return refuse_session(state, link, &session, "other_session", why).await;
    }
    if !kept {
        // The request was withdrawn or paid during the call (or another run of this job stored the
        // same session). Close the session unless the link is open.
        let mut conn = state.lookups.acquire().await?;
        // Attached even if Stripe's events arrived first, so that a payment in progress has its
        // session's id.
        let intent = session.payment_intent();
        payment_links::attach_session(&mut conn, link, &session.id, intent, session.livemode).await?;
        let now_known = payment_links::find(&mut conn, &link.cart_id, link.version).await?;
        conn.commit().await?;
        if let Some(withdrawn) = now_known.filter(|known| known.status != LinkStatus::Open) {
            let withdrawn = PaymentLink { session_id: Some(session.id), ..withdrawn };
            close_session::settle(state, &withdrawn).await?;
        }
    }
    Ok(())
}

/// Rejects a session that does not match its request; shoppers never get its URL.
///
/// One transaction stores the reason, the session's id and the job that closes the session.
/// Stripe's `checkout.session.expired` event can arrive before Stripe's response to that job, and
/// needs the stored reason.
async fn refuse_session(
    state: &State,
    link: &PaymentLink,
    session: &Session,
    code: &str,
    why: String,
) -> Result<(), JobError> {
    let mut tx = state.lookups.begin().await?;
    payment_links::refuse_session(&mut tx, link, &session.id, Failure::new(code, &why), state.clock.now()).await?;
    tx.commit().await?;
    Err(JobError::GiveUp { why })
}

/// Rejects a session whose URL can't be stored, or is neither Stripe's nor at one of
/// `CHECKOUT_HOSTS`.
async fn refuse_address(state: &State, link: &PaymentLink, session: &Session, url: &str) -> Result<(), JobError> {
    let host = url.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
    let host: String = host.chars().take(LONGEST_HOST).collect();
    let why = format!("the session's page is at {host:?}, which is not Stripe's; is it to be in CHECKOUT_HOSTS?");
    refuse_session(state, link, session, "foreign_checkout", why).await
}
