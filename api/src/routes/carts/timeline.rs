//! `/api/carts/{id}/timeline`: the events of a cart, with times and reasons.

use axum::extract::State;
use common::timeline::{self, Event};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::CartPath;
use crate::{
    auth::scoped_router::ScopedRouter,
    http::{
        body::{Data, Success},
        error::ApiError,
        pagination::{NextLink, next_link},
        query::Parameters,
    },
    state::AppState,
};

/// Few carts have more events, so one page usually has them all.
const DEFAULT_LIMIT: i64 = 100;

pub(crate) fn router() -> ScopedRouter {
    ScopedRouter::new().read_or_support(routes!(show))
}

/// The events of a cart.
#[derive(Serialize, ToSchema)]
struct Timeline {
    /// Oldest first.
    events: Vec<Event>,
    pagination: Part,
}

/// Pagination of a timeline.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TimelinePart)]
struct Part {
    /// Maximum number of events in this part.
    #[schema(example = 100)]
    limit: i64,
    /// Cursor of the next part; null on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// Get a cart's timeline
///
/// Everything that happened to the cart, with times and reasons, oldest first. Append-only. New
/// kinds of events and new codes of `why` may be added.
#[utoipa::path(
    get, path = "/carts/{id}/timeline", operation_id = "showTimeline", tag = "Carts",
    params(
        ("id" = String, Path, pattern = "^cart_[A-Za-z0-9_-]{1,100}$", description = "Which cart."),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "Events a part; the default is 100."),
        ("cursor" = Option<String>, Query, pattern = "^-?[0-9]{1,16}-[0-9]{1,16}$", description = "The `nextCursor` of the part before."),
    ),
    responses((status = 200, description = "A part of the timeline", body = Success<Timeline>,
        headers(("Link" = String, description = "The address of the next page, with `rel=\"next\"`; absent on the last one.")))),
)]
async fn show(
    State(state): State<AppState>,
    CartPath(id): CartPath,
    parameters: Parameters,
) -> Result<(NextLink, Data<Timeline>), ApiError> {
    let limit = parameters.limit_or(DEFAULT_LIMIT)?;
    let after = parameters.parse("cursor", "a pagination.nextCursor of this timeline", |text| text.parse().ok())?;
    let mut conn = state.lookups.acquire().await?;
    let page = timeline::page(&mut conn, &id, after, limit).await?.ok_or_else(ApiError::cart_not_found)?;
    let next_cursor = page.next.map(|cursor| cursor.to_string());
    let link = next_link(&parameters, &format!("/api/carts/{id}/timeline"), "cursor", next_cursor.as_deref());
    Ok((link, Data(Timeline { events: page.events, pagination: Part { limit, next_cursor } })))
}
