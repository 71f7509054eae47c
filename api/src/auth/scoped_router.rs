//! Routes that need an API key. A route can only be added together with the scope that it requires,
//! and refuses what its description does not declare.

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
};
use common::api_keys::Scope;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt};

use crate::{
    auth::keys::Granted,
    http::{declared, error::ApiError},
    openapi,
    state::AppState,
};

/// Routes, each with its required scope.
pub(crate) struct ScopedRouter(OpenApiRouter<AppState>);

impl ScopedRouter {
    pub(crate) fn new() -> Self {
        Self(OpenApiRouter::new())
    }

    /// Adds routes that require the scope `read`.
    pub(crate) fn read(self, routes: UtoipaMethodRouter<AppState>) -> Self {
        self.requiring(&[Scope::Read], routes)
    }

    /// Adds routes that require the scope `read` or `support`.
    pub(crate) fn read_or_support(self, routes: UtoipaMethodRouter<AppState>) -> Self {
        self.requiring(&[Scope::Read, Scope::Support], routes)
    }

    /// Adds routes that require the scope `write`.
    pub(crate) fn write(self, routes: UtoipaMethodRouter<AppState>) -> Self {
        self.requiring(&[Scope::Write], routes)
    }

    /// Adds routes that require the scope `operator`.
    pub(crate) fn operator(self, routes: UtoipaMethodRouter<AppState>) -> Self {
        self.requiring(&[Scope::Operator], routes)
    }

    /// Adds routes that require the scope `operator` or `support`.
    pub(crate) fn operator_or_support(self, routes: UtoipaMethodRouter<AppState>) -> Self {
        self.requiring(&[Scope::Operator, Scope::Support], routes)
    }

    /// `scopes`: one of them is required; the first is named in refusals.
    fn requiring(self, scopes: &'static [Scope], mut routes: UtoipaMethodRouter<AppState>) -> Self {
        openapi::ask_for_key(&mut routes.1, scopes);
        let layer = middleware::from_fn_with_state(scopes, check_scope);
        let routes = declared::refuse_others(routes);
        Self(self.0.routes(routes.map(|routes| routes.route_layer(layer))))
    }

    /// Adds the routes of another router.
    pub(crate) fn merge(self, others: Self) -> Self {
        Self(self.0.merge(others.0))
    }

    /// The routes, to be put behind `auth::require_key`, and their OpenAPI description.
    pub(crate) fn split(self) -> (Router<AppState>, OpenApi) {
        self.0.split_for_parts()
    }
}

/// Rejects with 403 if the key has none of the scopes, and with 401 if `auth::require_key` did not run.
async fn check_scope(
    State(wanted): State<&'static [Scope]>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let granted = request.extensions().get::<Granted>().ok_or_else(ApiError::unauthorized)?;
    match wanted {
        [named, ..] if !wanted.iter().any(|scope| granted.scopes.has(*scope)) => Err(ApiError::forbidden(*named)),
        _ => Ok(next.run(request).await),
    }
}
