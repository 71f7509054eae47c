//! Adding up the counts of carts when reading them has become dear.

use std::{sync::Arc, time::Duration};

use common::{analytics, db::Database};
use tokio::sync::Mutex;

/// Adding up the counts is worth its cost from this number of deltas on. The worker adds them up
/// by its schedule, at a busy shop too seldom for lists and analytics to stay fast.
const MAX_DELTAS: i64 = 1_000;
/// While an old transaction is open, adding up changes nothing, however often it is tried.
const PAUSE: Duration = Duration::from_secs(1);

/// Adds up the counts in the background, once at a time.
#[derive(Debug, Clone)]
pub(crate) struct CountsUpkeep {
    database: Database,
    /// Locked while the counts are being added up, and for a pause after it.
    in_progress: Arc<Mutex<()>>,
}

impl CountsUpkeep {
    pub(crate) fn new(database: Database) -> Self {
        Self { database, in_progress: Arc::default() }
    }

    /// Adds up the counts if `deltas`, the number just read, is high. If it fails, a later reader or the
    /// worker does it.
    pub(crate) fn after_reading(&self, deltas: i64) {
        if deltas <= MAX_DELTAS {
            return;
        }
        let Ok(in_progress) = self.in_progress.clone().try_lock_owned() else { return };
        let database = self.database.clone();
        tokio::spawn(async move {
            let add_up = async {
                let mut conn = database.acquire().await?;
                analytics::add_up(&mut conn).await?;
                conn.commit().await
            };
            if let Err(error) = add_up.await {
                tracing::debug!(%error, "could not add up the counts of carts");
            }
            tokio::time::sleep(PAUSE).await;
            drop(in_progress);
        });
    }
}
