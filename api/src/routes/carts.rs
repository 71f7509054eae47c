//! `/api/carts`

pub(crate) mod batches;
pub(crate) mod change;
mod create;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod lock;
pub(crate) mod receipt;
pub(crate) mod searches;
pub(crate) mod timeline;

use axum::{
    extract::{FromRequestParts, Path, State},
    http::request::Parts,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use common::{
    carts::{self, Cart, CartId, CartStatus, list::Start, new::EXTERNAL_ID_CHARACTERS},
    db::Connection,
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use self::{
    batches::{CartList, ListRequest, RenderedPage},
    lock::Locked,
};
use crate::{
    auth::scoped_router::ScopedRouter,
    http::{
        body::{Data, Rendered, Success, render},
        error::ApiError,
        etag::{IfMatch, IfNoneMatch},
        pagination::{NextLink, Page, next_link},
        query::{EmailToFind, Parameters},
    },
    openapi,
    state::AppState,
};

pub(crate) fn router() -> ScopedRouter {
    ScopedRouter::new()
        .read(routes!(list))
        .write(routes!(create::create))
        .read(routes!(show))
        .write(routes!(change::change, delete))
}

fn parse_id(id: &str) -> Result<CartId, ApiError> {
    id.parse().map_err(|_| ApiError::cart_not_found())
}

/// The cart id in a path. Malformed ids return 404.
pub(crate) struct CartPath(pub(crate) CartId);

impl<S: Send + Sync> FromRequestParts<S> for CartPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(id) =
            Path::<String>::from_request_parts(parts, state).await.map_err(|_| ApiError::cart_not_found())?;
        parse_id(&id).map(Self)
    }
}

/// Get a cart
#[utoipa::path(
    get, path = "/carts/{id}", operation_id = "showCart", tag = "Carts",
    params(
        ("id" = String, Path, pattern = "^cart_[A-Za-z0-9_-]{1,100}$", description = "Which cart."),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of what you have: if nothing changed the answer is 304."),
    ),
    responses(
        (status = 200, description = "The cart", body = Success<Cart>, headers(("ETag" = String, description = "Of this representation; strong."))),
        (status = 304, description = "You have it already", headers(("ETag" = String, description = "Of what you have."))),
    ),
)]
async fn show(State(state): State<AppState>, CartPath(id): CartPath, known: IfNoneMatch) -> Result<Response, ApiError> {
    let cart = state.carts.find.run(id).await?.ok_or_else(ApiError::cart_not_found)?;
    Ok(known.answer(render(&*cart)))
}

/// The largest offset of pages that are read in batches.
const MAX_BATCHED_OFFSET: i64 = 1_000;

/// List carts
///
/// Newest first. `total` is exact. Following `nextCursor` is as fast at the end as at the start,
/// and new carts do not shift the pages.
#[utoipa::path(
    get, path = "/carts", operation_id = "listCarts", tag = "Carts",
    params(
        ("status" = Option<CartStatus>, Query, description = "Only with this status."),
        ("email" = inline(Option<EmailToFind>), Query, description = "Only of the shopper with this address, in any spelling."),
        ("externalId" = Option<String>, Query, min_length = 1, max_length = 200, description = "Only the cart with this id of yours."),
        Page,
        ("cursor" = Option<String>, Query, pattern = "^-?[0-9]{1,16}-[A-Za-z0-9_-]{1,200}$", description = "The `nextCursor` of the page before; `page` does not count then."),
    ),
    responses((status = 200, description = "A page", body = Success<CartList>,
        headers(("Link" = String, description = "The address of the next page, with `rel=\"next\"`; absent on the last one.")))),
)]
async fn list(State(state): State<AppState>, parameters: Parameters) -> Result<(NextLink, Rendered), ApiError> {
    let page = page(&state, &parameters).await?;
    Ok((next_link(&parameters, "/api/carts", "cursor", page.next.as_deref()), Rendered(page.body)))
}

