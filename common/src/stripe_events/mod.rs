//! Stripe's events: each once, whatever the order, effect and record in one transaction.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use crate::{
    carts::{self, CartId, RecoveredBy},
    db::Connection,
    payment_links, timeline,
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

impl StripeEvent {
    /// Whether it says that money has arrived.
    fn is_payment(&self) -> bool {
        match self.kind.as_str() {
            "checkout.session.completed" => self.paid,
            "checkout.session.async_payment_succeeded" | "payment_intent.succeeded" => true,
            _ => false,
        }
    }
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

/// Stores the events and does what they mean, all or nothing; answers what each
/// did. The caller's transaction decides.
pub async fn apply(conn: &mut Connection, events: &[StripeEvent], now: DateTime<Utc>) -> sqlx::Result<Vec<Effect>> {
    let mut new = store(conn, events, now).await?;
    let mut effects = vec![Effect::Repeated; events.len()];
    let (mut payments, mut others) = (Vec::new(), Vec::new());
    for (place, event) in events.iter().enumerate() {
        if !new.remove(&event.id) {
            continue; // it came before, or earlier in this batch
        }
        let (cart, version) = subject(conn, event).await?;
        // Without a version there is no such request, and nothing matches.
        let about = About { place, event, cart, version: version.unwrap_or(0) };
        if event.is_payment() { payments.push(about) } else { others.push(about) }
    }
    let about = payments.iter().chain(&others);
    let carts: Vec<&str> = about.filter_map(|about| about.cart.as_ref()).map(CartId::as_str).collect();
    // The carts first, as everybody does: locks taken in one order can't deadlock.
    let there = carts::lock_all(conn, &carts).await?;
    take_payments(conn, &payments, &there, now, &mut effects).await?;
    for about in &others {
        effects[about.place] = take_effect(conn, about, now).await?;
    }
    payments.append(&mut others);
    note_effects(conn, &payments, &effects).await?;
    Ok(effects)
}

/// A new event and what it is about.
struct About<'a> {
    place: usize,
    event: &'a StripeEvent,
    cart: Option<CartId>,
    version: i32,
}

/// Answers the ids of those that are new.
async fn store(conn: &mut Connection, events: &[StripeEvent], now: DateTime<Utc>) -> sqlx::Result<HashSet<String>> {
    let column = |of: fn(&StripeEvent) -> &str| -> Vec<&str> { events.iter().map(of).collect() };
    let objects: Vec<Option<&str>> = events.iter().map(|event| event.object_id.as_deref()).collect();
    let created: Vec<DateTime<Utc>> = events.iter().map(|event| event.created_at).collect();
    // In one order, so that two who store the same events can't wait for each other.
    let new = sqlx::query_scalar!(
        r#"
        insert into stripe_events (id, kind, object_id, created_at, received_at, effect)
        select id, kind, object_id, created_at, $5, 'none'
        from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) as event (id, kind, object_id, created_at)
        order by id
        on conflict (id) do nothing
        returning id
        "#,
        &column(|event| &event.id) as &[&str],
        &column(|event| &event.kind) as &[&str],
        &objects as &[Option<&str>],
        &created,
        now,
    )
    .fetch_all(conn)
    .await?;
    Ok(new.into_iter().collect())
}

