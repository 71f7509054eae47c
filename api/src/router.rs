//! All routes and their middleware.

use axum::{Extension, Router, extract::DefaultBodyLimit, middleware};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    auth::{self, scoped_router::ScopedRouter},
    dashboard,
    http::{
        base_path::BasePath,
        body::BODY_BYTES,
        client, compression, cors,
        error::{self, ApiError},
        rate_limit::{self, RateLimiter},
        request_log,
    },
    openapi::{self, Described, Document},
    pages::pay,
    routes::{analytics, audit, carts, erasure, health, jobs, payment_links, queues, schedules, webhooks, workers},
    state::AppState,
};

/// The routes, by the middleware in front of them, and their OpenAPI description.
struct Routes {
    behind_key: Router<AppState>,
    document: Router<AppState>,
    document_page: Router<AppState>,
    shoppers: Router<AppState>,
    unlimited: Router<AppState>,
    described: Described,
}

fn routes() -> Routes {
    let behind_key = ScopedRouter::new()
        .merge(carts::router())
        .merge(carts::import::router())
        .merge(carts::export::router())
        .merge(payment_links::router())
        .merge(carts::timeline::router())
        .merge(analytics::router())
        .merge(erasure::router())
        .merge(jobs::router())
        .merge(queues::router())
        .merge(schedules::router())
        .merge(workers::router())
        .merge(audit::router());
    let (behind_key, described_behind_key) = behind_key.split();
    let (document, described_document) = openapi::document_router().split_for_parts();
    let (document_page, described_page) = openapi::page_router().split_for_parts();
    let (shoppers, described_shoppers) = pay::router().split_for_parts();
    let (unlimited, described_unlimited) = webhooks::router().merge(health::router()).split_for_parts();
    let described = Described {
        behind_key: described_behind_key,
        limited: vec![described_page, described_document],
        unlimited: vec![described_shoppers, described_unlimited],
    };
    Routes { behind_key, document, document_page, shoppers, unlimited, described }
}

/// The OpenAPI document, as `/api/openapi.json` returns it, but for its servers.
pub fn document() -> String {
    openapi::written(&routes().described.document())
}

/// All routes with their middleware.
pub fn router(state: AppState) -> Router {
    let Routes { behind_key, document, document_page, shoppers, unlimited, described } = routes();
    let base = BasePath::of(&state.config.shared.public_url);
    let content = Extension(Document::of(described.document(), &state.config.shared.public_url, &base));
    let limits = RateLimiter::new(&state.config);
    let limiter = middleware::from_fn_with_state(limits.clone(), rate_limit::limit);
    let behind_key = behind_key
        .fallback(|| async { ApiError::not_found("No such endpoint") })
        .method_not_allowed_fallback(method_not_allowed) // here, so that the layers apply to it
        .layer(middleware::from_fn_with_state(state.clone(), auth::require_key));
    let api = Router::new()
        .nest("/api", behind_key)
        .merge(document.method_not_allowed_fallback(method_not_allowed).layer(content.clone()))
        .layer(limiter.clone());
    let document_page = document_page.method_not_allowed_fallback(method_not_allowed).layer(content).layer(limiter);
    let router = Router::new()
        .merge(cors::allow(&state.config.cors_origins, api))
        .merge(document_page)
        .merge(shoppers.method_not_allowed_fallback(method_not_allowed))
        .merge(dashboard::router(limits).method_not_allowed_fallback(method_not_allowed))
        .merge(unlimited.method_not_allowed_fallback(method_not_allowed))
        .fallback(|| async { ApiError::not_found("No such endpoint") });
    // From the outermost on. As one layer, because each request copies a service with all that are inside it.
    let layers = ServiceBuilder::new()
        .layer(middleware::from_fn(request_log::log))
        .layer(middleware::from_fn_with_state(state.unnamed_proxy.clone(), client::find_unnamed_proxy))
        .map_response(compression::with_own_tag)
        .layer(compression::layer())
        .layer(middleware::from_fn_with_state(state.clone(), dashboard::errors::as_pages))
        .layer(CatchPanicLayer::custom(error::answer_panic))
        .layer(DefaultBodyLimit::max(BODY_BYTES));
    base.serve(router.layer(layers).with_state(state))
}

async fn method_not_allowed() -> ApiError {
    ApiError::method_not_allowed()
}
