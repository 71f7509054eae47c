//! Counts the webhooks that failed verification, for the dashboard of any process.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use chrono::{DateTime, Utc};
use common::{
    db::Database,
    refused_webhooks::{self, Refused},
};

use crate::http::mutex::lock;

/// A process writes no more often than this, however many come: anybody may send them.
const WRITE_EVERY: Duration = Duration::from_secs(5);

/// What is not written yet, and whether somebody is about to.
#[derive(Debug, Default)]
struct Unwritten {
    refused: Option<Refused>,
    writing: bool,
}

/// Counts, and writes now and then. What a process counted in its last seconds may get lost with it.
#[derive(Debug, Clone)]
pub(crate) struct RefusedWebhooks {
    database: Database,
    unwritten: Arc<Mutex<Unwritten>>,
}

impl RefusedWebhooks {
    pub(crate) fn new(database: Database) -> Self {
        Self { database, unwritten: Arc::default() }
    }

    /// One more.
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

    /// The first at once, those that come meanwhile a little later, together.
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
