//! Stores timeline events that can't be derived from the rows of a cart or its links.

use chrono::{DateTime, Utc};
use strum::IntoStaticStr;

use crate::{
    audit::KeyName,
    carts::CartId,
    db::Connection,
    money::{Amount, Currency},
};

/// The page that the recovery link led the shopper to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Opening {
    /// The open Checkout Session.
    Checkout,
    /// No session was open; a new one is being created.
    NewCheckout,
    /// Stripe refused a session shortly before; a page that reloads itself.
    CheckoutRefused,
    /// A page that reports that Stripe can't charge the cart's total.
    NotChargeable,
    /// A page that reports a payment in progress.
    PaymentUnderWay,
    /// A page that reports that the cart was paid.
    Recovered,
    /// A page that reports that the cart expired.
    Expired,
    /// A page that reports that the link expired.
    LinkExpired,
}

impl Opening {
    fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Records that the shopper followed the recovery link: at most once a minute, and after ten visits
/// at most once an hour, so that a bot leaves hundreds of events, not millions. Does not wait if
/// another transaction has locked the link, for example an erasure.
pub async fn note_opening(
    conn: &mut Connection,
    cart_id: &CartId,
    found: Opening,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        with noted as (
            update recovery_links set opened_at = $3, openings = openings + 1
            where token_hash = (
                select token_hash from recovery_links
                where cart_id = $1
                  and (opened_at is null
                       or opened_at <= $3::timestamptz - case when openings < 10 then interval '1 minute' else interval '1 hour' end)
                for no key update skip locked)
            returning cart_id
        )
        insert into cart_events (cart_id, at, kind, why)
        select cart_id, $3, 'recovery_link_opened', $2 from noted
        on conflict do nothing
        "#,
        cart_id.as_str(),
        found.as_str(),
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Records why carts abandoned before `cutoff` did not expire, once per cart, for a batch of the
/// oldest ones. `true` if there may be more.
pub(crate) async fn note_not_expired(
    conn: &mut Connection,
    cutoff: DateTime<Utc>,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    const BATCH: i64 = 500;
    // Skip a cart that is being deleted: its timeline must not get further events.
    let noted = sqlx::query!(
        r#"
        insert into cart_events (cart_id, at, kind, why, details)
        select id, $2::timestamptz, 'not_expired',
               case when paying then 'payment_under_way' else 'recovery_link_good' end,
               case when not paying then jsonb_build_object('until', cart_event_time(good_until)) end
        from (
            select id, exists (select from payment_links where cart_id = carts.id and status = 'processing') as paying,
                   (select expires_at from recovery_links where cart_id = carts.id and expires_at > $2) as good_until
            from carts
            where status = 'abandoned' and abandoned_at < $1
              and (exists (select from recovery_links where cart_id = carts.id and expires_at > $2)
                   or exists (select from payment_links where cart_id = carts.id and status = 'processing'))
              and not exists (select from cart_events where cart_id = carts.id and kind = 'not_expired')
            order by abandoned_at
            limit $3
            for key share skip locked
        ) due
        on conflict do nothing
        "#,
        cutoff,
        now,
        BATCH,
    )
    .execute(conn)
    .await?;
    Ok(noted.rows_affected() >= BATCH.unsigned_abs())
}

/// Records payments, by cart and link, for carts that were recovered before.
pub(crate) async fn note_not_recovered(
    conn: &mut Connection,
    payments: &[(&str, i32)],
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    if payments.is_empty() {
        return Ok(());
    }
    let (carts, links): (Vec<&str>, Vec<i32>) = payments.iter().copied().unzip();
    sqlx::query!(
        r#"
        insert into cart_events (cart_id, at, kind, link, why)
        select cart_id, $3, 'not_recovered', link, 'already_recovered'
        from unnest($1::text[], $2::integer[]) as payment (cart_id, link)
        on conflict do nothing
        "#,
        &carts as &[&str],
        &links,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A refund or dispute for the timeline.
#[derive(Debug)]
pub(crate) struct Note<'a> {
    /// The kind of the event.
    pub(crate) kind: &'static str,
    /// The refunded or disputed amount.
    pub(crate) amount: Amount,
    pub(crate) currency: Currency,
    /// Stripe's id of the dispute.
    pub(crate) dispute: Option<&'a str>,
}

/// Records a refund or dispute of the link's payment. The cart must be locked. Events of a kind at
/// the same instant are stored a microsecond apart.
pub(crate) async fn note_reversal(
    conn: &mut Connection,
    cart_id: &str,
    link: i32,
    note: &Note<'_>,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        insert into cart_events (cart_id, at, kind, link, details)
        select $1, coalesce((select max(at) + interval '1 microsecond' from cart_events
                             where cart_id = $1 and kind = $2 and link = $3 and at >= $4), $4),
               $2, $3, jsonb_strip_nulls(jsonb_build_object('amount', $5::text::numeric, 'currency', $6::text, 'dispute', $7::text))
        "#,
        cart_id,
        note.kind,
        link,
        now,
        note.amount.to_string(),
        note.currency.code(),
        note.dispute,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Records which fields of a cart the shop changed, and with which key. The cart must be locked.
/// Changes at the same instant are stored a microsecond apart, because the table has one event of a
/// kind for an instant.
pub(crate) async fn note_changed(
    conn: &mut Connection,
    cart_id: &str,
    fields: &[&str],
    key: &KeyName,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        insert into cart_events (cart_id, at, kind, details)
        select $1, coalesce((select max(at) + interval '1 microsecond' from cart_events
                             where cart_id = $1 and kind = 'changed' and at >= $3), $3),
               'changed', jsonb_build_object('fields', to_jsonb($2::text[])) || cart_event_key($4)
        "#,
        cart_id,
        fields as &[&str],
        now,
        key.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(())
}
