//! Payments and sessions that an operator should look at.

use chrono::{DateTime, Utc};

use super::Effect;
use crate::{
    db::Connection,
    money::Currency,
    payment_links::{Mismatch, PaymentLink},
};

/// The maximum number of events to read for each list.
const LIMIT: i64 = 1_000;
/// The maximum number of payments to list individually.
const SHOWN: i64 = 5;
/// The id prefix of records of Stripe's responses, as opposed to events.
const ANSWER: &str = "answer:";

/// Payments that did not recover a cart. Several events of one payment count once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attention {
    /// Payments by the product's links: for a deleted cart, with a wrong amount, or a cart's second
    /// one. Also sessions created elsewhere whose metadata names a cart, which only the account
    /// itself can write.
    pub own: Uncounted,
    /// Sessions created elsewhere that name a cart in `client_reference_id`, or belong to a
    /// connected account. The payer of a Stripe Payment Link can create any number of these, so
    /// they are counted separately and can't hide entries of `own`.
    pub foreign: Uncounted,
}

/// A list of [`Attention`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uncounted {
    /// The number of payments among the newest 1,000 events.
    pub count: i64,
    /// The newest payments: five of the product's own, one of the foreign.
    pub newest: Vec<Payment>,
}

/// A payment or session that did not recover a cart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// The id of the session (`cs_…`) if known, else of the PaymentIntent (`pi_…`), or of a charge,
    /// refund or dispute (`ch_…`, `re_…`, `du_…`).
    pub object: Option<String>,
    /// The id of an event about it (`evt_…`); `None` if the worker learned of it from a response of
    /// Stripe.
    pub event: Option<String>,
    /// The cart of the payment's link, or the cart that the session names.
    pub cart: Option<String>,
    /// [`Mismatch::as_str`]
    pub reason: String,
    /// When the event or response was received.
    pub at: DateTime<Utc>,
}

impl Payment {
    /// The name of its kind, for people.
    pub fn what(&self) -> &'static str {
        match self.object.as_deref().and_then(|id| id.split('_').next()) {
            None | Some("cs" | "pi") => "payment",
            _ => "refund or dispute",
        }
    }

    /// The advice to an operator.
    pub fn advice(&self) -> &'static str {
        match self.what() {
            "payment" => "Look it up at Stripe, and refund it if money is to go back.",
            _ => "Look it up at Stripe: the money went back there, and the cart does not show it.",
        }
    }

    /// The reason in English.
    pub fn why(&self) -> String {
        self.reason.parse().map_or_else(|_| self.reason.clone(), |why: Mismatch| why.to_string())
    }

    /// The ids for looking up the payment: `cs_… of cart_… (event evt_…)`.
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

/// Payments and sessions received since then that need an operator's attention.
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

/// Records a response of Stripe with a session that contradicts its link, or whose cart was
/// deleted. It is shown to the operator like an event.
pub async fn note_answer(
    conn: &mut Connection,
    link: &PaymentLink,
    session_id: &str,
    why: Mismatch,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    note(conn, session_id, Some(session_id), &link.cart_id, Effect::Mismatch, why, now).await
}

/// Records that a response of Stripe reported a payment that the operator should look at.
pub(super) async fn note_payment(
    conn: &mut Connection,
    cart: &str,
    version: i32,
    effect: Effect,
    why: Mismatch,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    // Identifies the payment by its link, whose session may be attached later.
    let name = format!("{cart}:{version}");
    note(conn, &name, None, cart, effect, why, now).await
}

/// Records that a refund or dispute that arrived before its payment does not match it.
pub(super) async fn note_reversal(
    conn: &mut Connection,
    id: &str,
    cart: &str,
    why: Mismatch,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    note(conn, id, Some(id), cart, Effect::Mismatch, why, now).await
}

/// A dispute that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenDispute {
    /// `du_…`
    pub id: String,
    /// The cart that the payment is for.
    pub cart_id: String,
    /// Whether the cart exists.
    pub has_cart: bool,
    /// The disputed amount, in minor units of `currency`.
    pub amount_minor: i64,
    /// The currency of the dispute.
    pub currency: Currency,
    /// The time of its newest event, according to Stripe.
    pub at: DateTime<Utc>,
}

/// The open disputes about payments of the product's links.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenDisputes {
    /// Their number.
    pub count: i64,
    /// The newest five.
    pub newest: Vec<OpenDispute>,
}

/// The disputes that are open, and had an event since then.
pub async fn open_disputes(conn: &mut Connection, since: DateTime<Utc>) -> sqlx::Result<OpenDisputes> {
    let rows = sqlx::query!(
        r#"
        select dispute.id, dispute.cart_id as "cart_id!", carts.id is not null as "has_cart!", amount_minor,
               dispute.currency as "currency: Currency", at, count(*) over () as "count!"
        from payment_reversals dispute left join carts on carts.id = dispute.cart_id
        where state = 'open' and at >= $1 and cart_id is not null
        order by at desc, dispute.id limit $2
        "#,
        since,
        SHOWN,
    )
    .fetch_all(conn)
    .await?;
    let count = rows.first().map_or(0, |row| row.count);
    let newest = rows.into_iter().map(|row| OpenDispute {
        id: row.id,
        cart_id: row.cart_id,
        has_cart: row.has_cart,
        amount_minor: row.amount_minor,
        currency: row.currency,
        at: row.at,
    });
    Ok(OpenDisputes { count, newest: newest.collect() })
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
