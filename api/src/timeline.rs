//! `/api/carts/{id}/timeline`: what happened to a cart, when and why.

use axum::{Router, extract::State, routing::get};
use common::timeline::{self, Event};
use serde::Serialize;

use crate::{AppState, body::Data, carts::CartPath, error::ApiError, query::Parameters};

/// Few carts have more: one page is the whole story.
const DEFAULT_LIMIT: i64 = 100;

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/carts/{id}/timeline", get(show))
}

#[derive(Serialize)]
struct Timeline {
    events: Vec<Event>,
    pagination: Part,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    limit: i64,
    next_cursor: Option<String>,
}

async fn show(
    State(state): State<AppState>,
    CartPath(id): CartPath,
    parameters: Parameters,
) -> Result<Data<Timeline>, ApiError> {
    let limit = parameters.limit_or(DEFAULT_LIMIT)?;
    let after = parameters.parse("cursor", "a pagination.nextCursor of this timeline", |text| text.parse().ok())?;
    let mut conn = state.by_key.acquire().await?;
    let page = timeline::page(&mut conn, &id, after, limit).await?.ok_or_else(ApiError::cart_not_found)?;
    let next_cursor = page.next.map(|cursor| cursor.to_string());
    Ok(Data(Timeline { events: page.events, pagination: Part { limit, next_cursor } }))
}
