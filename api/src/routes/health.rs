//! Liveness and readiness probes.

use axum::extract::State;
use common::db;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    http::{
        body::{Data, Success},
        error::ApiError,
        unknown_parameters,
    },
    state::AppState,
};

pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(unknown_parameters::refuse(routes!(alive)))
        .routes(unknown_parameters::refuse(routes!(ready)))
}

/// Reports whether the process is alive
#[utoipa::path(
    get, path = "/healthz", operation_id = "isAlive", tag = "Health",
    responses((status = 200, description = "It lives", body = Success<String>)),
)]
async fn alive() -> Data<&'static str> {
    Data("alive")
}

/// Reports whether the process can work: whether Postgres is available
#[utoipa::path(
    get, path = "/readyz", operation_id = "isReady", tag = "Health",
    responses((status = 200, description = "It can work", body = Success<String>)),
)]
async fn ready(State(state): State<AppState>) -> Result<Data<&'static str>, ApiError> {
    db::ping(&state.database).await.map_err(ApiError::unavailable)?;
    Ok(Data("ready"))
}
