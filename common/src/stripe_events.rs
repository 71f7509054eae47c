//! Applies Stripe's events, each once and in any order. The record and the effect of an event are
//! in one transaction.
//!
//! An event changes a cart only through a session of `payment_links`, with the expected mode,
//! amount, currency and status; a refund or dispute through the PaymentIntent of one. Any other event
//! that names a cart is stored with the reason and shown to the operator, and so is a payment for a
//! cart that was deleted or recovered before.

mod attention;
mod event;
mod locking;
mod matching;
mod reversals;

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use crate::{
    carts::{self, CartId, RecoveredBy},
    db::Connection,
    payment_links::{self, LinkPayment, Mismatch, Paid},
    timeline,
};

pub use attention::{
    Attention, OpenDispute, OpenDisputes, Payment, Uncounted, attention_since, note_answer, open_disputes,
};
pub use event::{Effect, StripeEvent, StripeObject};
pub use reversals::match_reversals;

use locking::{Link, Locked};
use matching::{Change, Links, Match, Meaning};

/// Stores the events and applies them; returns the effect of each. Must run in a transaction. An
/// event whose cart or link another transaction has locked does not block the others: it is not
/// stored, see [`Effect::Held`].
pub async fn apply(conn: &mut Connection, events: &[StripeEvent], now: DateTime<Utc>) -> sqlx::Result<Vec<Effect>> {
    let locked = locking::lock(conn, events).await?;
    let (held, free): (Vec<usize>, Vec<usize>) = (0..events.len()).partition(|place| locked.holds_up(&events[*place]));
    let Locked { carts, links, .. } = locked;
    let mut links = Links::new(links);
    let mut known = stored(conn, free.iter().map(|place| &events[*place])).await?;
    // Skip events that were stored before, or earlier in this batch.
    let fresh: Vec<usize> = free.into_iter().filter(|place| known.insert(events[*place].id.clone())).collect();
    let mut outcomes: Vec<Outcome> = fresh.iter().map(|place| Outcome::nothing(*place, &events[*place])).collect();
    let (mut payments, mut others, mut reversals) = (Vec::new(), Vec::new(), Vec::new());
    for (number, outcome) in outcomes.iter_mut().enumerate() {
        let event = &events[outcome.place];
        let Some(kind) = event.matters() else { continue };
        if kind.is_reversal() {
            reversals.push((number, kind));
            continue;
        }
        match links.find(event, kind, &carts) {
            Match::Ours { link, meaning } => {
                let Link { cart_id, version, .. } = links.at(link);
                let subject = Subject { number, event, link, cart: cart_id.clone(), version: *version };
                outcome.cart = Some(subject.cart.clone());
                match meaning {
                    Meaning::Paid => payments.push(subject),
                    Meaning::Other(change) => others.push((subject, change)),
                }
            }
            Match::Mismatch { cart, why } => outcome.refuse(Effect::Mismatch, cart, why),
            Match::NotOurs { cart, why } => outcome.refuse(Effect::NotOurs, cart, why),
            Match::Unknown => outcome.effect = Effect::UnknownCart,
        }
    }
    links.save_attached(conn, &payments.iter().map(|payment| payment.link).collect()).await?;
    take_payments(conn, &payments, &mut links, &carts, now, &mut outcomes).await?;
    for (subject, change) in &others {
        outcomes[subject.number].effect = take_effect(conn, subject, *change, now).await?;
    }
    // Refunds that arrived before the payment.
    let refunded: Vec<&str> =
        payments.iter().map(|subject| subject.cart.as_str()).filter(|cart| links.has_refunds(cart)).collect();
    if !refunded.is_empty() {
        reversals::sum_up(conn, &refunded, now).await?;
    }
    reversals::take(conn, events, &reversals, &links, &carts, now, &mut outcomes).await?;
    store(conn, events, &outcomes, now).await?;
    let mut effects = vec![Effect::Repeated; events.len()];
    for outcome in outcomes {
        effects[outcome.place] = outcome.effect;
    }
    for place in held {
        effects[place] = Effect::Held;
    }
    Ok(effects)
}

/// The outcome of a new event.
struct Outcome {
    place: usize,
    cart: Option<String>,
    effect: Effect,
    reason: Option<Mismatch>,
}

