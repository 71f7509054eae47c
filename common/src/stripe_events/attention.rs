//! Payments and sessions that an operator should look at.

use chrono::{DateTime, Utc};

use super::Effect;
use crate::{
    db::Connection,
    payment_links::{Mismatch, PaymentLink},
};

/// The most events that are read of each list.
const LIMIT: i64 = 1_000;
/// The most payments that are shown one by one.
const SHOWN: i64 = 5;
/// The prefix of an id that stands for an answer of Stripe's, not for an event.
const ANSWER: &str = "answer:";

/// What did not count, by payment: several events of one payment are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attention {
    /// Of links of the product: a deleted cart's, of a wrong amount, a second one of a cart. And of
    /// other sessions whose metadata names a cart, which nobody but the account can write.
    pub own: Uncounted,
    /// Of other sessions that name a cart in `client_reference_id`, or are of a connected account. The
    /// payer of a Stripe Payment Link can add to these at will, so they are counted apart and hide
    /// nothing of `own`.
    pub foreign: Uncounted,
}

/// A list of [`Attention`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uncounted {
    /// The number of payments, at most those of the newest 1,000 events.
    pub count: i64,
    /// The newest: five of the product's own, one of the foreign.
    pub newest: Vec<Payment>,
}

/// A payment, or a session, that did not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// `cs_…`, where it is known, or `pi_…`.
    pub object: Option<String>,
    /// `evt_…` of an event about it. `None`: the worker learned of it by asking Stripe.
    pub event: Option<String>,
    /// The cart of its link, or the cart that it names.
    pub cart: Option<String>,
    /// [`Mismatch::as_str`]
    pub reason: String,
    /// The time of receipt.
    pub at: DateTime<Utc>,
}

impl Payment {
    /// The reason in words.
    pub fn why(&self) -> String {
        Mismatch::parse(&self.reason).map_or_else(|| self.reason.clone(), |why| why.to_string())
    }

    /// The ids by which it can be looked up: `cs_… of cart_… (event evt_…)`.
    pub fn ids(&self) -> String {
        let mut ids = self.object.as_deref().unwrap_or("a session").to_owned();
        if let Some(cart) = &self.cart {
            ids = format!("{ids} of {cart}");
        }
        match &self.event {
            Some(event) => format!("{ids} (event {event})"),
            None => ids,
        }
    }
}

/// What was received since then that an operator should look at.
pub async fn attention_since(conn: &mut Connection, since: DateTime<Utc>) -> sqlx::Result<Attention> {
    let own = uncounted(conn, since, false, SHOWN).await?;
    let foreign = uncounted(conn, since, true, 1).await?;
    Ok(Attention { own, foreign })
}

async fn uncounted(conn: &mut Connection, since: DateTime<Utc>, foreign: bool, shown: i64) -> sqlx::Result<Uncounted> {
    let rows = sqlx::query!(
        r#"
        with event as (
            select id, object_id, cart_id, reason, received_at from stripe_events
            where reason is not null and received_at >= $1
              and (effect = 'not_ours' and reason in ('unknown_session', 'other_account')) = $2
            order by received_at desc
            limit $3
        ), named as (
            select event.id, coalesce(link.session_id, event.object_id) as object_id, event.cart_id, event.reason,
                   event.received_at,
                   coalesce(event.cart_id || ':' || link.version, event.object_id, event.id) as payment
            from event
            left join lateral (
                select version, session_id from payment_links
                where cart_id = event.cart_id
                  and (session_id = event.object_id or payment_intent = event.object_id
                       or event.id = $5 || cart_id || ':' || version)
                limit 1
            ) link on true
        ), payments as (
            select distinct on (payment) id, object_id, cart_id, reason, received_at from named
            order by payment, starts_with(id, $5), received_at desc
        )
        select id as "id!", object_id, cart_id, reason as "reason!", received_at as "received_at!",
               count(*) over () as "count!"
        from payments
        order by received_at desc
        limit $4
        "#,
        since,
        foreign,
        LIMIT,
        shown,
        ANSWER,
    )
    .fetch_all(conn)
    .await?;
    let count = rows.first().map_or(0, |row| row.count);
    let newest = rows.into_iter().map(|row| Payment {
        object: row.object_id,
        event: Some(row.id).filter(|id| !id.starts_with(ANSWER)),
        cart: row.cart_id,
        reason: row.reason,
        at: row.received_at,
    });
    Ok(Uncounted { count, newest: newest.collect() })
}

/// Notes that Stripe answered a request with a session that contradicts its link, or whose
/// cart was deleted: shown to the operator as an event is.
pub async fn note_answer(
    conn: &mut Connection,
    link: &PaymentLink,
    session_id: &str,
    why: Mismatch,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    note(conn, session_id, Some(session_id), &link.cart_id, Effect::Mismatch, why, now).await
}

/// Notes a payment of a cart that was recovered before, of which Stripe's answer told.
pub(super) async fn note_paid_twice(
    conn: &mut Connection,
    cart: &str,
    version: i32,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    // The link's session may be attached later.
    let name = format!("{cart}:{version}");
    note(conn, &name, None, cart, Effect::AlreadyRecovered, Mismatch::PaidTwice, now).await
}

async fn note(
    conn: &mut Connection,
    name: &str,
    session_id: Option<&str>,
    cart: &str,
    effect: Effect,
    why: Mismatch,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        insert into stripe_events (id, kind, object_id, cart_id, created_at, received_at, effect, reason)
        values ($1, 'checkout.session', $2, $3, $4, $4, $5, $6)
        on conflict (id) do nothing
        "#,
        format!("{ANSWER}{name}"),
        session_id,
        cart,
        now,
        effect.as_str(),
        why.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(())
}
