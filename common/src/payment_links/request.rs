//! Requests payment links: stores the requests and enqueues their jobs.

mod insert;
mod replacement;

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use queue::{DiscardedJob, JobId};

pub(super) use self::insert::{LONGEST_SESSION, SHORTEST_SESSION};
use self::insert::{NewRequest, insert};
pub use self::replacement::{Remedy, replace};
use super::{
    Failure, LinkStatus, PaymentLink, RequestedBy, fail, is_processing, latest, latest_of,
    outcome::settle_later,
    recovery::{self, RecoveryLink},
    select_links,
};
use crate::{
    audit::{self, Action, KeyName},
    carts::{self, CartId, CartStatus, LockedCart, TryLock},
    clock::Clock,
    db::Connection,
    money::Unchargeable,
};

/// A request for a cart's payment link.
#[derive(Debug, Clone)]
pub struct LinkRequest {
    /// The cart.
    pub cart_id: CartId,
    /// The party that requests the link.
    pub requested_by: RequestedBy,
    /// When the recovery link stops working from now on. `None` keeps it as it is, and requires that it works.
    pub recovery_end: Option<DateTime<Utc>>,
    /// The API key of the request; `None` for a shopper's.
    key: Option<KeyName>,
    /// The trace that the job continues.
    trace: Option<String>,
}

impl LinkRequest {
    /// A request of the current trace.
    pub fn new(cart_id: CartId, requested_by: RequestedBy, recovery_end: Option<DateTime<Utc>>) -> Self {
        Self { cart_id, requested_by, recovery_end, key: None, trace: queue::telemetry::current_context() }
    }

    /// Names the API key of the request, for the timeline and the audit log.
    pub fn with_key(self, key: KeyName) -> Self {
        Self { key: Some(key), ..self }
    }
}

/// The response to a request.
#[derive(Debug)]
pub enum Answer {
    /// The live link, or the pending request, with the recovery link.
    Link(PaymentLink, Option<RecoveryLink>),
    /// There is no link.
    Refused(Refusal),
    /// There is no such cart.
    Missing,
    /// Another transaction holds the cart's lock. Nothing was done.
    Held,
}

/// Why a cart can't be paid now.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// A payment of one of the cart's sessions is in progress.
    #[error("A payment for this cart is in progress")]
    PaymentInProgress,
    /// The cart has another status.
    #[error("The cart is {}, not abandoned", .0.as_str())]
    NotAbandoned(CartStatus),
    /// Stripe would refuse the total.
    #[error("{0}")]
    Unchargeable(Unchargeable),
    /// The recovery link does not work any more.
    #[error("The cart's recovery link has expired")]
    RecoveryLinkExpired,
}

/// Checks that the cart is abandoned, and that Stripe can charge its total.
pub fn check_payable(cart: &LockedCart) -> Result<(), Refusal> {
    if cart.status != CartStatus::Abandoned {
        return Err(Refusal::NotAbandoned(cart.status));
    }
    cart.currency.check_chargeable(cart.total_minor).map_err(Refusal::Unchargeable)
}

/// Requests sessions for different carts, each of which lives as long as the cart's recovery link, as far
/// as Stripe's limits allow: stores the requests and enqueues their jobs. If a cart's link is live, or
/// pending with an unfinished job, returns that instead. Locks of carts are not waited for. Returns an
/// answer for each request, in their order.
pub async fn request(conn: &mut Connection, requests: &[LinkRequest], clock: &Clock) -> sqlx::Result<Vec<Answer>> {
    let ids: Vec<CartId> = requests.iter().map(|request| request.cart_id.clone()).collect();
    let carts = carts::try_lock_all(conn, &ids).await?;
    let ids: Vec<&str> = ids.iter().map(CartId::as_str).collect();
    let mut newest = latest_of(conn, &ids).await?; // read once the carts are locked, when no other request can be stored
    let (mut answers, mut new) = (Vec::with_capacity(requests.len()), Vec::new());
    for (request, cart) in requests.iter().zip(carts) {
        let decision = match cart {
            TryLock::Locked(cart) => {
                let newest = newest.remove(request.cart_id.as_str());
                decide(conn, request, &cart, newest, clock.now()).await?
            }
            TryLock::Missing => Decision::Answer(Answer::Missing),
            TryLock::Held => Decision::Answer(Answer::Held),
        };
        answers.push(match decision {
            Decision::Answer(answer) => Some(answer),
            Decision::Store(request) => {
                new.push(request);
                None
            }
        });
    }
    if new.is_empty() {
        return Ok(answers.into_iter().flatten().collect());
    }
    let mut stored = insert(conn, &new, Duration::ZERO, clock).await?.into_iter();
    let answer =
        |answer: Option<Answer>| answer.or_else(|| stored.next().map(|(link, recovery)| Answer::Link(link, recovery)));
    Ok(answers.into_iter().filter_map(answer).collect())
}

/// What a request leads to.
enum Decision {
    Answer(Answer),
    Store(NewRequest),
}

