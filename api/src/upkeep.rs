//! Brings what is derived from carts up to date, when reading the rest one by one has become dear. The worker does
//! so by its schedule, at a busy shop too seldom for lists, analytics and searches to stay fast.

use std::{sync::Arc, time::Duration};

use common::{
    analytics,
    carts::{filter::Query, search},
    db::Database,
};
use tokio::sync::Mutex;

use crate::http::error::ApiError;

/// Adding up the counts is worth its cost from this number of deltas on.
const MAX_DELTAS: i64 = 1_000;
/// Indexing texts is worth its cost from this number of carts on.
const MAX_UNINDEXED: usize = 1_000;
/// While an old transaction is open, adding up changes nothing, however often it is tried.
const PAUSE: Duration = Duration::from_secs(1);

/// Does the upkeep in the background, each kind once at a time. If it fails, a later reader or the worker does it.
#[derive(Debug, Clone)]
pub(crate) struct Upkeep {
    database: Database,
    counts: InProgress,
    texts: InProgress,
}

/// Locked while an upkeep is in progress, and for a pause after it.
type InProgress = Arc<Mutex<()>>;

impl Upkeep {
    pub(crate) fn new(database: Database) -> Self {
        Self { database, counts: Arc::default(), texts: Arc::default() }
    }

    /// Adds up the counts of carts if `deltas`, the number just read, is high.
    pub(crate) fn counts_read(&self, deltas: i64) {
        if deltas > MAX_DELTAS {
            start(self.counts.clone(), self.database.clone(), Work::AddUpCounts);
        }
    }

    /// Indexes carts if many are not indexed.
    ///
    /// # Errors
    /// 503 if they are too many for the query.
    pub(crate) fn before_running(&self, query: &Query<'_>) -> Result<(), ApiError> {
        if query.unindexed() > MAX_UNINDEXED {
            start(self.texts.clone(), self.database.clone(), Work::IndexTexts);
        }
        if query.is_behind() {
            return Err(ApiError::try_again("Many carts were just stored or changed and are being indexed"));
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
enum Work {
    AddUpCounts,
    IndexTexts,
}

fn start(in_progress: InProgress, database: Database, work: Work) {
    let Ok(in_progress) = in_progress.try_lock_owned() else { return };
    tokio::spawn(async move {
        if let Err(error) = work.run(&database).await {
            tracing::debug!(%error, ?work, "the upkeep of derived tables failed");
        }
        tokio::time::sleep(PAUSE).await;
        drop(in_progress);
    });
}

impl Work {
    async fn run(self, database: &Database) -> sqlx::Result<()> {
        loop {
            let mut tx = database.begin().await?;
            let more = match self {
                Self::AddUpCounts => {
                    analytics::add_up(&mut tx).await?;
                    false
                }
                Self::IndexTexts => search::index::index_changes(&mut tx).await? > 0,
            };
            tx.commit().await?;
            if !more {
                return Ok(());
            }
        }
    }
}
