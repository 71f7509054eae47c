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
