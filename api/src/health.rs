//! Whether this process lives, and whether it can work.

use std::time::Duration;

use axum::{Router, extract::State, routing::get};

use crate::{AppState, body::Data, error::ApiError};

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/healthz", get(alive)).route("/readyz", get(ready))
}

async fn alive() -> Data<&'static str> {
    Data("alive")
}

async fn ready(State(state): State<AppState>) -> Result<Data<&'static str>, ApiError> {
    let answer = tokio::time::timeout(Duration::from_secs(2), sqlx::query("select 1").execute(&state.pool)).await;
    match answer {
        Ok(Ok(_)) => Ok(Data("ready")),
        Ok(Err(error)) => Err(ApiError::unavailable(error)),
        Err(_) => Err(ApiError::unavailable("Postgres did not answer within 2 s")),
    }
}
