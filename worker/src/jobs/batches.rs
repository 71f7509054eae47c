//! Statements that jobs share when they run at the same time; see `common::batch`.

use std::{sync::Arc, time::Duration};

use common::{
    batch::{Batch, Batcher},
    clock::Clock,
    db::{Connection, Database},
    payment_links::{
        self, Opening, SessionSettings,
        checkout::{self, Checkout, NewAttempt},
    },
};

/// Maximum number of links in a statement.
const MAX_BATCH: usize = 50;

/// The batches of a process.
#[derive(Debug, Clone)]
pub(crate) struct Batches {
    pub(crate) begin: Arc<Batcher<BeginAttempts>>,
    pub(crate) open: Arc<Batcher<OpenLinks>>,
}

impl Batches {
    /// Starts the tasks that serve them. `settings` are those of new sessions, `livemode` is the mode of
    /// the key, if known.
    pub(crate) fn start(lookups: &Database, settings: SessionSettings, livemode: Option<bool>, clock: &Clock) -> Self {
        let begin = BeginAttempts { settings, livemode, clock: clock.clone() };
        let open = OpenLinks { clock: clock.clone() };
        Self {
            begin: Arc::new(Batcher::start(begin, lookups.clone())),
            open: Arc::new(Batcher::start(open, lookups.clone())),
        }
    }
}

/// Stores that requests are about to be sent to Stripe.
#[derive(Debug)]
pub(crate) struct BeginAttempts {
    settings: SessionSettings,
    livemode: Option<bool>,
    clock: Clock,
}

impl Batch for BeginAttempts {
    type Request = NewAttempt;
    type Response = Option<Checkout>;
    const CONCURRENCY: usize = 1;
    const MAX_BATCH: usize = MAX_BATCH;
    const TRANSACTION: Option<Duration> = None;

    async fn run(&self, conn: &mut Connection, attempts: &[NewAttempt]) -> sqlx::Result<Vec<Option<Checkout>>> {
        checkout::begin(conn, attempts, &self.settings, self.livemode, &self.clock).await
    }
}

/// Stores sessions that Stripe created.
#[derive(Debug)]
pub(crate) struct OpenLinks {
    clock: Clock,
}

impl Batch for OpenLinks {
    type Request = Opening;
    type Response = bool;
    const CONCURRENCY: usize = 1;
    const MAX_BATCH: usize = MAX_BATCH;
    const TRANSACTION: Option<Duration> = None;

    async fn run(&self, conn: &mut Connection, openings: &[Opening]) -> sqlx::Result<Vec<bool>> {
        payment_links::open(conn, openings, self.clock.now()).await
    }
}
