//! Status changes of payment links. Each is one guarded update, whose row count shows whether it
//! took effect.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::{CHANNEL, Failure, Mismatch, PaymentLink};
use crate::db::Connection;
use crate::jobs::ClosePaymentLink;

/// A session that Stripe created.
#[derive(Debug, Clone)]
pub struct Opening {
    /// The cart's id.
    pub cart_id: String,
    /// The version of the request.
    pub version: i32,
    /// Stripe's id of the session.
    pub session_id: String,
    /// The address of Stripe's payment page.
    pub url: String,
    /// When the session expires.
    pub session_expires_at: DateTime<Utc>,
    /// Stripe's `livemode`: whether real money moves.
    pub livemode: Option<bool>,
}

/// pending → open. A response for each opening, in their order: `false` if the request was withdrawn
/// meanwhile and the session must be closed, or if another link has the session
/// ([`super::is_held_by_another`]).
pub async fn open(conn: &mut Connection, openings: &[Opening], now: DateTime<Utc>) -> sqlx::Result<Vec<bool>> {
    let carts: Vec<&str> = openings.iter().map(|opening| opening.cart_id.as_str()).collect();
    let versions: Vec<i32> = openings.iter().map(|opening| opening.version).collect();
    let sessions: Vec<&str> = openings.iter().map(|opening| opening.session_id.as_str()).collect();
    let urls: Vec<&str> = openings.iter().map(|opening| opening.url.as_str()).collect();
    let ends: Vec<DateTime<Utc>> = openings.iter().map(|opening| opening.session_expires_at).collect();
    let livemodes: Vec<Option<bool>> = openings.iter().map(|opening| opening.livemode).collect();
    let opened = sqlx::query_scalar!(
        r#"
        update payment_links link
        set status = 'open', session_id = made.session_id, url = made.url, session_expires_at = made.session_expires_at,
            livemode = made.livemode, opened_at = $7, updated_at = $7
        from unnest($1::text[], $2::integer[], $3::text[], $4::text[], $5::timestamptz[], $6::boolean[]) with ordinality
            as made (cart_id, version, session_id, url, session_expires_at, livemode, place)
        where link.cart_id = made.cart_id and link.version = made.version and link.status = 'pending'
          and (link.session_id is null or link.session_id = made.session_id)
          and not exists (select from payment_links other
                          where other.session_id = made.session_id
                            and (other.cart_id, other.version) <> (made.cart_id, made.version))
        returning place as "place!"
        "#,
        &carts as &[&str],
        &versions,
        &sessions as &[&str],
        &urls as &[&str],
        &ends,
        &livemodes as &[Option<bool>],
        now,
    )
    .fetch_all(&mut *conn)
    .await?;
    let is_open = |place: usize| opened.iter().any(|opened| usize::try_from(*opened) == Ok(place));
    let opened: Vec<bool> = (1..=openings.len()).map(is_open).collect();
    for (opening, _) in openings.iter().zip(&opened).filter(|(_, opened)| **opened) {
        conn.notify(CHANNEL, &opening.cart_id);
    }
    Ok(opened)
}

/// pending → failed: Stripe created no session and will not create one.
pub async fn fail(
    conn: &mut Connection,
    link: &PaymentLink,
    why: Failure<'_>,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    Change { from: &["pending"], to: "failed", why: Some(why) }.make(conn, &link.cart_id, link.version, now).await
}

/// pending → settling: Stripe may have created a session whose id is unknown. A job finds and
/// closes it.
pub(super) async fn settle_later(
    conn: &mut Connection,
    link: &PaymentLink,
    why: Failure<'_>,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let change = Change { from: &["pending"], to: "settling", why: Some(why) };
    let changed = change.make(&mut *conn, &link.cart_id, link.version, now).await?;
    if changed {
        queue::enqueue(conn, &ClosePaymentLink { cart_id: link.cart_id.clone(), version: link.version }).await?;
    }
    Ok(changed)
}

