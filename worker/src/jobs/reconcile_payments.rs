//! Requests from Stripe the outcome of sessions that no event has reported, and books refunds and
//! disputes that arrived before their payment.

use std::time::Duration;

use apalis::prelude::Data;
use common::{
    jobs::ReconcilePayments,
    payment_links::{self, PaymentLink, reconciliation},
    stripe_events,
};
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::session_outcome;
use crate::{
    JobError, State,
    stripe::{SessionState, error::StripeError},
};

/// Links in one batch.
const BATCH: i64 = 100;
/// Sessions requested at the same time: enough to use up the rate, few enough that a shopper's
/// request for a link soon has its turn.
const AT_ONCE: usize = 16;
/// Failed requests in a row after which a run ends, because Stripe is unavailable. A single session
/// that can't be retrieved does not hold up the others.
const MAX_FAILURES: usize = AT_ONCE;
/// Time after which a run takes no more batches; the next one continues.
const TIME: Duration = Duration::from_secs(50);

pub(crate) async fn run(job: ReconcilePayments, state: Data<State>) -> Result<(), JobError> {
    match job.cart_id {
        Some(cart_id) => payment_of(&state, &cart_id).await,
        None => {
            match_reversals(&state).await?;
            all_due(&state).await
        }
    }
}

/// Looks up the cart's payment in progress.
async fn payment_of(state: &State, cart_id: &str) -> Result<(), JobError> {
    let link = reconciliation::in_progress(&mut state.lookups.acquire().await?, cart_id).await?;
    let Some(link) = link else { return Ok(()) };
    let stored = look_up(state, &link).await;
    // A request for a link may wait for this, also if nothing has changed.
    let mut conn = state.lookups.acquire().await?;
    conn.notify(payment_links::CHANNEL, reconciliation::notification(&link.cart_id));
    conn.commit().await?;
    Ok(stored?)
}

/// Books refunds and disputes that waited for their payment.
async fn match_reversals(state: &State) -> Result<(), JobError> {
    loop {
        let mut tx = state.lookups.begin().await?;
        let booked = stripe_events::match_reversals(&mut tx, state.clock.now()).await?;
        tx.commit().await?;
        if booked == 0 {
            return Ok(());
        }
        tracing::info!(booked, "booked refunds and disputes that arrived before their payment");
    }
}

/// Looks up all sessions that are due, in batches.
async fn all_due(state: &State) -> Result<(), JobError> {
    let begun = Instant::now();
    let (mut stored, mut failures) = (0, 0);
    while begun.elapsed() < TIME {
        let mut conn = state.lookups.acquire().await?;
        let due = reconciliation::take_due(&mut conn, BATCH, state.clock.stopped()).await?;
        conn.commit().await?;
        if due.is_empty() {
            break;
        }
        let lookups: Vec<_> = due.iter().map(|link| look_up(state, link)).collect();
        let mut lookups = stream::iter(lookups).buffer_unordered(AT_ONCE);
        while let Some(lookup) = lookups.next().await {
            match lookup {
                Ok(()) => (stored, failures) = (stored + 1, 0),
                // The cart is locked; the next run repeats the request.
                Err(Failure::Postgres(JobError::Snooze { .. })) => {}
                Err(Failure::Postgres(error)) => return Err(error),
                // All other calls would fail, too; the job shows the reason.
                Err(Failure::Stripe(error)) if error.is_about_all_calls() => return Err(error.into()),
                Err(Failure::Stripe(error)) => {
                    failures += 1;
                    if failures == MAX_FAILURES {
                        tracing::warn!(%error, stored, "Stripe is unavailable; the next run continues");
                        return Ok(());
                    }
                    tracing::warn!(%error, "the outcome of a session could not be requested; the next run repeats it");
                }
            }
        }
    }
    if stored > 0 {
        tracing::info!(sessions = stored, "requested sessions whose outcome no event has reported");
    }
    Ok(())
}

/// Why the outcome of a session is still unknown.
enum Failure {
    Stripe(StripeError),
    Postgres(JobError),
}

/// Requests the link's session from Stripe and stores its outcome. A session that Stripe has not
/// ended yet is left for the next run.
async fn look_up(state: &State, link: &PaymentLink) -> Result<(), Failure> {
    let Some(session_id) = link.session_id.as_deref() else { return Ok(()) };
    let stored = match session_outcome::retrieve(state, link, session_id).await {
        Err(error) if error.is_missing() => session_outcome::store_missing(state, link, session_id).await,
        answer => {
            let session = answer.map_err(Failure::Stripe)?;
            match session.state().map_err(Failure::Stripe)? {
                SessionState::Open => return Ok(()),
                _ => session_outcome::store(state, link, Some(session_id), Some(&session)).await.map(drop),
            }
        }
    };
    stored.map_err(Failure::Postgres)
}

impl From<Failure> for JobError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Stripe(error) => error.into(),
            Failure::Postgres(error) => error,
        }
    }
}
