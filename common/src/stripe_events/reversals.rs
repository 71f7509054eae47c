//! Refunds and disputes: money of a payment that went back, or may.
//!
//! `payment_reversals` has a row for each charge that was refunded, refund that failed and dispute,
//! with the state of its newest event. Events come in any order, also before those of their payment:
//! then the row waits until a payment link has its PaymentIntent, the only thing that leads from a
//! refund or dispute to a payment. Metadata does not count.

mod state;

use std::collections::HashSet;

use chrono::{DateTime, Utc};

use self::state::{Reversal, State, notes, returned};
use super::{
    Outcome, attention,
    event::{Effect, Kind, StripeEvent},
    locking::{self, Link},
    matching::Links,
};
use crate::{db::Connection, money::Currency, payment_links::Mismatch, timeline};

/// Stores the reversal, unless a newer event was stored. At equal times the further state of a dispute
/// counts, and the larger amount; of a failure the first event. `false` if nothing changed.
///
/// Without a link the row waits for [`match_reversals`], also if another transaction has just matched
/// it: that one has booked the older state.
async fn store(conn: &mut Connection, new: &Reversal, link: Option<&Link>, now: DateTime<Utc>) -> sqlx::Result<bool> {
    let stored = sqlx::query!(
        r#"
        insert into payment_reversals as stored
            (id, payment_intent, cart_id, link, state, amount_minor, currency, livemode, at, received_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        on conflict (id) do update
        set state = excluded.state, amount_minor = excluded.amount_minor, at = excluded.at,
            cart_id = excluded.cart_id, link = excluded.link
        where case when stored.state = 'failed' then excluded.at < stored.at
            else (excluded.at, coalesce(array_position(array['open', 'won', 'lost'], excluded.state), 0), excluded.amount_minor)
               > (stored.at, coalesce(array_position(array['open', 'won', 'lost'], stored.state), 0), stored.amount_minor)
            end
        "#,
        new.id,
        new.payment_intent,
        link.map(|link| link.cart_id.as_str()),
        link.map(|link| link.version),
        new.state as State,
        new.amount_minor,
        new.currency.code(),
        new.livemode,
        new.at,
        now,
    )
    .execute(conn)
    .await?;
    Ok(stored.rows_affected() == 1)
}

/// The rows of the PaymentIntent.
async fn of_payment(conn: &mut Connection, payment_intent: &str) -> sqlx::Result<Vec<Reversal>> {
    sqlx::query_as!(
        Reversal,
        r#"
        select id, payment_intent, state as "state: State", amount_minor, currency as "currency: Currency", livemode, at,
               cart_id is not null as "matched!"
        from payment_reversals where payment_intent = $1 order by at, id
        "#,
        payment_intent,
    )
    .fetch_all(conn)
    .await
}

/// Applies events about refunds and disputes, given by outcome and kind, and those that arrived
/// before their link had its PaymentIntent. Carts and links are locked.
pub(super) async fn take(
    conn: &mut Connection,
    events: &[StripeEvent],
    found: &[(usize, Kind)],
    links: &Links,
    carts: &HashSet<String>,
    now: DateTime<Utc>,
    outcomes: &mut [Outcome],
) -> sqlx::Result<()> {
    for link in links.with_early_reversals() {
        book(conn, link, None, carts, now).await?;
    }
    for (number, kind) in found {
        let outcome = &mut outcomes[*number];
        let event = &events[outcome.place];
        let reversal = Reversal::read(event, *kind);
        let link = event.object.payment_intent.as_deref().and_then(|intent| links.of_payment(intent));
        let Some(link) = link else {
            outcome.effect = match reversal {
                Ok(reversal) if !event.is_of_other_account => {
                    store(conn, &reversal, None, now).await?;
                    Effect::Unmatched
                }
                _ => Effect::UnknownCart,
            };
            continue;
        };
        let account = if event.is_of_other_account { Err(Mismatch::OtherAccount) } else { Ok(()) };
        let fits = account.and(reversal).and_then(|reversal| reversal.check(link).map(|()| reversal));
        let reversal = match fits {
            Ok(reversal) => reversal,
            Err(why) => {
                outcome.refuse(Effect::Mismatch, link.cart_id.clone(), why);
                continue;
            }
        };
        outcome.cart = Some(link.cart_id.clone());
        let changed = book(conn, link, Some(&reversal), carts, now).await?;
        outcome.effect = match kind {
            _ if !carts.contains(&link.cart_id) => Effect::UnknownCart,
            _ if !changed => Effect::None,
            Kind::Disputed => Effect::Disputed,
            _ => Effect::Refunded,
        };
    }
    Ok(())
}

/// Stores a new reversal of the link's payment, if there is one, and books it with those that
/// waited for the link: in the timeline, the link and the cart. `false` if `new` changed nothing.
async fn book(
    conn: &mut Connection,
    link: &Link,
    new: Option<&Reversal>,
    carts: &HashSet<String>,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let Some(payment_intent) = link.payment_intent.as_deref() else { return Ok(false) };
    let before = of_payment(conn, payment_intent).await?;
    let changed = match new {
        Some(new) => store(conn, new, Some(link), now).await?,
        None => false,
    };
    sqlx::query!(
        "update payment_reversals set cart_id = $2, link = $3 where payment_intent = $1 and cart_id is null",
        payment_intent,
        link.cart_id,
        link.version,
    )
    .execute(&mut *conn)
    .await?;
    let after = of_payment(conn, payment_intent).await?;
    let (known, waiting): (Vec<&Reversal>, Vec<&Reversal>) = before.iter().partition(|row| row.matched);
    for row in waiting {
        if let Err(why) = row.check(link) {
            attention::note_reversal(conn, &row.id, &link.cart_id, why, now).await?;
        }
    }
    let fits = |row: &&Reversal| row.check(link).is_ok();
    let known: Vec<&Reversal> = known.into_iter().filter(fits).collect();
    let after: Vec<&Reversal> = after.iter().filter(fits).collect();
    sqlx::query!(
        r#"
        update payment_links set refunded_minor = $3
        where cart_id = $1 and version = $2 and refunded_minor is distinct from $3
        "#,
        link.cart_id,
        link.version,
        returned(&after),
    )
    .execute(&mut *conn)
    .await?;
    if carts.contains(&link.cart_id) {
        for note in notes(&known, &after) {
            timeline::note_reversal(conn, &link.cart_id, link.version, &note, now).await?;
        }
        sum_up(conn, &[&link.cart_id], now).await?;
    }
    Ok(changed)
}

/// Stores what was refunded of these carts, which are locked: the sum over the payments that
/// recovered them. A payment that recovered nothing has its note in the timeline.
pub(super) async fn sum_up(conn: &mut Connection, carts: &[&str], now: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update carts set refunded_minor = net.minor, updated_at = $2
        from (
            select cart.id, (
                select sum(link.refunded_minor)::bigint from payment_links link
                where link.cart_id = cart.id and link.status || '' = 'paid' and link.currency = cart.currency
                  and not exists (select from cart_events event where event.cart_id = link.cart_id
                                  and event.kind = 'not_recovered' and event.link = link.version)) as minor
            from carts cart where cart.id = any ($1) and cart.status = 'recovered'
        ) net
        where carts.id = net.id and carts.refunded_minor is distinct from net.minor
        "#,
        carts as &[&str],
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Books refunds and disputes whose link got its PaymentIntent without an event: from a response of
/// Stripe, or in a transaction beside theirs. Must run in a transaction; returns how many payments
/// were booked, at most 100.
pub async fn match_reversals(conn: &mut Connection, now: DateTime<Utc>) -> sqlx::Result<usize> {
    let payments = sqlx::query_scalar!(
        r#"
        select distinct link.payment_intent as "payment_intent!" from payment_reversals reversal
        join payment_links link on link.payment_intent = reversal.payment_intent
        where reversal.cart_id is null limit 100
        "#,
    )
    .fetch_all(&mut *conn)
    .await?;
    let intents: Vec<&str> = payments.iter().map(String::as_str).collect();
    let locked = locking::lock_named(conn, &[], &[], &intents).await?;
    // Those that another transaction has locked are left to the next run.
    let is_wanted = |link: &&Link| link.payment_intent.as_deref().is_some_and(|intent| intents.contains(&intent));
    let mut booked = 0;
    for link in locked.free_links().filter(is_wanted) {
        book(conn, link, None, &locked.carts, now).await?;
        booked += 1;
    }
    Ok(booked)
}
