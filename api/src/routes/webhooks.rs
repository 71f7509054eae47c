//! `/api/webhooks/stripe`: verifies, stores and applies Stripe's events.

pub(crate) mod batch;
mod event;
pub(crate) mod refused;

use axum::{
    body::Bytes,
    extract::{Request, State},
};
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use stripe_webhook::{Webhook, WebhookError};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::carts::lock;
use crate::{
    http::{
        body::{BODY_BYTES, Data, Success},
        error::ApiError,
    },
    openapi,
    state::AppState,
};

pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(receive))
}

/// Maximum length of `stripe-signature`: room for several signatures. Stripe's headers have some
/// hundred bytes.
const SIGNATURE_BYTES: usize = 4096;

/// The response to Stripe.
#[derive(Serialize, ToSchema)]
struct Received {
    #[schema(schema_with = crate::http::schema::only_true)]
    received: bool,
}

/// Receive a Stripe event
///
/// The event's id and its effect are stored in one transaction, so repeats and events out of order
/// change nothing. An event changes a cart only through a Checkout Session that was made for one of
/// its payment links, and only if mode, amount, currency and status match. Refunds and disputes
/// change the cart whose payment has their PaymentIntent; they may arrive before the payment. Any
/// other event returns 200 and is stored without effect; an event that names a cart, or pays for a
/// deleted one, is shown to the operator. Stripe retries any event that is not answered with 200.
#[utoipa::path(
    post, path = "/api/webhooks/stripe", operation_id = "receiveStripeEvent", tag = "Webhooks",
    params(("stripe-signature" = String, Header, description = "`t=…,v1=…`: HMAC-SHA256 with one of `STRIPE_WEBHOOK_SECRET` over the time, a point and the body as it is sent; not older than 300 s.",
        example = "t=1764000000,v1=5257a869e7ecebeda32affa62cdca3fa51cad7e77a0e56ff536d0ce8e108d8bd")),
    request_body(content = event::Event, description = "The event", content_type = "application/json"),
    responses(
        (status = 200, description = "It is stored", body = Success<Received>),
        (status = 400, description = "`BAD_REQUEST`: the signature is missing, does not fit or is too old, or this is no event", body = openapi::Error),
    ),
)]
async fn receive(State(state): State<AppState>, request: Request) -> Result<Data<Received>, ApiError> {
    // Copied, so that the head of the request can be dropped before its body is read.
    let signature = request.headers().get("stripe-signature").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = state.unverified_bodies.read(request, BODY_BYTES).await?;
    let now = state.clock.now();
    let payload = verified(&body, signature.as_deref(), &state.config.webhook_secrets, now)
        .inspect_err(|_| state.refused_webhooks.note(now))?;
    let event = event::read(payload, now)?;
    let (id, kind) = (event.id.clone(), event.kind.clone());
    let effect = lock::apply(&state.cart_locks, &state.events, event).await?;
    tracing::info!(event = id, kind, effect = effect.as_str(), "stripe event");
    Ok(Data(Received { received: true }))
}

/// The body, if one of the secrets has signed it within 300 s.
fn verified<'a>(
    body: &'a Bytes,
    signature: Option<&str>,
    secrets: &[SecretString],
    now: DateTime<Utc>,
) -> Result<&'a str, ApiError> {
    let signature = signature.ok_or_else(|| ApiError::bad_request("The stripe-signature header is missing"))?;
    if signature.len() > SIGNATURE_BYTES {
        let message = format!("The stripe-signature header is longer than {SIGNATURE_BYTES} bytes");
        return Err(ApiError::bad_request(message));
    }
    let payload = std::str::from_utf8(body).map_err(|_| ApiError::bad_request("The body is not UTF-8"))?;
    let signed = secrets.iter().any(|secret| {
        let verdict =
            Webhook::construct_event_with_timestamp(payload, signature, secret.expose_secret(), now.timestamp());
        // The library verifies the signature, then parses the event. It can't parse events of other
        // API versions, but their signature is verified by then.
        matches!(verdict, Ok(_) | Err(WebhookError::BadParse(_)))
    });
    signed.then_some(payload).ok_or_else(|| {
        ApiError::bad_request("The signature does not fit the body and STRIPE_WEBHOOK_SECRET, or is older than 300 s")
    })
}

#[cfg(test)]
mod properties;