/// Ends all payment links of these carts: a job closes open sessions, pending requests are
/// withdrawn.
pub(crate) async fn close_all(conn: &mut Connection, cart_ids: &[String], now: DateTime<Utc>) -> sqlx::Result<()> {
    let touched = sqlx::query!(
        r#"
        update payment_links set updated_at = $2, ended_at = case when status <> 'open' then $2::timestamptz end, status = case
            when status = 'open' then 'closing'
            when attempted_at is not null then 'settling'
            else 'closed' end
        where cart_id = any ($1) and status in ('open', 'pending')
        returning cart_id, version, status
        "#,
        cart_ids,
        now,
    )
    .fetch_all(&mut *conn)
    .await?;
    let jobs: Vec<ClosePaymentLink> = touched
        .iter()
        .filter(|link| link.status != "closed")
        .map(|link| ClosePaymentLink { cart_id: link.cart_id.clone(), version: link.version })
        .collect();
    if !jobs.is_empty() {
        queue::enqueue_many(conn, &jobs).await?;
    }
    for link in touched {
        conn.notify(CHANNEL, link.cart_id);
    }
    Ok(())
}

/// → closed: Stripe reports that the session can't be paid any more. `false` if the link was in a
/// final status or processing.
pub async fn closed(conn: &mut Connection, cart_id: &str, version: i32, now: DateTime<Utc>) -> sqlx::Result<bool> {
    Change { from: &["pending", "open", "closing", "settling"], to: "closed", why: None }
        .make(conn, cart_id, version, now)
        .await
}

/// → processing: the shopper completed the checkout, and the payment is in progress. The event may
/// arrive before the response that contains the session.
pub async fn processing(conn: &mut Connection, cart_id: &str, version: i32, now: DateTime<Utc>) -> sqlx::Result<bool> {
    Change { from: &["pending", "open", "closing", "settling"], to: "processing", why: None }
        .make(conn, cart_id, version, now)
        .await
}

/// The payment of a link, as Stripe reports it.
#[derive(Debug, Clone, Copy)]
pub struct LinkPayment<'a> {
    /// The cart's id.
    pub cart_id: &'a str,
    /// The version of the request.
    pub version: i32,
    /// When the shopper paid.
    pub paid_at: DateTime<Utc>,
    /// The amount that the shopper paid, in minor units of the link's currency; `None` means the link's
    /// amount.
    pub paid_minor: Option<i64>,
    /// Stripe's id of the session, if the link may lack it.
    pub session_id: Option<&'a str>,
    /// The session's PaymentIntent, if the link may lack it.
    pub payment_intent: Option<&'a str>,
    /// The session's mode, if the link may lack it.
    pub livemode: Option<bool>,
}

/// A link that was marked as paid.
#[derive(Debug, Clone, Copy)]
pub struct Paid {
    /// Whether the cart's total and currency are still those of the link.
    pub fits: bool,
    /// Whether refunds or disputes of the payment have arrived before it.
    pub has_early_reversals: bool,
}

