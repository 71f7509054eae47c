//! Counts the webhooks that failed verification, for the dashboard of any process.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use chrono::{DateTime, Utc};
use common::{
    db::Database,
    mutex::lock,
    refused_webhooks::{self, Refused},
};

/// Minimum interval between the writes of a process: anybody may send invalid webhooks.
const WRITE_EVERY: Duration = Duration::from_secs(5);

/// The count that is not written yet, and whether a task is about to write it.
#[derive(Debug, Default)]
struct Unwritten {
    refused: Option<Refused>,
    writing: bool,
}

/// Counts in memory and writes from time to time. The counts of the last seconds may be lost if the
/// process ends.
#[derive(Debug, Clone)]
pub(crate) struct RefusedWebhooks {
    database: Database,
    unwritten: Arc<Mutex<Unwritten>>,
}

impl RefusedWebhooks {
    pub(crate) fn new(database: Database) -> Self {
        Self { database, unwritten: Arc::default() }
    }

    /// Counts one webhook.
    pub(crate) fn note(&self, now: DateTime<Utc>) {
        let mut unwritten = lock(&self.unwritten);
        let count = unwritten.refused.map_or(1, |refused| refused.count + 1);
        unwritten.refused = Some(Refused { count, last_at: now });
        if !std::mem::replace(&mut unwritten.writing, true) {
            tokio::spawn(self.clone().write());
        }
    }

    fn take(&self) -> Option<Refused> {
        let mut unwritten = lock(&self.unwritten);
        unwritten.writing = unwritten.refused.is_some();
        unwritten.refused.take()
    }

    /// Writes the first count at once, and those that arrive meanwhile a little later, together.
    async fn write(self) {
        while let Some(refused) = self.take() {
            let written = async {
                let mut conn = self.database.acquire().await?;
                refused_webhooks::add(&mut conn, refused).await?;
                conn.commit().await
            };
            if let Err(error) = written.await {
                tracing::warn!(%error, count = refused.count, "refused webhooks could not be counted");
            }
            tokio::time::sleep(WRITE_EVERY).await;
        }
    }
}
