//! Events that need an operator's attention.

use chrono::{DateTime, Utc};

use super::Effect;
use crate::{
    db::Connection,
    payment_links::{Mismatch, PaymentLink},
};

/// The highest count.
pub const LIMIT: i64 = 1_000;

/// Events that named one of our carts and had no effect, or that paid for a deleted cart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attention {
    /// How many, at most [`LIMIT`].
    pub count: i64,
    /// When the newest event was received.
    pub last_at: DateTime<Utc>,
    /// Id of the newest event (`evt_…`).
    pub event: String,
    /// The newest event's reason; see [`Mismatch`].
    pub reason: String,
}

/// The events received since `since` that need attention; `None` if there are none.
pub async fn attention_since(conn: &mut Connection, since: DateTime<Utc>) -> sqlx::Result<Option<Attention>> {
    let newest = sqlx::query!(
        r#"
        select id, reason as "reason!", received_at from stripe_events
        where reason is not null and received_at >= $1 order by received_at desc limit 1
        "#,
        since,
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(newest) = newest else { return Ok(None) };
    let count = sqlx::query_scalar!(
        r#"
        select count(*) as "count!" from (
            select from stripe_events where reason is not null and received_at >= $1 limit $2) counted
        "#,
        since,
        LIMIT,
    )
    .fetch_one(conn)
    .await?;
    Ok(Some(Attention { count, last_at: newest.received_at, event: newest.id, reason: newest.reason }))
}

/// Stores that a session in Stripe's answer does not match its link. The operator sees the
/// record like an event.
pub async fn note_answer(
    conn: &mut Connection,
    link: &PaymentLink,
    session_id: &str,
    why: Mismatch,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        insert into stripe_events (id, kind, object_id, cart_id, created_at, received_at, effect, reason)
        values ('answer:' || $1, 'checkout.session', $1, $2, $3, $3, $4, $5)
        on conflict (id) do nothing
        "#,
        session_id,
        link.cart_id,
        now,
        Effect::Mismatch.as_str(),
        why.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(())
}
