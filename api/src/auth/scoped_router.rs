//! Routes behind a key. There is one way to get a route there, and it says which
//! scope the route asks for: one that forgets to say it does not compile.

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
};
use common::api_keys::Scope;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt};

use crate::{auth::keys::Granted, http::error::ApiError, openapi, state::AppState};

/// Routes, each with its scope.
pub(crate) struct ScopedRouter(OpenApiRouter<AppState>);

impl ScopedRouter {
    pub(crate) fn new() -> Self {
        Self(OpenApiRouter::new())
    }

    /// Routes for keys with the scope `read`.
    pub(crate) fn read(self, routes: UtoipaMethodRouter<AppState>) -> Self {
        self.asking_for(Scope::Read, routes)
    }

    /// Routes for keys with the scope `write`.
    pub(crate) fn write(self, routes: UtoipaMethodRouter<AppState>) -> Self {
        self.asking_for(Scope::Write, routes)
    }

    /// Routes for keys with the scope `operator`.
    pub(crate) fn operator(self, routes: UtoipaMethodRouter<AppState>) -> Self {
        self.asking_for(Scope::Operator, routes)
    }

    fn asking_for(self, scope: Scope, mut routes: UtoipaMethodRouter<AppState>) -> Self {
        openapi::ask_for_key(&mut routes.1, scope);
        let layer = middleware::from_fn_with_state(scope, check_scope);
        Self(self.0.routes(routes.map(|routes| routes.route_layer(layer))))
    }

    /// These and those.
    pub(crate) fn merge(self, others: Self) -> Self {
        Self(self.0.merge(others.0))
    }

    /// The routes, to be put behind `auth::require_key`, and their description.
    pub(crate) fn split(self) -> (Router<AppState>, OpenApi) {
        self.0.split_for_parts()
    }
}

/// Without `auth::require_key` before it nothing is granted, and nobody gets by.
async fn check_scope(State(scope): State<Scope>, request: Request, next: Next) -> Result<Response, ApiError> {
    match request.extensions().get::<Granted>() {
        None => Err(ApiError::unauthorized()),
        Some(Granted { scopes, .. }) if !scopes.has(scope) => Err(ApiError::forbidden(scope)),
        Some(_) => Ok(next.run(request).await),
    }
}
