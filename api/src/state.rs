//! State shared by all handlers.

use std::{ops::Deref, sync::Arc};

use common::{
    batch::{self, Batcher},
    clock::Clock,
    db::{Database, Pools},
};

use crate::{
    auth::keys::ApiKeys,
    config::ApiConfig,
    dashboard::shared::Dashboard,
    http::{client::UnnamedProxy, rate_limit::TokenLimiter, unverified_bodies::UnverifiedBodies},
    routes::{
        carts::{batches::CartBatches, lock::CartLocks, searches::Searches},
        payment_links::{
            batches::{FindNewest, RequestLinks},
            wait::PgNotifications,
        },
        webhooks::{batch::ApplyEvents, refused::RefusedWebhooks},
    },
    upkeep::Upkeep,
};

/// State shared by all handlers. A clone is one reference, because axum clones the state for each
/// layer of each request.
#[derive(Debug, Clone)]
pub struct AppState(Arc<Fields>);

/// The fields of [`AppState`].
#[derive(Debug)]
pub struct Fields {
    pub(crate) database: Database,
    /// The same database, for short queries by key.
    pub(crate) lookups: Database,
    pub(crate) clock: Clock,
    pub(crate) config: ApiConfig,
    pub(crate) keys: ApiKeys,
    pub(crate) news: PgNotifications,
    pub(crate) upkeep: Upkeep,
    pub(crate) carts: CartBatches,
    pub(crate) cart_locks: CartLocks,
    pub(crate) events: Batcher<ApplyEvents>,
    pub(crate) link_requests: Batcher<RequestLinks>,
    pub(crate) newest_links: Batcher<FindNewest>,
    pub(crate) refused_webhooks: RefusedWebhooks,
    pub(crate) unverified_bodies: UnverifiedBodies,
    pub(crate) token_limiter: TokenLimiter,
    pub(crate) unnamed_proxy: UnnamedProxy,
    pub(crate) searches: Searches,
    /// Those of the dashboard, whose open pages repeat them.
    pub(crate) dashboard_searches: Searches,
    /// Erasures and exports of a person, which search as well and may take minutes.
    pub(crate) erasures: Searches,
    pub(crate) dashboard: Dashboard,
}

impl Deref for AppState {
    type Target = Fields;

    fn deref(&self) -> &Fields {
        &self.0
    }
}

impl AppState {
    /// Must be called within a tokio runtime. `news` wakes requests that wait for payment links;
    /// see [`PgNotifications::start`].
    pub fn new(pools: Pools, clock: Clock, config: ApiConfig, news: PgNotifications) -> Self {
        let Pools { database, lookups } = pools;
        let database = database.with_statement_timeout(batch::TIMEOUT);
        let lookups = lookups.with_statement_timeout(batch::TIMEOUT);
        let keys = ApiKeys::start(&config.api_keys, lookups.clone(), clock.clone());
        let upkeep = Upkeep::new(database.clone());
        let carts = CartBatches::start(&lookups, &clock, &upkeep);
        let events = Batcher::start(ApplyEvents { clock: clock.clone() }, lookups.clone());
        let link_requests = Batcher::start(RequestLinks { clock: clock.clone() }, lookups.clone());
        let newest_links = Batcher::start(FindNewest, lookups.clone());
        let refused_webhooks = RefusedWebhooks::new(database.clone());
        let unverified_bodies = UnverifiedBodies::new(&config.trusted_proxies);
        let unnamed_proxy = UnnamedProxy::new(&config.trusted_proxies);
        let token_limiter = TokenLimiter::new(&config);
        let dashboard = Dashboard::new(&config, database.clone(), news.clone());
        Self(Arc::new(Fields {
            database,
            lookups,
            clock,
            config,
            keys,
            news,
            upkeep,
            carts,
            cart_locks: CartLocks::default(),
            events,
            link_requests,
            newest_links,
            refused_webhooks,
            unverified_bodies,
            token_limiter,
            unnamed_proxy,
            searches: Searches::new(2),
            dashboard_searches: Searches::new(1),
            erasures: Searches::new(1),
            dashboard,
        }))
    }

    /// Resolves when `stop` does, and ends the event streams of open dashboard pages, whose
    /// connections would otherwise stay open.
    pub fn stopping(
        &self,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let state = self.clone();
        async move {
            stop.await;
            state.dashboard.stop();
        }
    }
}
