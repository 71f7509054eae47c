//! `PATCH /api/carts/{id}`: changes a cart's contents and its status.

use axum::{extract::State, response::Response};
use chrono::{DateTime, Utc};
use common::{
    audit::{self, Action, KeyName},
    carts::{
        self, Cart, CartId, CartStatus, LockedCart, RecoveredBy,
        change::Change,
        new::{FieldError, NewCart, past_instant},
    },
    db::Connection,
    json::Fields,
    payment_links::{self, Refusal},
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use super::{
    CartPath, check_precondition,
    lock::{self, Locked},
    receipt::{self, ChangedCart},
};
use crate::{
    auth::keys::Granted,
    http::{
        body::{JsonBody, Success},
        error::ApiError,
        etag::IfMatch,
    },
    openapi,
    state::AppState,
};

const NOTHING_TO_CHANGE: &str = "must name a field to change: status, externalId, customerEmail, customerName, items, \
    adjustments, currency, locale, acceptsMarketing or metadata";

/// Update a cart
///
/// Absent fields stay as they are; `null` clears an optional one. Items, adjustments and metadata
/// are replaced as a whole. Items, adjustments and currency change only while the cart is abandoned
/// or expired and no payment is in progress. An open payment session that no longer fits is closed;
/// the next link charges the new total, and `recoveryUrl` stays the same.
///
/// `status`: `abandoned` and `expired` may become each other or `recovered`; `recovered` is final. A
/// reopened cart keeps its `abandonedAt`: request a new link, or the next expiry run expires the
/// cart again.
///
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
        (status = 409, description = "`CONFLICT`: the cart is recovered, a payment is in progress, or another cart has the `externalId`", body = openapi::Error),
        (status = 412, description = "`PRECONDITION_FAILED`: the cart has changed", body = openapi::Error),
    ),
)]
pub(super) async fn change(
    State(state): State<AppState>,
    granted: Granted,
    CartPath(id): CartPath,
    precondition: IfMatch,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let Some(fields) = Fields::of(&body) else { return Err(ApiError::invalid("", "must be an object")) };
    let wanted = ChangeRequest::parse(&fields, granted.may_read(), state.clock.now())?;
    let change = || apply(&state, &id, &precondition, &wanted, &granted.name);
    let cart = match fields.text("externalId") {
        Some(external_id) => lock::with_external_id(&state.cart_locks, &external_id, change).await?,
        None => change().await?,
    };
    Ok(receipt::changed(&granted, &cart))
}

/// Body of `PATCH /api/carts/{id}`: at least one of the fields. The schema is that of a new cart,
/// with nothing required.
struct CartChange;

/// The fields of the status.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "this is described, never made")]
struct StatusChange {
    /// `recovered` is final.
    status: Option<CartStatus>,
    /// Allowed with the status recovered only; not in the future, not before `abandonedAt`. The
    /// default is now.
    recovered_at: Option<DateTime<Utc>>,
}

impl PartialSchema for CartChange {
    fn schema() -> RefOr<Schema> {
        let (mut new, status) = (NewCart::schema(), StatusChange::schema());
        if let (RefOr::T(Schema::Object(new)), RefOr::T(Schema::Object(status))) = (&mut new, status) {
            new.required.clear();
            new.properties.shift_remove("abandonedAt");
            new.properties.extend(status.properties);
            new.description = Some("Body of `PATCH /api/carts/{id}`: at least one field.".to_owned());
            new.examples = vec![serde_json::json!({"status": "recovered"})];
            new.example = None;
        }
        new
    }
}

impl ToSchema for CartChange {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        NewCart::schemas(schemas);
        StatusChange::schemas(schemas);
    }
}

/// A requested change of a cart. The contents are validated later, with the stored fields.
pub(crate) struct ChangeRequest<'a> {
    status: Option<CartStatus>,
    recovered_at: Option<DateTime<Utc>>,
    /// The body, if it changes the cart's contents.
    contents: Option<&'a Fields<'a>>,
    /// Whether errors may be about stored fields.
    may_read: bool,
    /// The errors of the other fields.
    errors: Vec<FieldError>,
}

impl<'a> ChangeRequest<'a> {
    /// A change of the status alone.
    pub(crate) fn status(status: CartStatus) -> Self {
        Self { status: Some(status), recovered_at: None, contents: None, may_read: true, errors: Vec::new() }
    }

    /// Errors beside a change of contents are reported with those of the contents.
    fn parse(fields: &'a Fields<'a>, may_read: bool, now: DateTime<Utc>) -> Result<Self, ApiError> {
        let mut errors = Change::forbidden(fields);
        let contents = Change::names_contents(fields).then_some(fields);
        let status: Option<CartStatus> = fields.text("status").and_then(|text| text.parse().ok());
        if status.is_none() && fields.get("status").is_some() {
            errors.push(FieldError::new("status", "must be abandoned, recovered or expired"));
        } else if status.is_none() && contents.is_none() && errors.is_empty() {
            errors.push(FieldError::new("", NOTHING_TO_CHANGE));
        }
        let recovered_at = past_instant(fields, "recoveredAt", now, &mut errors);
        if recovered_at.is_some() && status != Some(CartStatus::Recovered) {
            errors.push(FieldError::new("recoveredAt", "can only be given with the status recovered"));
        }
        if contents.is_none() && !errors.is_empty() {
            return Err(ApiError::validation(errors));
        }
        Ok(Self { status, recovered_at, contents, may_read, errors })
    }
}

