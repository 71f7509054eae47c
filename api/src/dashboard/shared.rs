//! State that only the dashboard needs.

use std::sync::Arc;

use common::db::Database;
use tokio_util::sync::CancellationToken;

use super::{funnels::Funnels, session::Sessions, watch::Watch};
use crate::{config::ApiConfig, routes::payment_links::wait::PgNotifications};

/// State that only the dashboard needs.
#[derive(Debug)]
pub(crate) struct Dashboard {
    pub(crate) sessions: Sessions,
    pub(crate) watch: Arc<Watch>,
    pub(crate) funnels: Funnels,
    /// Ends the event streams of open pages at shutdown, because their connections would keep the
    /// process running.
    pub(crate) stopping: CancellationToken,
}

impl Dashboard {
    pub(crate) fn new(config: &ApiConfig, database: Database, news: PgNotifications) -> Self {
        let funnels = Funnels::new(database.clone(), config.time_zone);
        let watch = Arc::new(Watch::new(database, news));
        Self { sessions: Sessions::new(&config.api_keys), watch, funnels, stopping: CancellationToken::new() }
    }

    pub(crate) fn stop(&self) {
        self.stopping.cancel();
    }
}