/// Decides about a request for a locked cart. `newest` is its newest request, read under that lock.
async fn decide(
    conn: &mut Connection,
    request: &LinkRequest,
    cart: &LockedCart,
    mut newest: Option<PaymentLink>,
    now: DateTime<Utc>,
) -> sqlx::Result<Decision> {
    let id = &request.cart_id;
    let refuse = |why| Ok(Decision::Answer(Answer::Refused(why)));
    if newest.is_some() && is_processing(conn, id.as_str()).await? {
        return refuse(Refusal::PaymentInProgress);
    }
    if let Err(why) = check_payable(cart) {
        return refuse(why);
    }
    if let Some(live) = newest.clone().filter(|link| link.is_live(now)) {
        return Ok(Decision::Answer(Answer::Link(live, recovery::find(conn, id).await?)));
    }
    if request.recovery_end.is_none() {
        let known = recovery::find(conn, id).await?;
        if known.is_none_or(|recovery| recovery.expires_at <= now) {
            return refuse(Refusal::RecoveryLinkExpired);
        }
    }
    if let Some(pending) = newest.clone().filter(|link| link.status == LinkStatus::Pending) {
        let job = queue::find(conn, pending.job_id).await?;
        if job.as_ref().is_some_and(|job| job.is_unfinished()) {
            return Ok(Decision::Answer(Answer::Link(pending, extended(conn, request, now).await?)));
        }
        let last_error = job.and_then(|job| job.last_error);
        let why =
            last_error.as_deref().map_or_else(|| Failure::new("job_lost", "its job was lost"), Failure::without_code);
        if !give_up(conn, &pending, why, now).await? {
            // The job, which needs no lock on the cart, ended the request between the two reads.
            // Read the result.
            newest = latest(conn, id.as_str()).await?;
        }
    }
    if let Some(live) = newest.clone().filter(|link| link.is_live(now)) {
        return Ok(Decision::Answer(Answer::Link(live, extended(conn, request, now).await?))); // opened just now
    }
    Ok(Decision::Store(NewRequest {
        cart_id: id.to_string(),
        version: newest.map_or(1, |link| link.version + 1),
        replacements: 0,
        requested_by: request.requested_by,
        key: request.key.clone(),
        recovery_end: request.recovery_end,
        without_email: false,
        trace: request.trace.clone(),
    }))
}

/// The recovery link, made or extended as the request wants.
async fn extended(
    conn: &mut Connection,
    request: &LinkRequest,
    now: DateTime<Utc>,
) -> sqlx::Result<Option<RecoveryLink>> {
    match request.recovery_end {
        Some(end) => {
            if let Some(key) = &request.key {
                audit::note(conn, key, Action::RecoveryLinkExtended, request.cart_id.as_str(), now).await?;
            }
            recovery::extend(conn, &request.cart_id, end).await.map(Some)
        }
        None => recovery::find(conn, &request.cart_id).await,
    }
}

/// Gives up the pending requests whose jobs were deleted, because nothing would end them.
pub(crate) async fn give_up_links_of(
    conn: &mut Connection,
    discarded: &[DiscardedJob],
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    let errors: HashMap<JobId, Option<&str>> =
        discarded.iter().map(|job| (job.id, job.last_error.as_deref())).collect();
    let carts: Vec<&str> = discarded.iter().filter_map(|job| job.subject.as_deref()).collect();
    if carts.is_empty() {
        return Ok(());
    }
    let pending = select_links!("where status = 'pending' and cart_id = any ($1)", &carts as &[&str]);
    for link in pending.fetch_all(&mut *conn).await? {
        if let Some(error) = errors.get(&link.job_id) {
            // The timeline has the death of the job already.
            give_up(conn, &link, Failure::without_code(error.unwrap_or("its job was discarded")), now).await?;
        }
    }
    Ok(())
}

/// Gives up pending requests whose jobs are gone, for example because dead jobs are not kept forever.
/// At most 1,000 at a time; returns the number. `conn` must be in a transaction.
pub async fn give_up_without_job(conn: &mut Connection, now: DateTime<Utc>) -> sqlx::Result<usize> {
    let lost = select_links!(
        "where status = 'pending' and not exists (select from jobs where jobs.id = job_id) limit 1000 for update skip locked",
    );
    let lost = lost.fetch_all(&mut *conn).await?;
    for link in &lost {
        give_up(conn, link, Failure::without_code("its job was lost"), now).await?;
    }
    Ok(lost.len())
}

/// Gives up a pending request. If it was sent to Stripe before, a session may exist in spite of the
/// missing response; a job finds and closes it first.
///
/// `false` if the request is not pending any more.
pub async fn give_up(
    conn: &mut Connection,
    link: &PaymentLink,
    why: Failure<'_>,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    if link.attempted_at.is_some() {
        settle_later(conn, link, why, now).await
    } else {
        fail(conn, link, why, now).await
    }
}
