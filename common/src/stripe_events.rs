//! Stripe's events: each once, whatever the order, effect and record in one transaction.

use chrono::{DateTime, Utc};

use crate::{
    carts::{self, CartId},
    db::Connection,
    payment_links,
};

/// What an event says that matters here.
#[derive(Debug, Clone)]
pub struct StripeEvent {
    /// `evt_…`
    pub id: String,
    /// `checkout.session.completed` and so on.
    pub kind: String,
    /// When it happened, says Stripe.
    pub created_at: DateTime<Utc>,
    /// `cs_…` or `pi_…`
    pub object_id: Option<String>,
    /// The cart that the object names.
    pub cart_id: Option<CartId>,
    /// The request for a link that it names.
    pub link_version: Option<i32>,
    /// Whether the session's money is there.
    pub paid: bool,
}

/// What an event did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The cart is recovered now.
    Recovered,
    /// The cart was recovered before.
    AlreadyRecovered,
    /// A payment is under way.
    Processing,
    /// A payment failed; the cart can have a new link.
    PaymentFailed,
    /// The session closed.
    Closed,
    /// It names no cart that is known.
    UnknownCart,
    /// Nothing.
    None,
    /// This very event came before.
    Repeated,
}

impl Effect {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recovered => "recovered",
            Self::AlreadyRecovered => "already_recovered",
            Self::Processing => "processing",
            Self::PaymentFailed => "payment_failed",
            Self::Closed => "closed",
            Self::UnknownCart => "unknown_cart",
            Self::None => "none",
            Self::Repeated => "repeated",
        }
    }
}

/// Stores the event and does what it means; both or neither. The caller's transaction decides.
pub async fn apply(conn: &mut Connection, event: &StripeEvent, now: DateTime<Utc>) -> sqlx::Result<Effect> {
    let new = sqlx::query!(
        r#"
        insert into stripe_events (id, kind, object_id, created_at, received_at, effect) values ($1, $2, $3, $4, $5, 'none')
        on conflict (id) do nothing
        "#,
        event.id,
        event.kind,
        event.object_id,
        event.created_at,
        now,
    )
    .execute(&mut *conn)
    .await?
    .rows_affected()
        == 1;
    if !new {
        return Ok(Effect::Repeated);
    }
    let (cart_id, version) = subject(conn, event).await?;
    let effect = take_effect(conn, event, cart_id.as_ref(), version, now).await?;
    sqlx::query!(
        "update stripe_events set cart_id = $2, effect = $3 where id = $1",
        event.id,
        cart_id.as_ref().map(CartId::as_str),
        effect.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(effect)
}

/// What the event is about: what it names itself, or what we know of its session.
async fn subject(conn: &mut Connection, event: &StripeEvent) -> sqlx::Result<(Option<CartId>, Option<i32>)> {
    if event.cart_id.is_some() && event.link_version.is_some() {
        return Ok((event.cart_id.clone(), event.link_version));
    }
    let known = match &event.object_id {
        Some(session_id) => payment_links::of_session(conn, session_id).await?,
        None => None,
    };
    Ok(match known {
        Some((cart_id, version)) => (cart_id.parse().ok(), Some(version)),
        None => (event.cart_id.clone(), event.link_version),
    })
}

async fn take_effect(
    conn: &mut Connection,
    event: &StripeEvent,
    cart: Option<&CartId>,
    version: Option<i32>,
    now: DateTime<Utc>,
) -> sqlx::Result<Effect> {
    // Without a version there is no such request, and nothing matches.
    let version = version.unwrap_or(0);
    match event.kind.as_str() {
        "checkout.session.completed" if !event.paid => {
            let Some(cart) = cart else { return Ok(Effect::UnknownCart) };
            let changed = payment_links::processing(conn, cart.as_str(), version, now).await?;
            Ok(if changed { Effect::Processing } else { Effect::None })
        }
        "checkout.session.completed" | "checkout.session.async_payment_succeeded" | "payment_intent.succeeded" => {
            let Some(cart) = cart else { return Ok(Effect::UnknownCart) };
            money_came(conn, cart, version, event.created_at, now).await
        }
        "checkout.session.async_payment_failed" => {
            let Some(cart) = cart else { return Ok(Effect::UnknownCart) };
            let changed = payment_links::payment_failed(conn, cart.as_str(), version, now).await?;
            Ok(if changed { Effect::PaymentFailed } else { Effect::None })
        }
        "checkout.session.expired" => {
            let Some(cart) = cart else { return Ok(Effect::UnknownCart) };
            let changed = payment_links::closed(conn, cart.as_str(), version, now).await?;
            Ok(if changed { Effect::Closed } else { Effect::None })
        }
        _ => Ok(Effect::None),
    }
}

/// A payment arrived: the cart is recovered, once, whatever it was before.
/// Also what a job finds out that asks Stripe itself.
pub async fn money_came(
    conn: &mut Connection,
    cart: &CartId,
    version: i32,
    paid_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> sqlx::Result<Effect> {
    // The cart first, as everybody does: locks taken in one order can't deadlock.
    let exists = carts::lock(conn, cart).await?.is_some();
    payment_links::paid(conn, cart.as_str(), version, now).await?;
    if !exists {
        return Ok(Effect::UnknownCart);
    }
    let recovered = carts::recover(conn, cart, paid_at.min(now), now).await?;
    Ok(if recovered { Effect::Recovered } else { Effect::AlreadyRecovered })
}
