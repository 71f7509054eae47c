//! Adds up the stored counts of carts, after booking refunds and disputes that waited for their
//! payment.

use apalis::prelude::Data;
use common::{analytics, jobs::RollUpDays, stripe_events};

use crate::{JobError, State};

pub(crate) async fn run(_: RollUpDays, state: Data<State>) -> Result<(), JobError> {
    loop {
        let mut tx = state.lookups.begin().await?;
        let booked = stripe_events::match_reversals(&mut tx, state.clock.now()).await?;
        tx.commit().await?;
        if booked == 0 {
            break;
        }
        tracing::info!(booked, "booked refunds and disputes that arrived before their payment");
    }
    let mut conn = state.database.acquire().await?;
    let deltas = analytics::add_up(&mut conn).await?;
    conn.commit().await?;
    if deltas > 0 {
        tracing::info!(deltas, "added up the counts of carts");
    }
    Ok(())
}
