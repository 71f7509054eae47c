//! `POST /api/carts`: stores a cart, or changes the one with the same external id.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, StatusCode, header},
};
use chrono::{DateTime, Utc};
use common::{
    audit::{self, Action, KeyName},
    carts::{
        self, Cart, CartId, CartStatus, Source,
        change::Change,
        new::{NewCart, ParsedCart},
    },
    db::Connection,
    idempotency::{self, Claim, Fingerprint},
    payment_links::{self, Refusal},
};

use super::{
    lock::{self, Locked},
    parse_id,
    receipt::{self, ChangedCart},
};
use crate::{
    auth::keys::Granted,
    http::{
        base_path::at,
        body::{JsonBody, Rendered, Success},
        error::ApiError,
    },
    openapi,
    state::AppState,
};

/// How often a cart is inserted again after the owner of its external id disappeared.
const MAX_ATTEMPTS: usize = 10;

/// Create a cart
///
/// Or update the one with the same `externalId`. The server computes `totalValue`: the sum of the
/// lines and adjustments. Money is exact.
///
/// If a cart has the `externalId` already, that cart takes everything the body says and stays or
/// becomes abandoned; `abandonedAt` becomes the body's, or now if anything changed. The same body
/// again changes nothing. An open payment session whose amount no longer fits is closed.
///
/// A key without the scope `read` gets a `CartReceipt`.
#[utoipa::path(
    post, path = "/carts", operation_id = "createCart", tag = "Carts",
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[ -~]+$", example = "order-1001",
        description = "Makes creation safe to repeat for 24 hours with the same API key: the same key and body return the same cart, as it is now; another body returns 422.")),
    request_body = NewCart,
    responses(
        (status = 201, description = "The cart was stored", body = Success<ChangedCart>, headers(("Location" = String, description = "The cart's path."))),
        (status = 200, description = "The cart with this `externalId`, as it is now", body = Success<ChangedCart>, headers(("Location" = String, description = "The cart's path."))),
        (status = 404, description = "`NOT_FOUND`: the cart of this `Idempotency-Key` was deleted", body = openapi::Error),
        (status = 409, description = "`CONFLICT`: the cart with this `externalId` is recovered, or its payment is in progress", body = openapi::Error),
    ),
)]
pub(super) async fn create(
    State(state): State<AppState>,
    granted: Granted,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, [(HeaderName, String); 1], Rendered), ApiError> {
    let now = state.clock.now();
    let fingerprint = idempotency_key(&headers)?.map(|key| Fingerprint::of(&granted.key, key, &body));
    let new = ParsedCart::parse(&body, state.config.currency, now).map_err(ApiError::validation)?;
    let (status, cart) = if fingerprint.is_none() && new.cart.external_id.is_none() {
        let cart = Arc::new(new.cart);
        state.carts.store.run((cart.clone(), granted.name.clone())).await?;
        (StatusCode::CREATED, cart)
    } else {
        let store = || store_once(&state, &new, &granted.name, fingerprint.as_ref(), now);
        let (status, cart) = match &new.cart.external_id {
            Some(external_id) => lock::with_external_id(&state.cart_locks, external_id, store).await?,
            None => store().await?,
        };
        (status, Arc::new(cart))
    };
    let location = at(&format!("/api/carts/{}", cart.id));
    Ok((status, [(header::LOCATION, location)], Rendered(receipt::render(&granted, &cart))))
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

/// Stores a cart that may exist: by its idempotency key, or by its external id.
async fn store_once(
    state: &AppState,
    new: &ParsedCart,
    key: &KeyName,
    fingerprint: Option<&Fingerprint>,
    now: DateTime<Utc>,
) -> Result<(StatusCode, Cart), ApiError> {
    let cart = &new.cart;
    for _ in 0..MAX_ATTEMPTS {
        let mut tx = state.lookups.begin().await?;
        if cart.external_id.is_some() {
            lock::limit_wait(&mut tx).await?;
        }
        if let Some(known) = claim(&mut tx, fingerprint, &cart.id, now).await? {
            return Ok(known);
        }
        if carts::insert(&mut tx, &[cart], &[key.as_str()], Source::Api).await? == 1 {
            tx.commit().await?;
            return Ok((StatusCode::CREATED, cart.clone()));
        }
        let owner = match &cart.external_id {
            Some(external_id) => carts::search::find_external(&mut tx, external_id).await?,
            None => None,
        };
        tx.rollback().await?;
        // The owner was deleted, or got another external id, since the insert was refused: insert
        // again.
        let Some(owner) = owner else { continue };
        if let Some(known) = send_again(state, &parse_id(&owner)?, new, key, fingerprint, now).await? {
            return Ok(known);
        }
    }
    Err(ApiError::locked())
}

/// Claims the idempotency key, if there is one, for the cart `id`. Returns the cart that the key
/// belongs to already, with the status of the first response.
async fn claim(
    conn: &mut Connection,
    fingerprint: Option<&Fingerprint>,
    id: &str,
    now: DateTime<Utc>,
) -> Result<Option<(StatusCode, Cart)>, ApiError> {
    let Some(fingerprint) = fingerprint else { return Ok(None) };
    match idempotency::claim(conn, fingerprint, id, now).await? {
        Claim::New => Ok(None),
        Claim::Same { cart_id, claimed_at } => {
            let cart = carts::find(conn, &parse_id(&cart_id)?, now).await?.ok_or_else(ApiError::cart_not_found)?;
            // A key that is as old as its cart created it.
            let status = if cart.created_at == claimed_at { StatusCode::CREATED } else { StatusCode::OK };
            Ok(Some((status, cart)))
        }
        Claim::Different => {
            Err(ApiError::invalid("Idempotency-Key", "was used with another body within the last 24 hours"))
        }
    }
}

/// Changes the cart that has the external id of `new`. `None` if it does not have it any more.
async fn send_again(
    state: &AppState,
    id: &CartId,
    new: &ParsedCart,
    key: &KeyName,
    fingerprint: Option<&Fingerprint>,
    now: DateTime<Utc>,
) -> Result<Option<(StatusCode, Cart)>, ApiError> {
    let Locked { permit: _permit, mut tx, .. } = match lock::lock(&state.cart_locks, &state.lookups, id).await {
        Err(error) if error.is_not_found() => return Ok(None),
        locked => locked?,
    };
    if let Some(known) = claim(&mut tx, fingerprint, id.as_str(), now).await? {
        return Ok(Some(known));
    }
    let Some(stored) = carts::find(&mut tx, id, now).await? else { return Ok(None) };
    if stored.external_id != new.cart.external_id {
        return Ok(None);
    }
    if stored.status == CartStatus::Recovered {
        return Err(ApiError::conflict("The cart with this externalId is recovered, which is final"));
    }
    if payment_links::is_processing(&mut tx, id.as_str()).await? {
        return Err(Refusal::PaymentInProgress.into());
    }
    let change = Change::between(&stored, new.cart.clone());
    let abandoned_at = new.abandoned_at.filter(|at| *at != stored.abandoned_at);
    if change.is_empty() && stored.status == CartStatus::Abandoned && abandoned_at.is_none() {
        tx.commit().await?;
        return Ok(Some((StatusCode::OK, stored)));
    }
    if !change.is_empty() {
        change.store(&mut tx, &stored, key, now).await?;
    }
    carts::abandon_again(&mut tx, &stored.id, new.abandoned_at.unwrap_or(now), key, now).await?;
    let is_reopened = stored.status == CartStatus::Expired;
    if !change.is_empty() || !is_reopened {
        audit::note(&mut tx, key, Action::CartChanged, &stored.id, now).await?;
    }
    if is_reopened {
        audit::note(&mut tx, key, Action::CartReopened, &stored.id, now).await?;
    }
    let cart = carts::find(&mut tx, id, now).await?;
    tx.commit().await?;
    Ok(cart.map(|cart| (StatusCode::OK, cart)))
}
