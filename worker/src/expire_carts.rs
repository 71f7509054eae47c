//! Expires carts that were left for longer than `CART_TTL`.

use apalis::prelude::Data;
use chrono::TimeDelta;
use common::{expiry, jobs::ExpireCarts};

use crate::{JobError, State};

/// Carts a transaction: long enough to be fast, short enough to keep nobody waiting.
const BATCH: i64 = 1_000;

pub(crate) async fn run(_: ExpireCarts, state: Data<State>) -> Result<(), JobError> {
    let now = state.clock.now();
    let cutoff = now - TimeDelta::from_std(state.config.cart_ttl).unwrap_or(TimeDelta::MAX);
    let mut expired = 0;
    loop {
        let mut tx = state.database.begin().await?;
        let batch = expiry::expire_older_than(&mut tx, cutoff, BATCH, now).await?;
        tx.commit().await?;
        expired += batch.expired;
        // A batch of which nothing was due is tried again by the next slot.
        if batch.expired == 0 {
            break;
        }
    }
    if expired > 0 {
        tracing::info!(carts = expired, "expired carts");
    }
    Ok(())
}
