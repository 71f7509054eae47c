//! `/api/carts`

pub(crate) mod batches;
pub(crate) mod change;
mod create;
pub(crate) mod export;
pub(crate) mod filters;
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
    audit::{self, Action},
    carts::{
        self, Cart, CartId,
        filter::Filter,
        list::{CartPage, Cursor, Sort, Start},
    },
    db::Connection,
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use self::{
    batches::{CartList, ListRequest, RenderedPage},
    filters::{Filters, Order},
    lock::Locked,
};
use crate::{
    auth::{keys::By, scoped_router::ScopedRouter},
    http::{
        body::{Data, Rendered, Success, render},
        error::ApiError,
        etag::{IfMatch, IfNoneMatch},
        pagination::{NextLink, Page, next_link},
        query::Parameters,
    },
    openapi,
    state::AppState,
};

pub(crate) fn router() -> ScopedRouter {
    ScopedRouter::new()
        .read_or_support(routes!(list))
        .write(routes!(create::create))
        .read_or_support(routes!(show))
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
        Filters,
        ("sort" = inline(Option<Order>), Query, description = "The order, `-createdAt` by default. `totalValue` compares the numbers as they are written, so use it with `currency` if carts are in several. Carts that were not recovered count as recovered before all others."),
        Page,
        ("cursor" = Option<String>, Query, pattern = "^[anrv]?(-?[0-9]{1,18})?-[A-Za-z0-9_-]{1,200}$", description = "The `nextCursor` of the page before, with the same filters and `sort`; `page` does not count then."),
    ),
    responses((status = 200, description = "A page", body = Success<CartList>,
        headers(("Link" = String, description = "The address of the next page, with `rel=\"next\"`; absent on the last one.")))),
)]
async fn list(State(state): State<AppState>, parameters: Parameters) -> Result<(NextLink, Rendered), ApiError> {
    let page = page(&state, &parameters).await?;
    Ok((next_link(&parameters, "/api/carts", "cursor", page.next.as_deref()), Rendered(page.body)))
}

async fn page(state: &AppState, parameters: &Parameters) -> Result<RenderedPage, ApiError> {
    let filter = filters::parse(parameters)?;
    let sort = filters::sort(parameters)?.unwrap_or_default();
    let page = Page::of(parameters)?;
    let cursor = parameters.parse("cursor", "a pagination.nextCursor of this list with the same sort", |text| {
        text.parse().ok().filter(|cursor: &Cursor| cursor.key() == sort.key)
    })?;
    let start = cursor.map_or(Start::Offset(page.offset()), Start::After);
    if !filter.is_status_only() || sort != Sort::default() {
        let (found, total) = find(state, &filter, sort, start, page.limit).await?;
        return Ok(batches::render(page, total, found));
    }
    let status = filter.status;
    Ok(match &start {
        // A deep page takes longer, so no other request waits for it in a batch.
        Start::Offset(offset) if *offset > MAX_BATCHED_OFFSET => {
            let mut conn = state.lookups.acquire().await?;
            let total = carts::list::totals(&mut conn).await?.of(status);
            let found = carts::list::page(&mut conn, status, start, page.limit, state.clock.now()).await?;
            batches::render(page, total, found)
        }
        _ => state.carts.list.run(ListRequest { status, page, start }).await?,
    })
}

/// Finds carts; returns a page and the exact total. A few do so at a time, because some filters read every cart.
async fn find(
    state: &AppState,
    filter: &Filter,
    sort: Sort,
    start: Start,
    limit: i64,
) -> Result<(CartPage, i64), ApiError> {
    // One index finds the cart of an external id.
    let is_lookup = filter.external_id.is_some() && filter.text.is_none();
    let (_permit, database) = match is_lookup {
        true => (None, state.lookups.clone()),
        false => state.searches.begin(&state.database).await.map(|(permit, database)| (Some(permit), database))?,
    };
    let mut tx = carts::filter::begin(&database).await?;
    let mut query = filter.read(&mut tx, sort, state.clock.now()).await?;
    state.upkeep.before_running(&query)?;
    let few = query.count_few(&mut tx).await?;
    let page = query.page(&mut tx, start, limit).await?;
    let total = match few {
        Some(total) => total,
        None => query.count(&mut tx).await?,
    };
    tx.commit().await?;
    Ok((page, total))
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
    by: By,
    CartPath(id): CartPath,
    precondition: IfMatch,
) -> Result<Response, ApiError> {
    let now = state.clock.now();
    let Locked { permit: _permit, mut tx, .. } = lock::lock(&state.cart_locks, &state.lookups, &id).await?;
    check_precondition(&mut tx, &id, &precondition, now).await?;
    carts::delete(&mut tx, &id, now).await?;
    audit::note(&mut tx, &by.0, Action::CartDeleted, id.as_str(), now).await?;
    tx.commit().await?;
    Ok(Data(DeletedCart { id: id.to_string(), deleted: true }).into_response())
}