async fn note_effects(conn: &mut Connection, new: &[About<'_>], effects: &[Effect]) -> sqlx::Result<()> {
    if new.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = new.iter().map(|about| about.event.id.as_str()).collect();
    let carts: Vec<Option<&str>> = new.iter().map(|about| about.cart.as_ref().map(CartId::as_str)).collect();
    let effects: Vec<&str> = new.iter().map(|about| effects[about.place].as_str()).collect();
    sqlx::query!(
        r#"
        update stripe_events set cart_id = noted.cart_id, effect = noted.effect
        from unnest($1::text[], $2::text[], $3::text[]) as noted (id, cart_id, effect)
        where stripe_events.id = noted.id
        "#,
        &ids as &[&str],
        &carts as &[Option<&str>],
        &effects as &[&str],
    )
    .execute(conn)
    .await?;
    Ok(())
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

/// What an event that tells of no payment does.
async fn take_effect(conn: &mut Connection, about: &About<'_>, now: DateTime<Utc>) -> sqlx::Result<Effect> {
    let happened = |changed, effect| if changed { effect } else { Effect::None };
    let kind = about.event.kind.as_str();
    let matters = matches!(
        kind,
        "checkout.session.completed" | "checkout.session.async_payment_failed" | "checkout.session.expired"
    );
    if !matters {
        return Ok(Effect::None);
    }
    let Some(cart) = about.cart.as_ref().map(CartId::as_str) else { return Ok(Effect::UnknownCart) };
    Ok(match kind {
        "checkout.session.completed" => {
            happened(payment_links::processing(conn, cart, about.version, now).await?, Effect::Processing)
        }
        "checkout.session.async_payment_failed" => {
            happened(payment_links::payment_failed(conn, cart, about.version, now).await?, Effect::PaymentFailed)
        }
        _ => happened(payment_links::closed(conn, cart, about.version, now).await?, Effect::Closed),
    })
}

/// Payments arrived: their carts are recovered, each once, whatever they were
/// before. The carts that are `there` are locked.
async fn take_payments(
    conn: &mut Connection,
    payments: &[About<'_>],
    there: &HashSet<String>,
    now: DateTime<Utc>,
    effects: &mut [Effect],
) -> sqlx::Result<()> {
    let known: Vec<(&About<'_>, &str)> =
        payments.iter().filter_map(|about| about.cart.as_ref().map(|cart| (about, cart.as_str()))).collect();
    for about in payments {
        effects[about.place] = Effect::UnknownCart;
    }
    if known.is_empty() {
        return Ok(());
    }
    let (carts, versions): (Vec<&str>, Vec<i32>) = known.iter().map(|(about, cart)| (*cart, about.version)).unzip();
    let mut news = payment_links::paid(conn, &carts, &versions, now).await?;
    // Of two events of one payment the first one counts.
    let mut firsts: HashMap<&str, DateTime<Utc>> = HashMap::new();
    for (about, cart) in known.iter().filter(|(_, cart)| there.contains(*cart)) {
        firsts.entry(cart).or_insert_with(|| about.event.created_at.min(now));
    }
    let (first_carts, times): (Vec<&str>, Vec<DateTime<Utc>>) = firsts.into_iter().unzip();
    let mut recovered = carts::recover_all(conn, &first_carts, RecoveredBy::Payment, &times, now).await?;
    let mut for_nothing = Vec::new();
    for (about, cart) in known.iter().filter(|(_, cart)| there.contains(*cart)) {
        // Two events of one payment are one payment: its link is news once.
        let news = news.remove(&((*cart).to_owned(), about.version));
        effects[about.place] = if recovered.remove(*cart) { Effect::Recovered } else { Effect::AlreadyRecovered };
        if news && effects[about.place] == Effect::AlreadyRecovered {
            for_nothing.push((*cart, about.version));
        }
    }
    timeline::note_not_recovered(conn, &for_nothing, now).await
}

/// A job found out, by asking Stripe, that a payment arrived: the cart is
/// recovered, once, whatever it was before.
pub async fn money_came(
    conn: &mut Connection,
    cart: &CartId,
    version: i32,
    paid_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> sqlx::Result<Effect> {
    let exists = carts::lock(conn, cart).await?.is_some();
    let news = payment_links::paid(conn, &[cart.as_str()], &[version], now).await?;
    if !exists {
        return Ok(Effect::UnknownCart);
    }
    if carts::recover(conn, cart, RecoveredBy::Payment, paid_at.min(now), now).await? {
        return Ok(Effect::Recovered);
    }
    if !news.is_empty() {
        timeline::note_not_recovered(conn, &[(cart.as_str(), version)], now).await?;
    }
    Ok(Effect::AlreadyRecovered)
}
