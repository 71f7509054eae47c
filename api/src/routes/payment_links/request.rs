//! Requests for payment links: stored for the worker, with the job that makes the session.

use chrono::{DateTime, TimeDelta, Utc};
use common::{
    carts::{CartId, CartStatus, LockedCart},
    payment_links::{self, PaymentLink, RequestedBy, recovery::RecoveryLink},
};

use crate::{
    http::error::ApiError,
    routes::carts::lock::{self, Locked},
    state::AppState,
};

/// Whether the request extends the recovery link's lifetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecoveryTime {
    /// The shop requested the link.
    Extend,
    /// A shopper opened the link.
    Keep,
}

/// The live link that was found, or the new request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) link: PaymentLink,
    pub(crate) recovery: Option<RecoveryLink>,
}

/// Returns the cart's live link, or requests one. Nothing has to be undone if the caller is
/// cancelled.
pub(crate) async fn request(state: &AppState, id: &CartId, recovery: RecoveryTime) -> Result<Asked, ApiError> {
    let Locked { permit: _permit, mut tx, cart } = lock::lock(&state.cart_locks, &state.lookups, id).await?;
    let now = state.clock.now();
    let newest = payment_links::latest(&mut tx, id.as_str()).await?;
    if newest.is_some() && payment_links::is_processing(&mut tx, id.as_str()).await? {
        return Err(payment_in_progress());
    }
    check_payable(&cart)?;
    if let Some(link) = newest.clone().filter(|link| link.is_live(now)) {
        let recovery = payment_links::recovery::find(&mut tx, id).await?;
        return Ok(Asked { link, recovery });
    }
    let (known, requested_by, recovery_end) = match recovery {
        RecoveryTime::Extend => (None, RequestedBy::Api, Some(recovery_end(state, now))),
        RecoveryTime::Keep => {
            let known = payment_links::recovery::find(&mut tx, id).await?;
            let known = known.filter(|recovery| recovery.expires_at > now);
            let known = known.ok_or_else(|| ApiError::conflict("The cart's recovery link has expired"))?;
            (Some(known), RequestedBy::Shopper, None)
        }
    };
    let (link, extended) =
        payment_links::request(&mut tx, id, newest, requested_by, recovery_end, &state.clock).await?;
    tx.commit().await?;
    Ok(Asked { link, recovery: known.or(extended) })
}

/// Makes or extends the cart's recovery link, without a request for a checkout.
pub(crate) async fn extend_recovery_link(state: &AppState, id: &CartId) -> Result<RecoveryLink, ApiError> {
    let Locked { permit: _permit, mut tx, cart } = lock::lock(&state.cart_locks, &state.lookups, id).await?;
    if payment_links::is_processing(&mut tx, id.as_str()).await? {
        return Err(payment_in_progress());
    }
    check_payable(&cart)?;
    let link = payment_links::recovery::extend(&mut tx, id, recovery_end(state, state.clock.now())).await?;
    tx.commit().await?;
    Ok(link)
}

/// When a recovery link that is extended now stops working.
fn recovery_end(state: &AppState, now: DateTime<Utc>) -> DateTime<Utc> {
    now + TimeDelta::from_std(state.config.payment_link_ttl).unwrap_or(TimeDelta::MAX)
}

pub(crate) fn payment_in_progress() -> ApiError {
    ApiError::conflict("A payment for this cart is in progress")
}

fn check_payable(cart: &LockedCart) -> Result<(), ApiError> {
    if cart.status != CartStatus::Abandoned {
        return Err(ApiError::conflict(format!("The cart is {}, not abandoned", cart.status.as_str())));
    }
    cart.currency.check_chargeable(cart.total_minor).map_err(|why| ApiError::invalid("totalValue", why.to_string()))
}
