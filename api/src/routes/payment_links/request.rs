//! Requests for payment links: stored for the worker, with the job that makes the session.

use chrono::{DateTime, TimeDelta, Utc};
use common::{
    audit::{self, Action, KeyName},
    carts::CartId,
    payment_links::{
        self, Answer, LinkRequest, PaymentLink, Refusal, RequestedBy, check_payable, recovery::RecoveryLink,
    },
};

use crate::{
    http::error::ApiError,
    routes::carts::lock::{self, Locked},
    state::AppState,
};

/// The party that requests a link.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Requester<'a> {
    /// The shop, with this API key. Extends the recovery link's lifetime.
    Key(&'a KeyName),
    /// A shopper who opened the link.
    Shopper,
}

/// The live link that was found, or the new request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) link: PaymentLink,
    pub(crate) recovery: Option<RecoveryLink>,
}

/// Returns the cart's live link, or requests one. Nothing has to be undone if the caller is
/// cancelled.
pub(crate) async fn request(state: &AppState, id: &CartId, by: Requester<'_>) -> Result<Asked, ApiError> {
    let request = match by {
        Requester::Key(key) => {
            let end = recovery_end(state, state.clock.now());
            LinkRequest::new(id.clone(), RequestedBy::Api, Some(end)).with_key(key.clone())
        }
        Requester::Shopper => LinkRequest::new(id.clone(), RequestedBy::Shopper, None),
    };
    lock::in_turn(&state.cart_locks, Some(id.as_str()), || async {
        match state.link_requests.run(request.clone()).await? {
            Answer::Link(link, recovery) => Ok(Asked { link, recovery }),
            Answer::Refused(why) => Err(why.into()),
            Answer::Missing => Err(ApiError::cart_not_found()),
            Answer::Held => Err(ApiError::locked()),
        }
    })
    .await
}

/// Makes or extends the cart's recovery link, without a request for a checkout.
pub(crate) async fn extend_recovery_link(
    state: &AppState,
    id: &CartId,
    key: &KeyName,
) -> Result<RecoveryLink, ApiError> {
    let now = state.clock.now();
    let Locked { permit: _permit, mut tx, cart } = lock::lock(&state.cart_locks, &state.lookups, id).await?;
    if payment_links::is_processing(&mut tx, id.as_str()).await? {
        return Err(Refusal::PaymentInProgress.into());
    }
    check_payable(&cart)?;
    let link = payment_links::recovery::extend(&mut tx, id, recovery_end(state, now)).await?;
    audit::note(&mut tx, key, Action::RecoveryLinkExtended, id.as_str(), now).await?;
    tx.commit().await?;
    Ok(link)
}

/// When a recovery link that is extended now stops working.
fn recovery_end(state: &AppState, now: DateTime<Utc>) -> DateTime<Utc> {
    now + TimeDelta::from_std(state.config.payment_link_ttl).unwrap_or(TimeDelta::MAX)
}

impl From<Refusal> for ApiError {
    fn from(why: Refusal) -> Self {
        match why {
            Refusal::Unchargeable(why) => Self::invalid("totalValue", why.to_string()),
            why => Self::conflict(why.to_string()),
        }
    }
}