async fn page(state: &AppState, parameters: &Parameters) -> Result<RenderedPage, ApiError> {
    let status = parameters.parse("status", "abandoned, recovered or expired", |text| text.parse().ok())?;
    let page = Page::of(parameters)?;
    let cursor = parameters.parse("cursor", "a pagination.nextCursor of this list", |text| text.parse().ok())?;
    let email: Option<carts::search::EmailToFind> =
        parameters.parse("email", "an e-mail address", |text| text.parse().ok())?;
    let start = cursor.map_or(Start::Offset(page.offset()), Start::After);
    let external_id = parameters.parse("externalId", "an id of 1 to 200 characters", |text| {
        (text.chars().count() <= EXTERNAL_ID_CHARACTERS).then(|| text.to_owned())
    })?;
    if let Some(external_id) = &external_id {
        let (mut conn, now) = (state.lookups.acquire().await?, state.clock.now());
        let found = carts::search::by_external_id(&mut conn, external_id, email.as_ref(), status, &start, now).await?;
        return Ok(batches::render(page, found.total, found.page));
    }
    Ok(match (email, &start) {
        (Some(email), _) => {
            let (_permit, database) = state.searches.begin(&state.database).await?;
            let mut conn = database.acquire().await?;
            let found =
                carts::search::by_email(&mut conn, &email, status, start, page.limit, state.clock.now()).await?;
            batches::render(page, found.total, found.page)
        }
        // A deep page takes longer, so no other request waits for it in a batch.
        (None, Start::Offset(offset)) if *offset > MAX_BATCHED_OFFSET => {
            let mut conn = state.lookups.acquire().await?;
            let total = carts::list::totals(&mut conn).await?.of(status);
            let found = carts::list::page(&mut conn, status, start, page.limit, state.clock.now()).await?;
            batches::render(page, total, found)
        }
        (None, _) => state.carts.list.run(ListRequest { status, page, start }).await?,
    })
}

/// Checks `If-Match` against the cart. The cart must be locked, or it could change between the
/// check and the change.
async fn check_precondition(
    conn: &mut Connection,
    id: &CartId,
    precondition: &IfMatch,
    now: DateTime<Utc>,
) -> Result<(), ApiError> {
    if !precondition.is_given() {
        return Ok(());
    }
    let cart = carts::find(conn, id, now).await?.ok_or_else(ApiError::cart_not_found)?;
    precondition.check(&render(&cart))
}

/// `data` of the response to `DELETE /api/carts/{id}`.
#[derive(Serialize, ToSchema)]
struct DeletedCart {
    #[schema(example = "cart_01m84zjdhtftc9p973qfnt3nn0")]
    id: String,
    #[schema(schema_with = crate::http::schema::only_true)]
    deleted: bool,
}

/// Delete a cart
///
/// Deletes the shopper's data as well. This can't be undone. An open payment session is closed at
/// Stripe.
#[utoipa::path(
    delete, path = "/carts/{id}", operation_id = "deleteCart", tag = "Carts",
    params(
        ("id" = String, Path, pattern = "^cart_[A-Za-z0-9_-]{1,100}$", description = "Which cart."),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of what you have: if the cart is not that any more, nothing is deleted."),
    ),
    responses(
        (status = 200, description = "It is deleted", body = Success<DeletedCart>),
        (status = 412, description = "`PRECONDITION_FAILED`: the cart has changed", body = openapi::Error),
    ),
)]
pub(crate) async fn delete(
    State(state): State<AppState>,
    CartPath(id): CartPath,
    precondition: IfMatch,
) -> Result<Response, ApiError> {
    let now = state.clock.now();
    let Locked { permit: _permit, mut tx, .. } = lock::lock(&state.cart_locks, &state.lookups, &id).await?;
    check_precondition(&mut tx, &id, &precondition, now).await?;
    carts::delete(&mut tx, &id, now).await?;
    tx.commit().await?;
    Ok(Data(DeletedCart { id: id.to_string(), deleted: true }).into_response())
}
