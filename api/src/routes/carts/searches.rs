//! Limits searches. Some read every cart, so only a few run at a time, and Postgres stays free for
//! other requests.

use std::{sync::Arc, time::Duration};

use common::db::Database;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::error::ApiError;

/// The longest wait for a permit, after which the request gets 503.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(15);
/// Timeout of a statement that reads every cart, which takes seconds for millions of carts
/// (`docs/scaling.md`).
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Limits the searches in progress.
#[derive(Debug, Clone)]
pub(crate) struct Searches(Arc<Semaphore>);

impl Searches {
    /// At most `concurrency` in this process.
    pub(crate) fn new(concurrency: usize) -> Self {
        Self(Arc::new(Semaphore::new(concurrency)))
    }

    /// Waits for a permit; returns it with the database to search.
    ///
    /// # Errors
    /// 503 if no permit is free in time.
    pub(crate) async fn begin(&self, database: &Database) -> Result<(OwnedSemaphorePermit, Database), ApiError> {
        let permit = tokio::time::timeout(PERMIT_TIMEOUT, self.0.clone().acquire_owned()).await;
        let permit = permit.ok().and_then(Result::ok);
        let permit = permit.ok_or_else(|| ApiError::try_again("Other searches are in progress"))?;
        Ok((permit, database.clone().with_statement_timeout(STATEMENT_TIMEOUT)))
    }
}
