//! Requests for links, and reads of the newest, that share statements; see `common::batch`.

use std::time::Duration;

use common::{
    batch::Batch,
    clock::Clock,
    db::Connection,
    payment_links::{self, Answer, LinkRequest, PaymentLink},
};

/// Maximum number of carts in a batch.
const MAX_BATCH: usize = 50;

/// Stores requests in one transaction.
#[derive(Debug)]
pub(crate) struct RequestLinks {
    pub(crate) clock: Clock,
}

impl Batch for RequestLinks {
    type Request = LinkRequest;
    type Response = Answer;
    const CONCURRENCY: usize = 1;
    const MAX_BATCH: usize = MAX_BATCH;
    /// Locks of carts are not waited for at all.
    const TRANSACTION: Option<Duration> = Some(Duration::from_millis(50));

    async fn run(&self, conn: &mut Connection, requests: &[LinkRequest]) -> sqlx::Result<Vec<Answer>> {
        payment_links::request(conn, requests, &self.clock).await
    }
}

/// Reads the newest request of each cart, by its id; `None` if there is none.
#[derive(Debug)]
pub(crate) struct FindNewest;

impl Batch for FindNewest {
    type Request = String;
    type Response = Option<PaymentLink>;
    const CONCURRENCY: usize = 1;
    const MAX_BATCH: usize = MAX_BATCH;
    const TRANSACTION: Option<Duration> = None;

    async fn run(&self, conn: &mut Connection, cart_ids: &[String]) -> sqlx::Result<Vec<Option<PaymentLink>>> {
        let cart_ids: Vec<&str> = cart_ids.iter().map(String::as_str).collect();
        let newest = payment_links::latest_of(conn, &cart_ids).await?;
        Ok(cart_ids.iter().map(|cart_id| newest.get(*cart_id).cloned()).collect())
    }
}
