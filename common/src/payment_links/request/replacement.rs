//! Replaces requests that Stripe refused for good by others that it may accept.

use std::time::Duration;

use super::{
    Failure, PaymentLink, RequestedBy, give_up,
    insert::{NewRequest, insert},
    settle_later,
};
use crate::{
    carts::{self, CartId, CartStatus},
    clock::Clock,
    db::Connection,
};

/// Maximum number of consecutive replacements of requests that failed permanently.
const MOST_REPLACEMENTS: i16 = 5;

/// The difference of a request from the one that it replaces, which Stripe refused for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// It has another idempotency key, because the last one is unusable.
    NewKey,
    /// Its session expires later.
    NewExpiry,
    /// It leaves out the shopper's address, which the shopper then enters on Stripe's page.
    WithoutEmail,
}

impl Remedy {
    /// The pause before the replacement, after `replacements` others: Stripe may need time to recover
    /// from an error that spent a key, while a refused parameter can be sent differently at once.
    fn pause(self, replacements: i16) -> Duration {
        if self != Self::NewKey && replacements == 0 {
            return Duration::ZERO;
        }
        Duration::from_secs(1 << replacements.clamp(0, MOST_REPLACEMENTS))
    }
}

/// Replaces a request that can't succeed by one with the next version, which `remedy` makes
/// different. `None` if five were replaced in a row, or the link is not wanted any more.
pub async fn replace(
    conn: &mut Connection,
    link: &PaymentLink,
    why: Failure<'_>,
    remedy: Remedy,
    clock: &Clock,
) -> sqlx::Result<Option<PaymentLink>> {
    let now = clock.now();
    // Lock the cart first, like all other code: whoever ends it then finds this request or the
    // next.
    let cart = match link.cart_id.parse::<CartId>() {
        Ok(id) => carts::lock(&mut *conn, &id).await?,
        Err(_) => None,
    };
    let wanted = cart.is_some_and(|cart| cart.status == CartStatus::Abandoned);
    let ended = match remedy {
        Remedy::NewKey => settle_later(&mut *conn, link, why, now).await?,
        Remedy::NewExpiry | Remedy::WithoutEmail => give_up(&mut *conn, link, why, now).await?,
    };
    if !ended || !wanted || link.replacements >= MOST_REPLACEMENTS {
        return Ok(None);
    }
    let next = NewRequest {
        cart_id: link.cart_id.clone(),
        version: link.version + 1,
        replacements: link.replacements + 1,
        requested_by: RequestedBy::Replacement,
        key: None,
        recovery_end: None,
        without_email: remedy == Remedy::WithoutEmail,
        trace: queue::telemetry::current_context(),
    };
    let stored = insert(conn, &[next], remedy.pause(link.replacements), clock).await?;
    Ok(stored.into_iter().next().map(|(next, _)| next))
}