/// Changes the cart; returns the changed cart.
pub(crate) async fn apply(
    state: &AppState,
    id: &CartId,
    precondition: &IfMatch,
    wanted: &ChangeRequest<'_>,
    key: &KeyName,
) -> Result<Cart, ApiError> {
    let now = state.clock.now();
    let Locked { permit: _permit, mut tx, cart } = lock::lock(&state.cart_locks, &state.lookups, id).await?;
    check_precondition(&mut tx, id, precondition, now).await?;
    if let Some(contents) = wanted.contents {
        if contents.get("externalId").is_some() {
            lock::limit_wait(&mut tx).await?;
        }
        if change_contents(state, &mut tx, id, wanted, contents, key).await? {
            audit::note(&mut tx, key, Action::CartChanged, id.as_str(), now).await?;
        }
    }
    if let Some(status) = wanted.status
        && let Some(action) = change_status(&mut tx, id, &cart, status, wanted.recovered_at, key, now).await?
    {
        audit::note(&mut tx, key, action, id.as_str(), now).await?;
    }
    let cart = carts::find(&mut tx, id, now).await?.ok_or_else(ApiError::cart_not_found)?;
    tx.commit().await?;
    Ok(cart)
}

/// Returns whether anything changed.
async fn change_contents(
    state: &AppState,
    conn: &mut Connection,
    id: &CartId,
    wanted: &ChangeRequest<'_>,
    body: &Fields<'_>,
    key: &KeyName,
) -> Result<bool, ApiError> {
    let now = state.clock.now();
    let stored = carts::find(conn, id, now).await?.ok_or_else(ApiError::cart_not_found)?;
    let change = match Change::patch(&stored, body, state.config.currency, now) {
        Ok(change) if wanted.errors.is_empty() => change,
        refused => {
            let errors = refused.err().unwrap_or_default();
            let errors = if wanted.may_read { errors } else { blind(errors, body) };
            return Err(ApiError::validation([errors, wanted.errors.clone()].concat()));
        }
    };
    // A key that may not read must not find out whether its guess of the lines is right.
    if change.affects_payment() || (!wanted.may_read && Change::names_payment(body)) {
        if stored.status == CartStatus::Recovered {
            return Err(ApiError::conflict("The cart is recovered: its items, adjustments and currency are final"));
        }
        if payment_links::is_processing(conn, id.as_str()).await? {
            return Err(Refusal::PaymentInProgress.into());
        }
    }
    if change.is_empty() {
        return Ok(false);
    }
    change.store(conn, &stored, key, now).await.map_err(|error| {
        let constraint = error.as_database_error().and_then(|error| error.constraint());
        if constraint == Some("carts_external_id") {
            ApiError::conflict("Another cart has this externalId")
        } else {
            error.into()
        }
    })?;
    Ok(true)
}

/// The errors without what they tell of stored fields: sums, and the number of lines. Not even
/// their names, from which the sums could be found out.
fn blind(errors: Vec<FieldError>, body: &Fields<'_>) -> Vec<FieldError> {
    let blind = |error: FieldError| {
        let (name, is_element) = match error.field.split_once('[') {
            Some((name, _)) => (name.to_owned(), true),
            None => (error.field.clone(), false),
        };
        let is_sum = !is_element && ["items", "adjustments", "totalValue"].contains(&name.as_str());
        if body.get(&name).is_some() && !is_sum { error } else { FieldError::new("", "does not fit the cart") }
    };
    let mut errors: Vec<FieldError> = errors.into_iter().map(blind).collect();
    errors.dedup();
    errors
}

/// Returns what was done; `None` if the cart has the status already.
async fn change_status(
    conn: &mut Connection,
    id: &CartId,
    cart: &LockedCart,
    wanted: CartStatus,
    recovered_at: Option<DateTime<Utc>>,
    key: &KeyName,
    now: DateTime<Utc>,
) -> Result<Option<Action>, ApiError> {
    Ok(Some(match (cart.status, wanted) {
        (from, to) if from == to => return Ok(None),
        (CartStatus::Recovered, _) => return Err(ApiError::conflict("The cart is recovered, which is final")),
        (_, CartStatus::Recovered) => {
            let recovered_at = recovery_time(recovered_at, cart, now)?;
            carts::recover(conn, id, RecoveredBy::Manual, recovered_at, Some(key), now).await?;
            Action::CartRecovered
        }
        (_, CartStatus::Expired) => {
            carts::expire(conn, id, key, now).await?;
            Action::CartExpired
        }
        (_, CartStatus::Abandoned) => {
            carts::reopen(conn, id, key, now).await?;
            Action::CartReopened
        }
    }))
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
