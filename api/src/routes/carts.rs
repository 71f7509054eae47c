//! `/api/carts`

pub(crate) mod batches;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod lock;
pub(crate) mod receipt;
pub(crate) mod searches;
pub(crate) mod timeline;
use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, Path, State},
    http::{HeaderMap, HeaderName, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use common::{
    carts::{
        self, Cart, CartId, CartStatus, LockedCart, RecoveredBy, Source,
        list::Start,
        new::{NewCart, past_instant},
    },
    db::Connection,
    idempotency::{self, Claim, Fingerprint},
    json::Fields,
};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::routes;

use self::{
    batches::{CartList, ListRequest},
    lock::Locked,
    receipt::ChangedCart,
};
use crate::{
    auth::{keys::Granted, scoped_router::ScopedRouter},
    http::{
        body::{Data, JsonBody, Rendered, Success, render},
        error::ApiError,
        etag::{IfMatch, IfNoneMatch},
        pagination::Page,
        query::{EmailToFind, Parameters},
    },
    openapi,
    state::AppState,
};

pub(crate) fn router() -> ScopedRouter {
    ScopedRouter::new().read(routes!(list)).write(routes!(create)).read(routes!(show)).write(routes!(change, delete))
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

/// Stores a cart
///
/// The server computes `totalValue`. Money is exact: a price keeps the digits it was sent with.
/// A key without the scope `read` gets a `CartReceipt`.
#[utoipa::path(
    post, path = "/carts", operation_id = "createCart", tag = "Carts",
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[ -~]+$", example = "order-1001",
        description = "Makes creation safe to repeat for 24 hours with the same API key: the same key and body answer the same cart, as it is now; another body is 422.")),
    request_body = NewCart,
    responses(
        (status = 201, description = "It is stored", body = Success<ChangedCart>, headers(("Location" = String, description = "The cart's path."))),
        (status = 404, description = "`NOT_FOUND`: the cart of this `Idempotency-Key` was deleted", body = openapi::Error),
    ),
)]
async fn create(
    State(state): State<AppState>,
    granted: Granted,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, [(HeaderName, String); 1], Rendered), ApiError> {
    let now = state.clock.now();
    let fingerprint = idempotency_key(&headers)?.map(|key| Fingerprint::of(&granted.key, key, &body));
    let cart = NewCart::parse(&body, state.config.currency, now).map_err(ApiError::validation)?;
    let id = CartId::generate();
    let cart = Cart::new(&id, cart, now);
    let cart = match fingerprint {
        None => {
            let cart = Arc::new(cart);
            state.carts.store.run(cart.clone()).await?;
            cart
        }
        Some(fingerprint) => Arc::new(create_once(&state, &id, cart, &fingerprint).await?),
    };
    let location = format!("/api/carts/{}", cart.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Rendered(receipt::render(&granted, &cart))))
}

/// Stores the cart, or returns the one stored earlier with the same idempotency key and body.
async fn create_once(state: &AppState, id: &CartId, cart: Cart, fingerprint: &Fingerprint) -> Result<Cart, ApiError> {
    let now = cart.created_at;
    let mut tx = state.lookups.begin().await?;
    let cart = match idempotency::claim(&mut tx, fingerprint, id, now).await? {
        Claim::New => {
            carts::insert(&mut tx, &[&cart], Source::Api).await?;
            cart
        }
        Claim::Same(id) => carts::find(&mut tx, &parse_id(&id)?, now).await?.ok_or_else(ApiError::cart_not_found)?,
        Claim::Different => {
            return Err(ApiError::invalid("Idempotency-Key", "was used with another body within the last 24 hours"));
        }
    };
    tx.commit().await?;
    Ok(cart)
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    let printable = |key: &&str| (1..=255).contains(&key.len()) && key.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    key.to_str()
        .ok()
        .filter(printable)
        .map(Some)
        .ok_or_else(|| ApiError::bad_request("Idempotency-Key must be 1 to 255 printable ASCII characters"))
}

/// Shows a cart
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

/// Lists carts, newest first
///
/// `total` is exact. Following `nextCursor` is as fast at the end as at the start, and new carts do
/// not shift the pages.
#[utoipa::path(
    get, path = "/carts", operation_id = "listCarts", tag = "Carts",
    params(
        ("status" = Option<CartStatus>, Query, description = "Only with this status."),
        ("email" = inline(Option<EmailToFind>), Query, description = "Only of the shopper with this address, in any spelling."),
        Page,
        ("cursor" = Option<String>, Query, pattern = "^-?[0-9]{1,16}-[A-Za-z0-9_-]{1,200}$", description = "The `nextCursor` of the page before; `page` does not count then."),
    ),
    responses((status = 200, description = "A page", body = Success<CartList>)),
)]
async fn list(State(state): State<AppState>, parameters: Parameters) -> Result<Rendered, ApiError> {
    let status = parameters.parse("status", "abandoned, recovered or expired", |text| text.parse().ok())?;
    let page = Page::of(&parameters)?;
    let cursor = parameters.parse("cursor", "a pagination.nextCursor of this list", |text| text.parse().ok())?;
    let email = parameters.parse("email", "an e-mail address", |text| text.parse().ok())?;
    let start = cursor.map_or(Start::Offset(page.offset()), Start::After);
    let body = match (email, &start) {
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
    };
    Ok(Rendered(body))
}

