//! Liveness and readiness probes.

use axum::extract::State;
use common::db;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    http::{
        body::{Data, Success},
        declared,
        error::ApiError,
    },
    state::AppState,
};

pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(declared::refuse_others(routes!(alive))).routes(declared::refuse_others(routes!(ready)))
}

/// Check liveness
///
/// Returns 200 while the process lives. For load balancers and orchestrators.
#[utoipa::path(
    get, path = "/healthz", operation_id = "isAlive", tag = "Health",
    responses((status = 200, description = "It lives", body = Success<String>,
        example = json!({"success": true, "data": "alive"}))),
)]
async fn alive() -> Data<&'static str> {
    Data("alive")
}

/// Check readiness
///
/// Returns 200 only while Postgres is available.
#[utoipa::path(
    get, path = "/readyz", operation_id = "isReady", tag = "Health",
    responses((status = 200, description = "It can work", body = Success<String>,
        example = json!({"success": true, "data": "ready"}))),
)]
async fn ready(State(state): State<AppState>) -> Result<Data<&'static str>, ApiError> {
    db::ping(&state.database).await.map_err(ApiError::unavailable)?;
    Ok(Data("ready"))
}