impl Outcome {
    fn nothing(place: usize, event: &StripeEvent) -> Self {
        let cart = event.object.named_carts().next().map(ToString::to_string);
        Self { place, cart, effect: Effect::None, reason: None }
    }

    fn refuse(&mut self, effect: Effect, cart: String, why: Mismatch) {
        (self.effect, self.cart, self.reason) = (effect, Some(cart), Some(why));
    }
}

/// A new event and its payment link.
struct Subject<'a> {
    /// The index of the event's outcome.
    number: usize,
    event: &'a StripeEvent,
    /// See [`Links::at`].
    link: usize,
    cart: String,
    version: i32,
}

impl Subject<'_> {
    /// The payment that the event reports, with all that is known of its session.
    fn payment<'a>(&'a self, links: &'a Links, now: DateTime<Utc>) -> LinkPayment<'a> {
        let link = links.at(self.link);
        LinkPayment {
            cart_id: &self.cart,
            version: self.version,
            paid_at: self.event.created_at.min(now),
            paid_minor: self.event.object.reported.amount_minor(),
            session_id: link.session_id.as_deref(),
            payment_intent: link.payment_intent.as_deref(),
            livemode: link.livemode,
        }
    }
}

/// The ids of the events that were stored before. The carts and links of the others are locked by now,
/// so that no other transaction can apply them meanwhile.
async fn stored(conn: &mut Connection, events: impl Iterator<Item = &StripeEvent>) -> sqlx::Result<HashSet<String>> {
    let ids: Vec<&str> = events.map(|event| event.id.as_str()).collect();
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let known = sqlx::query_scalar!("select id from stripe_events where id = any ($1)", &ids as &[&str]);
    Ok(known.fetch_all(conn).await?.into_iter().collect())
}

