//! The HTTP side: stores carts, asks for payment links, takes Stripe's
//! webhooks, answers analytics, and shows its operator all of it. It holds no key to money and never calls Stripe.

#![cfg_attr(test, allow(clippy::disallowed_types, reason = "tests read what they wrote themselves"))]

mod acceptor;
mod analytics;
mod auth;
mod body;
mod cart_answers;
mod cart_batches;
mod cart_csv;
mod cart_export;
mod cart_import;
mod cart_import_reader;
mod cart_lines;
mod cart_locks;
mod carts;
mod client;
mod command;
mod compression;
pub mod config;
mod cors;
mod dashboard;
mod erasure;
mod error;
mod etag;
mod health;
mod jobs;
mod key_store;
mod keyed_routes;
mod link_requests;
mod link_wait;
mod metrics;
mod mutex;
mod openapi;
mod pagination;
mod pay_page;
mod payment_links;
mod query;
mod queues;
mod rate_limit;
mod refused_webhooks;
mod request_log;
mod schedules;
mod serve;
mod streams;
mod timeline;
mod unread_body;
mod unverified_bodies;
mod webhooks;

use std::sync::Arc;

use axum::{Extension, Router, extract::DefaultBodyLimit, middleware};
use common::{
    batches::{Batch, Batches, LONGEST},
    clock::Clock,
    db::{self, Database},
};
use tower_http::catch_panic::CatchPanicLayer;

pub use acceptor::raise_file_limit;
pub use auth::BootstrapKey;
pub use command::CommandLine;
pub use config::ApiConfig;
pub use link_wait::LinkNews;
pub use metrics::serve as serve_metrics;
pub use serve::serve;

use crate::{
    auth::ApiKeys,
    cart_batches::CartBatches,
    cart_locks::CartLocks,
    dashboard::Dashboard,
    error::ApiError,
    keyed_routes::KeyedRoutes,
    link_requests::LinkBatches,
    openapi::{Described, Documents},
    rate_limit::RateLimiter,
    refused_webhooks::RefusedWebhooks,
    unverified_bodies::UnverifiedBodies,
    webhooks::ApplyEvents,
};

/// The most a body may hold.
const BODY_BYTES: usize = 1024 * 1024;

/// Connections to Postgres of requests that change one cart …
const CONNECTIONS_BY_KEY: u32 = 7;
/// … and of the lanes that answer many at once (see `common::batches`): one each,
/// since a lane that is busy keeps its own.
const CONNECTIONS_OF_LANES: usize = CartBatches::LANES + LinkBatches::LANES + ApplyEvents::LANES;

/// What every handler can reach.
#[derive(Debug, Clone)]
pub struct AppState {
    database: Database,
    /// The same, for short statements that find what they look for by a key.
    by_key: Database,
    clock: Clock,
    config: Arc<ApiConfig>,
    keys: Arc<ApiKeys>,
    news: LinkNews,
    carts: Arc<CartBatches>,
    cart_locks: CartLocks,
    links: Arc<LinkBatches>,
    events: Arc<Batches<ApplyEvents>>,
    refused_webhooks: RefusedWebhooks,
    unverified_bodies: UnverifiedBodies,
    /// Whose turn it is to look for a person: see [`erasure`].
    searching: Arc<tokio::sync::Mutex<()>>,
    dashboard: Arc<Dashboard>,
}

