//! Applying Stripe's events for many deliveries at once; see `common::batch`.

use std::time::Duration;

use common::{
    batch::Batch,
    clock::Clock,
    db::Connection,
    stripe_events::{self, Effect, StripeEvent},
};

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
    /// Locks of carts and links are not waited for at all (`carts::lock`).
    const TRANSACTION: Option<Duration> = Some(Duration::from_millis(50));

    async fn run(&self, conn: &mut Connection, events: &[StripeEvent]) -> sqlx::Result<Vec<Effect>> {
        stripe_events::apply(conn, events, self.clock.now()).await
    }
}
