//! The cart of the tests: as it is sent, and as it is shown.

use serde_json::{Value, json};

/// Texts that identify the shopper or the items of [`a_cart`]. No random id or token contains one:
/// each has a letter that neither hexadecimal nor TypeIDs have, and is too long to occur in base64
/// by chance.
pub const OF_THE_SHOPPER: [&str; 5] = ["ada@example.com", "ada%40example.com", "Ada Lovelace", "Lovelace", "Teapot"];

/// The number with exactly these digits: `94.90` is not `94.9` here.
///
/// # Panics
/// If `text` is no number.
pub fn exact(text: &str) -> Value {
    serde_json::from_str(text).expect("a number")
}

/// A body for `POST /api/carts`.
pub fn a_cart() -> Value {
    json!({
        "customerEmail": "ada@example.com", "customerName": "Ada Lovelace",
        "items": [{"name": "Teapot", "quantity": 2, "price": 49.99}],
    })
}

/// A line of an import: [`a_cart`] with other or more fields.
///
/// # Panics
/// If `change` is no object.
pub fn a_line(change: Value) -> Value {
    with(a_cart(), change)
}

/// A field of a cart or an item that will never exist.
pub const UNKNOWN_FIELD: &str = "unknownFieldOfATest";

/// [`a_cart`] without `abandonedAt`, as it is shown and exported when it was stored at `now`.
pub fn shown_cart(id: &str, now: &str) -> Value {
    let stored = json!({
        "id": id, "externalId": null, "adjustments": [], "totalValue": 99.98, "currency": "usd", "status": "abandoned",
        "recoveredBy": null, "paidValue": null, "refundedValue": null, "locale": null, "acceptsMarketing": null,
        "metadata": {}, "abandonedAt": now, "recoveredAt": null, "expiredAt": null, "paymentLink": null,
        "paymentLinkExpiresAt": null, "createdAt": now, "updatedAt": now,
    });
    with(a_cart(), stored)
}

fn with(mut cart: Value, fields: Value) -> Value {
    let Value::Object(fields) = fields else { panic!("fields are an object: {fields}") };
    cart.as_object_mut().expect("a cart is an object").extend(fields);
    cart
}