/// Marks these links as paid, and stores the ids that they lack. Returns only those that were not
/// already paid. Of several payments of a link, the first counts.
///
/// # Errors
/// A unique violation if another link has one of the ids.
pub async fn paid(
    conn: &mut Connection,
    payments: &[LinkPayment<'_>],
    now: DateTime<Utc>,
) -> sqlx::Result<HashMap<(String, i32), Paid>> {
    let carts: Vec<&str> = payments.iter().map(|payment| payment.cart_id).collect();
    let versions: Vec<i32> = payments.iter().map(|payment| payment.version).collect();
    let times: Vec<DateTime<Utc>> = payments.iter().map(|payment| payment.paid_at).collect();
    let amounts: Vec<Option<i64>> = payments.iter().map(|payment| payment.paid_minor).collect();
    let sessions: Vec<Option<&str>> = payments.iter().map(|payment| payment.session_id).collect();
    let intents: Vec<Option<&str>> = payments.iter().map(|payment| payment.payment_intent).collect();
    let livemodes: Vec<Option<bool>> = payments.iter().map(|payment| payment.livemode).collect();
    let changed = sqlx::query!(
        r#"
        update payment_links link
        set status = 'paid', paid_at = payment.paid_at, paid_minor = coalesce(payment.paid_minor, amount_minor),
            session_id = coalesce(link.session_id, payment.session_id),
            payment_intent = coalesce(link.payment_intent, payment.payment_intent),
            livemode = coalesce(link.livemode, payment.livemode), ended_at = $5, updated_at = $5
        from (select distinct on (cart_id, version) *
              from unnest($1::text[], $2::integer[], $3::timestamptz[], $4::bigint[], $6::text[], $7::text[], $8::boolean[])
                  with ordinality
                  as payment (cart_id, version, paid_at, paid_minor, session_id, payment_intent, livemode, place)
              order by cart_id, version, place) payment
        where link.cart_id = payment.cart_id and link.version = payment.version and link.status <> 'paid'
        returning link.cart_id, link.version,
                  coalesce((select total_minor = link.amount_minor and carts.currency = link.currency
                            from carts where id = link.cart_id), true) as "fits!",
                  (select true from payment_reversals early
                   where early.payment_intent = link.payment_intent and early.cart_id is null limit 1)
                      is not null as "has_early_reversals!"
        "#,
        &carts as &[&str],
        &versions,
        &times,
        &amounts as &[Option<i64>],
        now,
        &sessions as &[Option<&str>],
        &intents as &[Option<&str>],
        &livemodes as &[Option<bool>],
    )
    .fetch_all(&mut *conn)
    .await?;
    for link in &changed {
        conn.notify(CHANNEL, &link.cart_id);
    }
    let paid = changed.into_iter().map(|link| {
        let paid = Paid { fits: link.fits, has_early_reversals: link.has_early_reversals };
        ((link.cart_id, link.version), paid)
    });
    Ok(paid.collect())
}

/// → payment_failed: the payment failed for good.
pub async fn payment_failed(
    conn: &mut Connection,
    cart_id: &str,
    version: i32,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    Change { from: &["pending", "open", "closing", "settling", "processing"], to: "payment_failed", why: None }
        .make(conn, cart_id, version, now)
        .await
}

/// → closed: the session ended without a payment that counts, for this reason.
pub async fn closed_because(
    conn: &mut Connection,
    link: &PaymentLink,
    why: Mismatch,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let message = format!("The session ended without a payment that counts: {why}");
    Change {
        from: &["pending", "open", "closing", "settling", "processing"],
        to: "closed",
        why: Some(Failure::new(why.as_str(), &message)),
    }
    .make(conn, &link.cart_id, link.version, now)
    .await
}

/// A guarded status change that ends a request, and notifies the requests that wait for the link.
struct Change<'a> {
    from: &'a [&'a str],
    to: &'a str,
    /// The reason why there is no link, if the change is a failure.
    why: Option<Failure<'a>>,
}

impl Change<'_> {
    async fn make(self, conn: &mut Connection, cart_id: &str, version: i32, now: DateTime<Utc>) -> sqlx::Result<bool> {
        let result = sqlx::query!(
            r#"
            update payment_links
            set status = $4, failure = coalesce($6, failure), failure_code = coalesce($7, failure_code),
                ended_at = $5, updated_at = $5
            where cart_id = $1 and version = $2 and status = any ($3)
            "#,
            cart_id,
            version,
            self.from as &[&str],
            self.to,
            now,
            self.why.map(|failure| failure.why),
            self.why.and_then(|failure| failure.code),
        )
        .execute(&mut *conn)
        .await?;
        let changed = result.rows_affected() == 1;
        if changed {
            conn.notify(CHANNEL, cart_id);
        }
        Ok(changed)
    }
}
