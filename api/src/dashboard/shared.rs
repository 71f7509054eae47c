//! What the pages need besides what every handler can reach.

use std::sync::Arc;

use common::db::Database;
use tokio_util::sync::CancellationToken;

use super::{session::Sessions, watch::Watch};
use crate::{config::ApiConfig, routes::payment_links::wait::LinkNews};

/// What the pages need besides what every handler can reach.
#[derive(Debug)]
pub(crate) struct Dashboard {
    pub(crate) sessions: Sessions,
    pub(crate) watch: Arc<Watch>,
    /// Open pages are told nothing more: their connections would keep the process.
    pub(crate) stopping: CancellationToken,
}

impl Dashboard {
    pub(crate) fn new(config: &ApiConfig, database: Database, news: LinkNews) -> Self {
        let watch = Arc::new(Watch::new(database, news));
        Self { sessions: Sessions::new(&config.api_keys), watch, stopping: CancellationToken::new() }
    }

    pub(crate) fn stop(&self) {
        self.stopping.cancel();
    }
}
