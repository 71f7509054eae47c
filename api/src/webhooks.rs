//! `/api/webhooks/stripe`

use axum::{
    body::Bytes,
    extract::{Request, State},
};
use chrono::{DateTime, Datelike, Utc};
use common::{
    batches::Batch,
    carts::CartId,
    clock::Clock,
    db::Connection,
    stripe_events::{self, Effect, StripeEvent},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::Value;
use stripe_webhook::{Webhook, WebhookError};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    AppState, BODY_BYTES,
    body::Data,
    error::ApiError,
    openapi::{self, Success},
};

pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(receive))
}

/// Events that come at the same time, in one transaction.
#[derive(Debug)]
pub(crate) struct ApplyEvents {
    pub(crate) clock: Clock,
}

impl Batch for ApplyEvents {
    type Question = StripeEvent;
    type Answer = Effect;
    const LANES: usize = 2;
    const MOST: usize = 100;
    const ENOUGH: usize = 16;
    const TRANSACTION: bool = true;

    async fn answer(&self, conn: &mut Connection, events: &[StripeEvent]) -> sqlx::Result<Vec<Effect>> {
        // A cart that somebody holds on to must not keep the others waiting: then
        // each event goes by itself, and Stripe repeats the one that can't.
        sqlx::query("select set_config('lock_timeout', '2s', true)").execute(&mut *conn).await?;
        stripe_events::apply(conn, events, self.clock.now()).await
    }
}

/// Room for a signature by each of several secrets; Stripe's have some hundred bytes.
const SIGNATURE_BYTES: usize = 4096;

/// What Stripe is told.
#[derive(Serialize, ToSchema)]
struct Received {
    #[schema(schema_with = openapi::only_true)]
    received: bool,
}

/// Takes an event from Stripe
///
/// The event's id and its effect are stored in one transaction: repeats and events out of order change nothing.
/// Unknown kinds, and events of other carts, are answered 200 and kept. What is not 200 Stripe sends again.
#[utoipa::path(
    post, path = "/api/webhooks/stripe", operation_id = "receiveStripeEvent", tag = "Webhooks",
    params(("stripe-signature" = String, Header, description = "`t=…,v1=…`: HMAC-SHA256 with one of `STRIPE_WEBHOOK_SECRET` over the time, a point and the body as it is sent; not older than 300 s.",
        example = "t=1764000000,v1=5257a869e7ecebeda32affa62cdca3fa51cad7e77a0e56ff536d0ce8e108d8bd")),
    request_body(content = openapi::StripeEvent, description = "The event", content_type = "application/json"),
    responses(
        (status = 200, description = "It is stored", body = Success<Received>),
        (status = 400, description = "`BAD_REQUEST`: the signature is missing, does not fit or is too old, or this is no event", body = openapi::Error),
    ),
)]
async fn receive(State(state): State<AppState>, request: Request) -> Result<Data<Received>, ApiError> {
    // Copied, so that no more of the head is held while the body is waited for.
    let signature = request.headers().get("stripe-signature").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = state.unverified_bodies.read(request, BODY_BYTES).await?;
    let now = state.clock.now();
    let payload = verified(&body, signature.as_deref(), &state.config.webhook_secrets, now)
        .inspect_err(|_| state.refused_webhooks.note(now))?;
    let event = read_event(payload, now)?;
    let (id, kind) = (event.id.clone(), event.kind.clone());
    let effect = state.events.ask(event).await?;
    tracing::info!(event = id, kind, effect = effect.as_str(), "stripe event");
    Ok(Data(Received { received: true }))
}

/// The body, once one of the secrets has signed it within 300 s.
fn verified<'a>(
    body: &'a Bytes,
    signature: Option<&str>,
    secrets: &[SecretString],
    now: DateTime<Utc>,
) -> Result<&'a str, ApiError> {
    let signature = signature.filter(|signature| signature.len() <= SIGNATURE_BYTES);
    let signature = signature.ok_or_else(|| ApiError::bad_request("The stripe-signature header is missing"))?;
    let payload = std::str::from_utf8(body).map_err(|_| ApiError::bad_request("The body is not UTF-8"))?;
    let signed = secrets.iter().any(|secret| {
        let verdict =
            Webhook::construct_event_with_timestamp(payload, signature, secret.expose_secret(), now.timestamp());
        // The library verifies, then parses what it knows. Events of other API
        // versions it can't parse, but by then the signature has proved good.
        matches!(verdict, Ok(_) | Err(WebhookError::BadParse(_)))
    });
    signed.then_some(payload).ok_or_else(|| {
        ApiError::bad_request("The signature does not fit the body and STRIPE_WEBHOOK_SECRET, or is older than 300 s")
    })
}

/// Reads the few fields that matter, so that events of any API version are understood.
fn read_event(payload: &str, now: DateTime<Utc>) -> Result<StripeEvent, ApiError> {
    let event: Value =
        serde_json::from_str(payload).map_err(|_| ApiError::bad_request("The body is not well-formed JSON"))?;
    let text =
        |value: &Value| value.as_str().filter(|text| text.len() <= 255 && !text.contains('\0')).map(str::to_owned);
    let id = text(&event["id"]).ok_or_else(|| ApiError::bad_request("The event has no id"))?;
    let kind = text(&event["type"]).ok_or_else(|| ApiError::bad_request("The event has no type"))?;
    // chrono knows years that Postgres does not.
    let created_at = event["created"]
        .as_i64()
        .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
        .filter(|at| (1..=9999).contains(&at.year()));
    let object = &event["data"]["object"];
    let metadata = &object["metadata"];
    Ok(StripeEvent {
        id,
        kind,
        created_at: created_at.unwrap_or(now),
        object_id: text(&object["id"]),
        // Other shops' tools put what they like there, an address perhaps: only a cart's id is kept.
        cart_id: cart_id(&object["client_reference_id"]).or_else(|| cart_id(&metadata["cart_id"])),
        link_version: metadata["link_version"].as_str().and_then(|version| version.parse().ok()),
        // Versions before 2020 had no payment_status, and completed meant paid.
        paid: object["payment_status"].as_str() != Some("unpaid"),
    })
}

fn cart_id(value: &Value) -> Option<CartId> {
    value.as_str()?.parse().ok()
}

#[cfg(test)]
mod properties;