/// Stores the events and their outcomes.
///
/// # Errors
/// A unique violation if a delivery of one of them at the same moment was faster, which is possible
/// only for events without a cart or link. Nothing is applied then; the next try finds it stored.
async fn store(
    conn: &mut Connection,
    events: &[StripeEvent],
    outcomes: &[Outcome],
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    if outcomes.is_empty() {
        return Ok(());
    }
    let column = |of: fn(&StripeEvent) -> &str| -> Vec<&str> {
        outcomes.iter().map(|outcome| of(&events[outcome.place])).collect()
    };
    let objects: Vec<Option<&str>> =
        outcomes.iter().map(|outcome| events[outcome.place].object.id.as_deref()).collect();
    let created: Vec<DateTime<Utc>> = outcomes.iter().map(|outcome| events[outcome.place].created_at).collect();
    let carts: Vec<Option<&str>> = outcomes.iter().map(|outcome| outcome.cart.as_deref()).collect();
    let effects: Vec<&str> = outcomes.iter().map(|outcome| outcome.effect.as_str()).collect();
    let reasons: Vec<Option<&str>> = outcomes.iter().map(|outcome| outcome.reason.map(Mismatch::as_str)).collect();
    // Sorted by id, so that two transactions that store the same events can't deadlock.
    sqlx::query!(
        r#"
        insert into stripe_events (id, kind, object_id, created_at, received_at, cart_id, effect, reason)
        select id, kind, object_id, created_at, $8, cart_id, effect, reason
        from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::text[], $7::text[])
            as event (id, kind, object_id, created_at, cart_id, effect, reason)
        order by id
        "#,
        &column(|event| &event.id) as &[&str],
        &column(|event| &event.kind) as &[&str],
        &objects as &[Option<&str>],
        &created,
        &carts as &[Option<&str>],
        &effects as &[&str],
        &reasons as &[Option<&str>],
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Applies an event that does not report a payment.
async fn take_effect(
    conn: &mut Connection,
    subject: &Subject<'_>,
    change: Change,
    now: DateTime<Utc>,
) -> sqlx::Result<Effect> {
    let (cart, version) = (subject.cart.as_str(), subject.version);
    let (changed, effect) = match change {
        Change::Processing => (payment_links::processing(conn, cart, version, now).await?, Effect::Processing),
        Change::PaymentFailed => {
            (payment_links::payment_failed(conn, cart, version, now).await?, Effect::PaymentFailed)
        }
        Change::Closed => (payment_links::closed(conn, cart, version, now).await?, Effect::Closed),
    };
    Ok(if changed { effect } else { Effect::None })
}

/// Applies payments: recovers each cart once, whatever its status. `there` are the existing carts,
/// which are locked.
async fn take_payments(
    conn: &mut Connection,
    payments: &[Subject<'_>],
    links: &mut Links,
    there: &HashSet<String>,
    now: DateTime<Utc>,
    outcomes: &mut [Outcome],
) -> sqlx::Result<()> {
    if payments.is_empty() {
        return Ok(());
    }
    let paid: Vec<LinkPayment<'_>> = payments.iter().map(|subject| subject.payment(links, now)).collect();
    let mut news = payment_links::paid(conn, &paid, now).await?;
    // A payment may have two events. The first one sets the time.
    let mut firsts: HashMap<&str, DateTime<Utc>> = HashMap::new();
    for subject in payments.iter().filter(|subject| there.contains(&subject.cart)) {
        firsts.entry(&subject.cart).or_insert_with(|| subject.event.created_at.min(now));
    }
    let (first_carts, times): (Vec<&str>, Vec<DateTime<Utc>>) = firsts.into_iter().unzip();
    let mut recovered = carts::recover_all(conn, &first_carts, RecoveredBy::Payment, &times, None, now).await?;
    let mut for_nothing = Vec::new();
    for subject in payments {
        let outcome = &mut outcomes[subject.number];
        // A payment may have two events. Only the first one changes the link.
        let paid = news.remove(&(subject.cart.clone(), subject.version));
        if paid.is_some_and(|paid| paid.has_early_reversals) {
            links.note_early_reversals(subject.link);
        }
        if !there.contains(&subject.cart) {
            (outcome.effect, outcome.reason) = (Effect::UnknownCart, Some(Mismatch::CartDeleted));
            continue;
        }
        outcome.effect = if recovered.remove(&subject.cart) { Effect::Recovered } else { Effect::AlreadyRecovered };
        outcome.reason = why_to_look(paid, outcome.effect);
        if outcome.reason == Some(Mismatch::PaidTwice) {
            for_nothing.push((subject.cart.as_str(), subject.version));
        }
    }
    timeline::note_not_recovered(conn, &for_nothing, now).await
}

/// Marks a link as paid after a job found the payment at Stripe: recovers the cart once,
/// whatever its status. `cart` is the cart of `payment`.
pub async fn mark_paid(
    conn: &mut Connection,
    cart: &CartId,
    payment: LinkPayment<'_>,
    now: DateTime<Utc>,
) -> sqlx::Result<Effect> {
    let (version, paid_at) = (payment.version, payment.paid_at.min(now));
    let exists = carts::lock(conn, cart).await?.is_some();
    let mut news = payment_links::paid(conn, &[LinkPayment { paid_at, ..payment }], now).await?;
    if !exists {
        return Ok(Effect::UnknownCart);
    }
    let recovered = carts::recover(conn, cart, RecoveredBy::Payment, paid_at, None, now).await?;
    let effect = if recovered { Effect::Recovered } else { Effect::AlreadyRecovered };
    let reason = why_to_look(news.remove(&(cart.to_string(), version)), effect);
    if reason == Some(Mismatch::PaidTwice) {
        timeline::note_not_recovered(conn, &[(cart.as_str(), version)], now).await?;
    }
    reversals::sum_up(conn, &[cart.as_str()], now).await?;
    if let Some(why) = reason {
        attention::note_payment(conn, cart.as_str(), version, effect, why, now).await?;
    }
    Ok(effect)
}

/// Why the operator should look at a payment; `None` if there is no reason. `paid` is what
/// [`payment_links::paid`] returned for its link: `None` if the link was paid before.
fn why_to_look(paid: Option<Paid>, effect: Effect) -> Option<Mismatch> {
    match paid {
        Some(_) if effect == Effect::AlreadyRecovered => Some(Mismatch::PaidTwice),
        Some(Paid { fits: false, .. }) => Some(Mismatch::CartChanged),
        _ => None,
    }
}
