//! Locks the carts and links that events may be about, without waiting for locks.

use std::collections::HashSet;

use super::event::StripeEvent;
use crate::{carts::CartId, db::Connection};

/// A locked payment link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) cart_id: String,
    pub(super) version: i32,
    pub(super) session_id: Option<String>,
    pub(super) payment_intent: Option<String>,
    pub(super) attempted: bool,
    pub(super) is_paid: bool,
    pub(super) amount_minor: Option<i64>,
    pub(super) currency: Option<String>,
    pub(super) livemode: Option<bool>,
    pub(super) total_may_differ: bool,
    /// Whether some of its payment was refunded.
    pub(super) refunded: bool,
}

/// The rows locked by this transaction, and those that other transactions hold.
#[derive(Debug, Default)]
pub(super) struct Locked {
    /// The existing carts that events may be about, except held ones.
    pub(super) carts: HashSet<String>,
    pub(super) links: Vec<Link>,
    /// Held carts (locked by others, or with a link locked by others), and the ids of their
    /// sessions and PaymentIntents.
    held: HashSet<String>,
}

impl Locked {
    /// Whether another transaction has locked a row that the event may be about.
    pub(super) fn holds_up(&self, event: &StripeEvent) -> bool {
        names(event).any(|name| self.held.contains(name.id()))
    }

    /// The locked links whose carts are locked, too, or deleted.
    pub(super) fn free_links(&self) -> impl Iterator<Item = &Link> {
        self.links.iter().filter(|link| !self.held.contains(&link.cart_id))
    }
}

enum Name<'a> {
    Cart(&'a str),
    Session(&'a str),
    Intent(&'a str),
}

impl<'a> Name<'a> {
    fn id(&self) -> &'a str {
        let (Self::Cart(id) | Self::Session(id) | Self::Intent(id)) = self;
        id
    }
}

/// The ids in an event that can change a cart or link.
fn names(event: &StripeEvent) -> impl Iterator<Item = Name<'_>> {
    event.matters().into_iter().flat_map(|kind| {
        let (session, intent) = event.object.ids(kind);
        // Only the PaymentIntent leads to the payment of a refund or dispute.
        let carts = event.object.named_carts().filter(move |_| !kind.is_reversal()).map(CartId::as_str).map(Name::Cart);
        carts.chain(session.map(Name::Session)).chain(intent.map(Name::Intent))
    })
}

/// Locks the carts that the events may be about, then their links. Rows locked by others are
/// skipped.
pub(super) async fn lock(conn: &mut Connection, events: &[StripeEvent]) -> sqlx::Result<Locked> {
    let (mut carts, mut sessions, mut intents) = (Vec::new(), Vec::new(), Vec::new());
    for name in events.iter().flat_map(names) {
        match name {
            Name::Cart(id) => carts.push(id),
            Name::Session(id) => sessions.push(id),
            Name::Intent(id) => intents.push(id),
        }
    }
    lock_named(conn, &carts, &sessions, &intents).await
}

/// Like [`lock`], for the names of carts, sessions and PaymentIntents.
pub(super) async fn lock_named(
    conn: &mut Connection,
    carts: &[&str],
    sessions: &[&str],
    intents: &[&str],
) -> sqlx::Result<Locked> {
    if carts.is_empty() && sessions.is_empty() && intents.is_empty() {
        return Ok(Locked::default());
    }
    // A cart that is deleted meanwhile counts as held; the next attempt no longer finds it.
    let found = sqlx::query!(
        r#"
        with wanted as materialized (
            select id from carts
            where id = any (array(
                select unnest($1::text[]) collate "C"
                union all select cart_id from payment_links where session_id = any ($2)
                union all select cart_id from payment_links where payment_intent is not null and payment_intent = any ($3)))
        ), locked as (
            select id from carts where id = any (array(select id from wanted)) for no key update skip locked
        )
        select id as "id!", false as "locked!" from wanted
        union all select id, true from locked
        "#,
        carts as &[&str],
        sessions as &[&str],
        intents as &[&str],
    )
    .fetch_all(&mut *conn)
    .await?;
    let (locked, wanted): (Vec<_>, Vec<_>) = found.into_iter().partition(|cart| cart.locked);
    let mut all = Locked { carts: locked.into_iter().map(|cart| cart.id).collect(), ..Locked::default() };
    all.held = wanted.into_iter().map(|cart| cart.id).filter(|id| !all.carts.contains(id)).collect();
    lock_links(conn, carts, sessions, intents, &mut all).await?;
    Ok(all)
}

async fn lock_links(
    conn: &mut Connection,
    carts: &[&str],
    sessions: &[&str],
    intents: &[&str],
    all: &mut Locked,
) -> sqlx::Result<()> {
    // In addition to the named links, lock those that a payment closes.
    let carts: Vec<&str> = carts.iter().copied().chain(all.carts.iter().map(String::as_str)).collect();
    let rows = sqlx::query!(
        r#"
        with wanted as materialized (
            select cart_id, version, session_id, payment_intent from payment_links
            where cart_id = any ($1) or session_id = any ($2)
               or (payment_intent is not null and payment_intent = any ($3))
        ), locked as (
            select link.cart_id, link.version, link.session_id, link.payment_intent,
                   link.attempted_at is not null as attempted, link.status = 'paid' as is_paid,
                   coalesce(link.amount_minor, carts.total_minor) as amount_minor,
                   coalesce(link.currency, carts.currency) as currency, link.livemode,
                   coalesce(link.settings @> '{"promotionCodes": true}' or link.settings @> '{"automaticTax": true}', false)
                       as total_may_differ,
                   link.refunded_minor is not null as refunded,
                   carts.id is not null as has_cart
            from wanted
            join payment_links link on link.cart_id = wanted.cart_id and link.version = wanted.version
            left join carts on carts.id = link.cart_id
            for no key update of link skip locked
        )
        select cart_id as "cart_id!", version as "version!", session_id, payment_intent, attempted as "attempted!",
               is_paid as "is_paid!", amount_minor, currency, livemode, total_may_differ as "total_may_differ!", refunded as "refunded!",
               has_cart as "has_cart!", true as "locked!"
        from locked
        union all
        select cart_id, version, session_id, payment_intent, false, false, null, null, null, false, false, false, false from wanted
        "#,
        &carts as &[&str],
        sessions as &[&str],
        intents as &[&str],
    )
    .fetch_all(conn)
    .await?;
    let (locked, wanted): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.locked);
    let ours: HashSet<(&str, i32)> = locked.iter().map(|row| (row.cart_id.as_str(), row.version)).collect();
    // The second condition: the session was attached to another cart's link after the carts were
    // locked.
    let mut held: HashSet<String> = wanted
        .iter()
        .filter(|row| !ours.contains(&(row.cart_id.as_str(), row.version)))
        .chain(locked.iter().filter(|row| row.has_cart && !all.carts.contains(&row.cart_id)))
        .map(|row| row.cart_id.clone())
        .collect();
    held.extend(all.held.drain());
    for row in wanted.into_iter().filter(|row| held.contains(&row.cart_id)) {
        all.held.extend(row.session_id.into_iter().chain(row.payment_intent));
    }
    all.held.extend(held);
    all.links = locked
        .into_iter()
        .map(|row| Link {
            cart_id: row.cart_id,
            version: row.version,
            session_id: row.session_id,
            payment_intent: row.payment_intent,
            attempted: row.attempted,
            is_paid: row.is_paid,
            amount_minor: row.amount_minor,
            currency: row.currency,
            livemode: row.livemode,
            total_may_differ: row.total_may_differ,
            refunded: row.refunded,
        })
        .collect();
    Ok(())
}
