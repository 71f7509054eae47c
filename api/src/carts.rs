//! `/api/carts`

use std::sync::Arc;

use axum::{
    Router,
    extract::{FromRequestParts, Path, State},
    http::{HeaderMap, StatusCode, request::Parts},
    response::{IntoResponse, Response},
    routing::get,
};
use chrono::{DateTime, Utc};
use common::{
    carts::{self, Cart, CartId, CartStatus, LockedCart, RecoveredBy},
    idempotency::{self, Claim, Fingerprint},
    new_cart::{NewCart, past_instant},
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    AppState,
    body::{self, Data, JsonBody, Rendered},
    cart_batches::{ListQuestion, SearchQuestion},
    error::ApiError,
    pagination::Page,
    query::Parameters,
};

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/carts", get(list).post(create)).route("/carts/{id}", get(show).patch(change).delete(delete))
}

fn parse_id(id: &str) -> Result<CartId, ApiError> {
    id.parse().map_err(|_| ApiError::cart_not_found())
}

/// The cart that a path names. What can't be one is not found.
pub(crate) struct CartPath(pub(crate) CartId);

impl<S: Send + Sync> FromRequestParts<S> for CartPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(id) =
            Path::<String>::from_request_parts(parts, state).await.map_err(|_| ApiError::cart_not_found())?;
        parse_id(&id).map(Self)
    }
}

async fn create(
    State(state): State<AppState>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Rendered), ApiError> {
    let now = state.clock.now();
    let fingerprint = idempotency_key(&headers)?.map(|key| Fingerprint::of(key, &body));
    let cart = NewCart::parse(&body, state.config.currency, now).map_err(ApiError::validation)?;
    let id = CartId::generate();
    let cart = Cart::new(&id, cart, now);
    let answer = match fingerprint {
        None => {
            let cart = Arc::new(cart);
            state.carts.store.ask(cart.clone()).await?;
            body::render(&*cart)
        }
        Some(fingerprint) => body::render(&create_once(&state, &id, cart, &fingerprint).await?),
    };
    Ok((StatusCode::CREATED, Rendered(answer)))
}

/// Stores the cart, unless its key stands for one already.
async fn create_once(state: &AppState, id: &CartId, cart: Cart, fingerprint: &Fingerprint) -> Result<Cart, ApiError> {
    let now = cart.created_at;
    let mut tx = state.by_key.begin().await?;
    let cart = match idempotency::claim(&mut tx, fingerprint, id, now).await? {
        Claim::New => {
            carts::insert(&mut tx, &[&cart]).await?;
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

async fn show(State(state): State<AppState>, CartPath(id): CartPath) -> Result<Rendered, ApiError> {
    let cart = state.carts.find.ask(id).await?.ok_or_else(ApiError::cart_not_found)?;
    Ok(Rendered(body::render(&*cart)))
}

async fn list(State(state): State<AppState>, parameters: Parameters) -> Result<Rendered, ApiError> {
    let status = parameters.parse("status", "abandoned, recovered or expired", |text| text.parse().ok())?;
    let page = Page::of(&parameters)?;
    let cursor = parameters.parse("cursor", "a pagination.nextCursor of this list", |text| text.parse().ok())?;
    let email = parameters.parse("email", "an e-mail address", |text| text.parse().ok())?;
    let list = ListQuestion { status, page, cursor };
    let body = match email {
        Some(email) => state.carts.search.ask(SearchQuestion { email, list }).await,
        None if list.is_deep() => state.carts.deep.ask(list).await,
        None => state.carts.list.ask(list).await,
    };
    Ok(Rendered(body?))
}

pub(crate) async fn change(
    State(state): State<AppState>,
    CartPath(id): CartPath,
    JsonBody(body): JsonBody,
) -> Result<Data<Cart>, ApiError> {
    let now = state.clock.now();
    let Some(fields) = body.as_object() else { return Err(ApiError::invalid("", "must be an object")) };
    let wanted: CartStatus = match fields.get("status") {
        Some(Value::String(text)) => text.parse().ok(),
        _ => None,
    }
    .ok_or_else(|| ApiError::invalid("status", "must be abandoned, recovered or expired"))?;
    let mut errors = Vec::new();
    let recovered_at = past_instant(fields, "recoveredAt", now, &mut errors);
    if !errors.is_empty() {
        return Err(ApiError::validation(errors));
    }
    if recovered_at.is_some() && wanted != CartStatus::Recovered {
        return Err(ApiError::invalid("recoveredAt", "can only be given with the status recovered"));
    }

    let mut tx = state.by_key.begin().await?;
    let cart = carts::lock(&mut tx, &id).await?.ok_or_else(ApiError::cart_not_found)?;
    match (cart.status, wanted) {
        (from, to) if from == to => {}
        (CartStatus::Recovered, _) => return Err(ApiError::conflict("The cart is recovered, which is final")),
        (_, CartStatus::Recovered) => {
            let recovered_at = recovery_time(recovered_at, &cart, now)?;
            carts::recover(&mut tx, &id, RecoveredBy::Operator, recovered_at, now).await?;
        }
        (_, CartStatus::Expired) => {
            carts::expire(&mut tx, &id, now).await?;
        }
        (_, CartStatus::Abandoned) => {
            carts::reopen(&mut tx, &id, now).await?;
        }
    }
    let cart = carts::find(&mut tx, &id, now).await?.ok_or_else(ApiError::cart_not_found)?;
    tx.commit().await?;
    Ok(Data(cart))
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

#[derive(Serialize)]
struct Deleted {
    id: String,
    deleted: bool,
}

pub(crate) async fn delete(State(state): State<AppState>, CartPath(id): CartPath) -> Result<Response, ApiError> {
    let mut tx = state.by_key.begin().await?;
    if !carts::delete(&mut tx, &id, state.clock.now()).await? {
        return Err(ApiError::cart_not_found());
    }
    tx.commit().await?;
    Ok(Data(Deleted { id: id.to_string(), deleted: true }).into_response())
}