/// Changes a cart's status
///
/// `abandoned` and `expired` may become each other or `recovered`; `recovered` is final. A reopened
/// cart keeps its `abandonedAt`: request a new link, or the next expiry run expires the cart again.
/// A key without the scope `read` gets a `CartReceipt`, without an `ETag`.
#[utoipa::path(
    patch, path = "/carts/{id}", operation_id = "changeCart", tag = "Carts",
    params(
        ("id" = String, Path, pattern = "^cart_[A-Za-z0-9_-]{1,100}$", description = "Which cart."),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of what you have: if the cart is not that any more, nothing is changed."),
    ),
    request_body = CartChange,
    responses(
        (status = 200, description = "The cart as it is now", body = Success<ChangedCart>, headers(("ETag" = String, description = "Of this representation; strong."))),
        (status = 409, description = "`CONFLICT`: the cart is recovered", body = openapi::Error),
        (status = 412, description = "`PRECONDITION_FAILED`: the cart has changed", body = openapi::Error),
    ),
)]
async fn change(
    State(state): State<AppState>,
    granted: Granted,
    CartPath(id): CartPath,
    precondition: IfMatch,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let CartChange { status, recovered_at } = CartChange::parse(&body, state.clock.now())?;
    let cart = change_status(&state, &id, &precondition, status, recovered_at).await?;
    Ok(receipt::changed(&granted, &cart))
}

/// Body of `PATCH /api/carts/{id}`.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase", example = json!({"status": "recovered"}))]
struct CartChange {
    /// `recovered` is final.
    status: CartStatus,
    /// Allowed with the status recovered only; not in the future, not before `abandonedAt`. The
    /// default is now.
    recovered_at: Option<DateTime<Utc>>,
}

impl CartChange {
    fn parse(body: &RawValue, now: DateTime<Utc>) -> Result<Self, ApiError> {
        let Some(fields) = &Fields::of(body) else { return Err(ApiError::invalid("", "must be an object")) };
        let status: Option<CartStatus> = fields.text("status").and_then(|text| text.parse().ok());
        let status = status.ok_or_else(|| ApiError::invalid("status", "must be abandoned, recovered or expired"))?;
        let mut errors = Vec::new();
        let recovered_at = past_instant(fields, "recoveredAt", now, &mut errors);
        if !errors.is_empty() {
            return Err(ApiError::validation(errors));
        }
        if recovered_at.is_some() && status != CartStatus::Recovered {
            return Err(ApiError::invalid("recoveredAt", "can only be given with the status recovered"));
        }
        Ok(Self { status, recovered_at })
    }
}

/// Changes the cart's status; returns the cart after the change.
pub(crate) async fn change_status(
    state: &AppState,
    id: &CartId,
    precondition: &IfMatch,
    wanted: CartStatus,
    recovered_at: Option<DateTime<Utc>>,
) -> Result<Cart, ApiError> {
    let now = state.clock.now();
    let Locked { permit: _permit, mut tx, cart } = lock::lock(&state.cart_locks, &state.lookups, id).await?;
    check_precondition(&mut tx, id, precondition, now).await?;
    match (cart.status, wanted) {
        (from, to) if from == to => {}
        (CartStatus::Recovered, _) => return Err(ApiError::conflict("The cart is recovered, which is final")),
        (_, CartStatus::Recovered) => {
            let recovered_at = recovery_time(recovered_at, &cart, now)?;
            carts::recover(&mut tx, id, RecoveredBy::Operator, recovered_at, now).await?;
        }
        (_, CartStatus::Expired) => {
            carts::expire(&mut tx, id, now).await?;
        }
        (_, CartStatus::Abandoned) => {
            carts::reopen(&mut tx, id, now).await?;
        }
    }
    let cart = carts::find(&mut tx, id, now).await?.ok_or_else(ApiError::cart_not_found)?;
    tx.commit().await?;
    Ok(cart)
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

fn recovery_time(
    given: Option<DateTime<Utc>>,
    cart: &LockedCart,
    now: DateTime<Utc>,
) -> Result<DateTime<Utc>, ApiError> {
    match given {
        Some(given) if given < cart.abandoned_at => {
            Err(ApiError::invalid("recoveredAt", "must not be before the cart's abandonedAt"))
        }
        given => Ok(given.unwrap_or(now)),
    }
}

/// `data` of the response to `DELETE /api/carts/{id}`.
#[derive(Serialize, ToSchema)]
struct DeletedCart {
    #[schema(example = "cart_01m84zjdhtftc9p973qfnt3nn0")]
    id: String,
    #[schema(schema_with = crate::http::schema::only_true)]
    deleted: bool,
}

/// Deletes a cart and the shopper's data
///
/// This can't be undone. An open payment session is closed at Stripe.
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
