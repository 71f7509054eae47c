//! Applying Stripe's events for many deliveries at once; see `common::batch`.

use std::time::Duration;

use common::{
    batch::Batch,
    clock::Clock,
    db::{self, Connection},
    stripe_events::{self, Effect, StripeEvent},
};

/// How long a batch waits for locks, except those of carts and links, which it skips.
const LOCK_WAIT: Duration = Duration::from_millis(50);

/// Stores and applies events that arrive together in one transaction.
#[derive(Debug)]
pub(crate) struct ApplyEvents {
    pub(crate) clock: Clock,
}

impl Batch for ApplyEvents {
    type Request = StripeEvent;
    type Response = Effect;
    const CONCURRENCY: usize = 2;
    const MAX_BATCH: usize = 100;
    const TRANSACTION: bool = true;

    async fn run(&self, conn: &mut Connection, events: &[StripeEvent]) -> sqlx::Result<Vec<Effect>> {
        // An event whose cart is locked waits outside of the batch (`carts::lock`).
        db::limit_lock_waits(conn, LOCK_WAIT).await?;
        stripe_events::apply(conn, events, self.clock.now()).await
    }
}
