//! Whether this process lives, and whether it can work.

use axum::{Router, extract::State, routing::get};

use common::db;

use crate::{AppState, body::Data, error::ApiError};

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/healthz", get(alive)).route("/readyz", get(ready))
}

async fn alive() -> Data<&'static str> {
    Data("alive")
}

async fn ready(State(state): State<AppState>) -> Result<Data<&'static str>, ApiError> {
    db::answers(&state.database).await.map_err(ApiError::unavailable)?;
    Ok(Data("ready"))
}