impl AppState {
    /// Within a tokio runtime. `news` tells waiting requests about their links; see [`LinkNews::start`].
    pub fn new(database: Database, clock: Clock, config: ApiConfig, news: LinkNews) -> Self {
        // Nobody who asks waits for longer, whatever Postgres does.
        let database = database.answers_within(LONGEST);
        let by_key = db::by_key(&database, CONNECTIONS_BY_KEY);
        let keys = Arc::new(ApiKeys::start(&config.api_keys, by_key.clone(), clock.clone(), &news));
        let lanes = db::by_key(&database, u32::try_from(CONNECTIONS_OF_LANES).unwrap_or(u32::MAX));
        let carts = Arc::new(CartBatches::start(&lanes, &database, &clock));
        let links = Arc::new(LinkBatches::start(&lanes, &clock, config.payment_link_ttl));
        let events = Arc::new(Batches::start(ApplyEvents { clock: clock.clone() }, lanes));
        let refused_webhooks = RefusedWebhooks::new(database.clone());
        let unverified_bodies = UnverifiedBodies::new(&config.trusted_proxies);
        let dashboard = Arc::new(Dashboard::new(&config, database.clone(), news.clone()));
        let config = Arc::new(config);
        let searching = Arc::default();
        Self {
            database,
            by_key,
            clock,
            config,
            keys,
            news,
            carts,
            cart_locks: CartLocks::default(),
            links,
            events,
            refused_webhooks,
            unverified_bodies,
            searching,
            dashboard,
        }
    }

    /// Resolves as `stop` does, and lets go of the pages that are told of changes:
    /// their connections end only when we do.
    pub fn stopping(
        &self,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let dashboard = self.dashboard.clone();
        async move {
            stop.await;
            dashboard.stop();
        }
    }
}

/// The routes, by what is to stand before them, and what they say of themselves.
struct Routes {
    behind_key: Router<AppState>,
    document: Router<AppState>,
    pages: Router<AppState>,
    unlimited: Router<AppState>,
    described: Described,
}

fn routes() -> Routes {
    let behind_key = KeyedRoutes::new()
        .merge(carts::router())
        .merge(cart_import::router())
        .merge(cart_export::router())
        .merge(payment_links::router())
        .merge(timeline::router())
        .merge(analytics::router())
        .merge(erasure::router())
        .merge(jobs::router())
        .merge(queues::router())
        .merge(schedules::router());
    let (behind_key, described_behind_key) = behind_key.split();
    let (document, described_document) = openapi::document_router().split_for_parts();
    let (pages, described_pages) = pay_page::router().merge(openapi::page_router()).split_for_parts();
    let (unlimited, described_unlimited) = webhooks::router().merge(health::router()).split_for_parts();
    let described = Described {
        behind_key: described_behind_key,
        limited: vec![described_pages, described_document],
        unlimited: described_unlimited,
    };
    Routes { behind_key, document, pages, unlimited, described }
}

/// The document that describes the API, as `/api/openapi.json` answers it.
pub fn document() -> String {
    openapi::written(&routes().described.document())
}

/// Every route, with all that stands before it.
pub fn router(state: AppState) -> Router {
    let Routes { behind_key, document, pages, unlimited, described } = routes();
    let documents = Extension(Documents::of(&described.document()));
    let limits = RateLimiter::new(&state.config);
    let limiter = middleware::from_fn_with_state(limits.clone(), rate_limit::limit);
    let behind_key = behind_key
        .fallback(|| async { ApiError::not_found("No such route") })
        .method_not_allowed_fallback(method_not_allowed) // here, so that the layers stand before it
        .layer(middleware::from_fn_with_state(state.clone(), auth::require_key));
    let api = Router::new()
        .nest("/api", behind_key)
        .merge(document.method_not_allowed_fallback(method_not_allowed).layer(documents.clone()))
        .layer(limiter.clone());
    let pages = pages.method_not_allowed_fallback(method_not_allowed).layer(documents).layer(limiter);
    let router = Router::new()
        .merge(cors::allow(&state.config.cors_origins, api))
        .merge(pages)
        .merge(dashboard::router(limits).method_not_allowed_fallback(method_not_allowed))
        .merge(unlimited.method_not_allowed_fallback(method_not_allowed))
        .fallback(|| async { ApiError::not_found("No such route") })
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(CatchPanicLayer::custom(error::answer_panic));
    compression::compressed(router).layer(middleware::from_fn(request_log::log)).with_state(state)
}

async fn method_not_allowed() -> ApiError {
    ApiError::method_not_allowed()
}
