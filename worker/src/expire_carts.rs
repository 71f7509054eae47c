//! Expires carts that were left for longer than `CART_TTL`.

use apalis::prelude::Data;
use chrono::TimeDelta;
use common::{expiry, jobs::ExpireCarts};

use crate::{JobError, State};

pub(crate) async fn run(_: ExpireCarts, state: Data<State>) -> Result<(), JobError> {
    let now = state.clock.now();
    let cutoff = now - TimeDelta::from_std(state.config.cart_ttl).unwrap_or(TimeDelta::MAX);
    let expired = expiry::expire_older_than(&state.database, cutoff, now).await?;
    if expired > 0 {
        tracing::info!(carts = expired, "expired carts");
    }
    Ok(())
}
