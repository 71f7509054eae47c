//! The HTTP side: stores carts, asks for payment links, takes Stripe's
//! webhooks, answers analytics, and shows its operator all of it. It holds no key to money and never calls Stripe.

mod analytics;
mod auth;
mod body;
mod cart_batches;
mod cart_csv;
mod cart_export;
mod cart_import;
mod cart_import_reader;
mod cart_lines;
mod carts;
mod compression;
pub mod config;
mod cors;
mod dashboard;
mod error;
mod etag;
mod health;
mod jobs;
mod link_requests;
mod link_wait;
mod metrics;
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
mod timeline;
mod webhooks;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Extension, Router, extract::DefaultBodyLimit, middleware, serve::ListenerExt};
use common::{
    batches::{Batch, Batches, LONGEST},
    clock::Clock,
    db::{self, Database},
};
use tokio::net::TcpListener;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;

pub use config::ApiConfig;
pub use link_wait::LinkNews;
pub use metrics::serve as serve_metrics;

use crate::{
    auth::ApiKeys,
    cart_batches::CartBatches,
    dashboard::Dashboard,
    error::ApiError,
    link_requests::LinkBatches,
    openapi::{Described, Documents},
    rate_limit::RateLimiter,
    refused_webhooks::RefusedWebhooks,
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
    links: Arc<LinkBatches>,
    events: Arc<Batches<ApplyEvents>>,
    refused_webhooks: RefusedWebhooks,
    dashboard: Arc<Dashboard>,
}

impl AppState {
    /// Within a tokio runtime. `news` tells waiting requests about their links; see [`LinkNews::start`].
    pub fn new(database: Database, clock: Clock, config: ApiConfig, news: LinkNews) -> Self {
        // Nobody who asks waits for longer, whatever Postgres does.
        let database = database.answers_within(LONGEST);
        let keys = Arc::new(ApiKeys::new(&config.api_keys));
        let by_key = db::by_key(&database, CONNECTIONS_BY_KEY);
        let lanes = db::by_key(&database, u32::try_from(CONNECTIONS_OF_LANES).unwrap_or(u32::MAX));
        let carts = Arc::new(CartBatches::start(&lanes, &database, &clock));
        let links = Arc::new(LinkBatches::start(&lanes, &clock, config.payment_link_ttl));
        let events = Arc::new(Batches::start(ApplyEvents { clock: clock.clone() }, lanes));
        let refused_webhooks = RefusedWebhooks::new(database.clone());
        let dashboard = Arc::new(Dashboard::new(&config, database.clone(), news.clone()));
        let config = Arc::new(config);
        Self { database, by_key, clock, config, keys, news, carts, links, events, refused_webhooks, dashboard }
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
    let behind_key = OpenApiRouter::new()
        .merge(carts::router())
        .merge(cart_import::router())
        .merge(cart_export::router())
        .merge(payment_links::router())
        .merge(timeline::router())
        .merge(analytics::router())
        .merge(jobs::router())
        .merge(queues::router())
        .merge(schedules::router());
    let (behind_key, described_behind_key) = behind_key.split_for_parts();
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

/// Serves until `stop` resolves, then finishes what is in flight for at most `timeout`.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
    timeout: Duration,
) -> std::io::Result<()> {
    let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
    let listener = listener.tap_io(|connection| {
        // Answers are small and complete: waiting to fill a packet only delays them.
        let _ = connection.set_nodelay(true);
    });
    let server = axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(async move {
            stop.await;
            let _ = stopping.send(());
        });
    tokio::select! {
        result = server => result,
        () = async {
            if stopped.await.is_err() {
                std::future::pending::<()>().await; // the server ended by itself
            }
            tokio::time::sleep(timeout).await;
        } => {
            tracing::warn!("some requests did not finish within SHUTDOWN_TIMEOUT");
            Ok(())
        }
    }
}
