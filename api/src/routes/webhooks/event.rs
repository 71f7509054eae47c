//! Reads the few fields of an event that matter, of any API version. Other fields are
//! skipped, and a field of an unexpected type counts as absent.

use chrono::{DateTime, Datelike, Utc};
use common::{
    carts::CartId,
    payment_links::Reported,
    stripe_events::{StripeEvent, StripeObject},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::http::error::ApiError;

/// The JSON text of a field, to be parsed as the type that is expected.
type Raw<'a> = Option<&'a RawValue>;

/// An event from Stripe, of any type and API version. Only a few fields are read.
#[derive(Deserialize, ToSchema)]
#[schema(as = StripeEvent, example = json!({"id": "evt_1", "type": "checkout.session.completed", "created": 1_764_000_000,
    "data": {"object": {"id": "cs_test_1", "object": "checkout.session", "mode": "payment",
    "status": "complete", "payment_status": "paid", "amount_total": 9998, "currency": "usd", "livemode": false,
    "payment_intent": "pi_1", "metadata": {"cart_id": "cart_01m84zjdhtftc9p973qfnt3nn0", "link_version": "1"}}}}))]
pub(super) struct Event<'a> {
    #[serde(borrow)]
    #[schema(value_type = String, max_length = 255, pattern = r"^[^\u0000]*$")]
    id: Raw<'a>,
    #[serde(borrow, rename = "type")]
    #[schema(value_type = String, max_length = 255, pattern = r"^[^\u0000]*$")]
    kind: Raw<'a>,
    /// Unix time in seconds.
    #[serde(borrow)]
    #[schema(value_type = Option<i64>, nullable = false)]
    created: Raw<'a>,
    #[serde(borrow)]
    #[schema(ignore)]
    livemode: Raw<'a>,
    #[serde(borrow)]
    #[schema(ignore)]
    account: Raw<'a>,
    #[serde(borrow)]
    #[schema(value_type = Object)]
    data: Raw<'a>,
}

/// The fields read from an event's data, the object in it and the object's metadata.
#[derive(Default, Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    id: Raw<'a>,
    #[serde(borrow)]
    livemode: Raw<'a>,
    #[serde(borrow)]
    object: Raw<'a>,
    #[serde(borrow)]
    mode: Raw<'a>,
    #[serde(borrow)]
    status: Raw<'a>,
    #[serde(borrow)]
    payment_status: Raw<'a>,
    #[serde(borrow)]
    amount_total: Raw<'a>,
    #[serde(borrow)]
    amount_subtotal: Raw<'a>,
    #[serde(borrow)]
    amount_received: Raw<'a>,
    #[serde(borrow)]
    amount_refunded: Raw<'a>,
    #[serde(borrow)]
    amount: Raw<'a>,
    #[serde(borrow)]
    currency: Raw<'a>,
    #[serde(borrow)]
    payment_intent: Raw<'a>,
    #[serde(borrow)]
    client_reference_id: Raw<'a>,
    #[serde(borrow)]
    metadata: Raw<'a>,
    #[serde(borrow)]
    cart_id: Raw<'a>,
    #[serde(borrow)]
    link_version: Raw<'a>,
}

/// Reads an event.
///
/// # Errors
/// 400 if the body is not a JSON object, or has no id or type.
pub(super) fn read(payload: &str, now: DateTime<Utc>) -> Result<StripeEvent, ApiError> {
    // serde would read an array into the struct, field by field.
    if !payload.trim_start().starts_with('{') {
        return Err(ApiError::bad_request("The body is not a JSON object"));
    }
    let event: Event<'_> =
        serde_json::from_str(payload).map_err(|_| ApiError::bad_request("The body is not well-formed JSON"))?;
    let id = text(event.id).ok_or_else(|| ApiError::bad_request("The event has no id"))?;
    let kind = text(event.kind).ok_or_else(|| ApiError::bad_request("The event has no type"))?;
    // chrono supports years that Postgres does not.
    let created_at = read_as::<i64>(event.created)
        .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
        .filter(|at| (1..=9999).contains(&at.year()));
    let object = structure(structure(event.data).object);
    Ok(StripeEvent {
        id,
        kind,
        created_at: created_at.unwrap_or(now),
        is_of_other_account: event.account.is_some(),
        object: read_object(&object, event.livemode),
    })
}

fn read_object(object: &Fields<'_>, of_event: Raw<'_>) -> StripeObject {
    let metadata = structure(object.metadata);
    let kind = text(object.object);
    let amount = match kind.as_deref() {
        Some("checkout.session") => object.amount_total,
        Some("payment_intent") => object.amount_received,
        Some("charge") => object.amount_refunded,
        Some("refund" | "dispute") => object.amount,
        _ => None,
    };
    // If both are present, they must be equal.
    let livemode = match (of_event, object.livemode) {
        (Some(of_event), Some(of_object)) => {
            read_as(Some(of_event)).filter(|live| read_as(Some(of_object)) == Some(*live))
        }
        (one, other) => read_as(one.or(other)),
    };
    StripeObject {
        object: kind,
        id: text(object.id),
        // Only a missing status is `None`. A status that is not a string becomes empty, which
        // matches nothing.
        status: object.status.map(|status| text(Some(status)).unwrap_or_default()),
        payment_intent: text(object.payment_intent),
        reported: Reported {
            mode: text(object.mode),
            payment_status: text(object.payment_status),
            amount: read_as(amount),
            subtotal: read_as(object.amount_subtotal),
            currency: text(object.currency),
            livemode,
        },
        // Other tools on the account may store anything here, even an e-mail address, so only cart
        // ids are kept.
        cart_id: cart_id(metadata.cart_id),
        link_version: text(metadata.link_version).and_then(|version| version.parse().ok()),
        reference: cart_id(object.client_reference_id),
    }
}

fn read_as<'a, T: Deserialize<'a>>(raw: Raw<'a>) -> Option<T> {
    serde_json::from_str(raw?.get()).ok()
}

/// The fields of a JSON object; none for anything else.
fn structure(raw: Raw<'_>) -> Fields<'_> {
    read_as(raw.filter(|raw| raw.get().starts_with('{'))).unwrap_or_default()
}

/// A string of at most 255 bytes that Postgres can store.
fn text(raw: Raw<'_>) -> Option<String> {
    read_as::<String>(raw).filter(|text| text.len() <= 255 && !text.contains('\0'))
}

fn cart_id(raw: Raw<'_>) -> Option<CartId> {
    text(raw)?.parse().ok()
}
