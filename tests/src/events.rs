//! Events of Stripe about sessions of [`a_cart`](crate::a_cart).

use serde_json::{Value, json};

use crate::App;

/// An event with this object, as Stripe sends it.
pub fn event(id: &str, kind: &str, object: &Value) -> Value {
    json!({"id": id, "type": kind, "created": 1_772_000_000, "livemode": false, "data": {"object": object}})
}

/// The completed session of `a_cart()`'s first link, as Stripe sends it.
pub fn session(id: &str, cart: &str, payment_status: &str) -> Value {
    json!({
        "id": id, "object": "checkout.session", "mode": "payment", "status": "complete", "livemode": false,
        "payment_status": payment_status, "amount_total": 9998, "currency": "usd",
        "payment_intent": format!("pi_of_{id}"), "client_reference_id": cart,
        "metadata": {"cart_id": cart, "link_version": "1"},
    })
}

/// The same, once it has expired.
pub fn expired(id: &str, cart: &str) -> Value {
    let mut session = session(id, cart, "unpaid");
    session["status"] = json!("expired");
    session["payment_intent"] = Value::Null;
    session
}

/// The PaymentIntent of that session.
pub fn intent(session: &str, cart: &str) -> Value {
    json!({
        "id": format!("pi_of_{session}"), "object": "payment_intent", "status": "succeeded", "livemode": false,
        "amount": 9998, "amount_received": 9998, "currency": "usd",
        "metadata": {"cart_id": cart, "link_version": "1"},
    })
}

/// The charge of the same payment, of which this much was refunded.
pub fn charge(session: &str, cart: &str, amount_refunded: i64) -> Value {
    json!({
        "id": format!("ch_of_{session}"), "object": "charge", "amount": 9998, "amount_refunded": amount_refunded,
        "currency": "usd", "livemode": false, "payment_intent": format!("pi_of_{session}"), "status": "succeeded",
        "refunded": amount_refunded == 9998, "metadata": {"cart_id": cart, "link_version": "1"},
    })
}

/// A refund of the same payment, which has no mode.
pub fn refund(id: &str, session: &str, amount: i64, status: &str) -> Value {
    json!({
        "id": id, "object": "refund", "amount": amount, "charge": format!("ch_of_{session}"), "currency": "usd",
        "metadata": {}, "payment_intent": format!("pi_of_{session}"), "status": status,
    })
}

/// A dispute about the same payment.
pub fn dispute(id: &str, session: &str, amount: i64, status: &str) -> Value {
    json!({
        "id": id, "object": "dispute", "amount": amount, "charge": format!("ch_of_{session}"), "currency": "usd",
        "livemode": false, "metadata": {}, "payment_intent": format!("pi_of_{session}"), "status": status,
    })
}

/// The event, created this many seconds later than those of [`event`].
pub fn later(mut event: Value, seconds: i64) -> Value {
    event["created"] = json!(event["created"].as_i64().unwrap_or_default() + seconds);
    event
}

/// The effect of an event on carts, as it was stored.
///
/// # Panics
/// If the event was not stored.
pub async fn effect(app: &App, event: &str) -> String {
    sqlx::query_scalar("select effect from stripe_events where id = $1")
        .bind(event)
        .fetch_one(&app.pool)
        .await
        .expect("a stored event")
}
