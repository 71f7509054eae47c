//! Requests payment links: stores the request and enqueues its job.

use std::time::Duration;

use chrono::{DateTime, Utc};
use queue::EnqueueOptions;

use super::{
    Failure, LinkStatus, PaymentLink, RequestedBy, fail, latest,
    outcome::settle_later,
    recovery::{self, RecoveryLink},
};
use crate::{
    carts::{self, CartId, CartStatus},
    clock::Clock,
    db::Connection,
    jobs::CreatePaymentLink,
};

/// Maximum number of consecutive replacements of requests that failed permanently.
const MOST_REPLACEMENTS: i16 = 5;
/// The longest session, in minutes. Stripe ends a session after 24 hours at the latest
/// (<https://docs.stripe.com/api/checkout/sessions/create#create_checkout_session-expires_at>);
/// five minutes less, so that neither clocks nor a slow first attempt exceed the limit.
pub(super) const LONGEST_SESSION: i32 = 24 * 60 - 5;
/// The shortest session, in minutes. Stripe's minimum is 30; five more for retries.
pub(super) const SHORTEST_SESSION: i32 = 35;

/// The difference of a request from the one that it replaces, which Stripe refused for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// It has another idempotency key, because the last one is unusable.
    NewKey,
    /// Its session expires later.
    NewExpiry,
    /// It leaves out the shopper's address, which the shopper then enters on Stripe's page.
    WithoutEmail,
}

impl Remedy {
    /// The pause before the replacement, after `replacements` others: Stripe may need time to recover
    /// from an error that spent a key, while a refused parameter can be sent differently at once.
    fn pause(self, replacements: i16) -> Duration {
        if self != Self::NewKey && replacements == 0 {
            return Duration::ZERO;
        }
        Duration::from_secs(1 << replacements.clamp(0, MOST_REPLACEMENTS))
    }
}

/// Requests a session that lives as long as the cart's recovery link, as far as Stripe's limits
/// allow: stores the request and enqueues its job. With `recovery_end`, first makes the recovery link,
/// or extends it, and returns it. The cart must be locked, and `newest` must be its newest request,
/// read under that lock.
///
/// Returns an existing link instead if it is live, or pending with an unfinished job.
pub async fn request(
    conn: &mut Connection,
    cart_id: &CartId,
    mut newest: Option<PaymentLink>,
    requested_by: RequestedBy,
    recovery_end: Option<DateTime<Utc>>,
    clock: &Clock,
) -> sqlx::Result<(PaymentLink, Option<RecoveryLink>)> {
    let now = clock.now();
    if let Some(pending) = newest.clone().filter(|link| link.status == LinkStatus::Pending) {
        let job = queue::find(conn, pending.job_id).await?;
        if job.as_ref().is_some_and(|job| job.is_unfinished()) {
            return Ok((pending, extend(conn, cart_id, recovery_end).await?));
        }
        let last_error = job.and_then(|job| job.last_error);
        let why =
            last_error.as_deref().map_or_else(|| Failure::new("job_lost", "its job was lost"), Failure::without_code);
        if !give_up(conn, &pending, why, now).await? {
            // The job, which needs no lock on the cart, ended the request between the two reads.
            // Read the result.
            newest = latest(conn, cart_id.as_str()).await?;
        }
    }
    if let Some(live) = newest.clone().filter(|link| link.is_live(now)) {
        return Ok((live, extend(conn, cart_id, recovery_end).await?)); // opened since the caller looked
    }
    let version = newest.map_or(1, |link| link.version + 1);
    let cart_id = cart_id.to_string();
    let new = NewRequest { cart_id, version, replacements: 0, requested_by, recovery_end, without_email: false };
    insert(conn, new, Duration::ZERO, clock).await
}

async fn extend(
    conn: &mut Connection,
    cart_id: &CartId,
    recovery_end: Option<DateTime<Utc>>,
) -> sqlx::Result<Option<RecoveryLink>> {
    match recovery_end {
        Some(end) => recovery::extend(conn, cart_id, end).await.map(Some),
        None => Ok(None),
    }
}

/// Replaces a request that can't succeed by one with the next version, which `remedy` makes
/// different. `None` if five were replaced in a row, or the link is not wanted any more.
pub async fn replace(
    conn: &mut Connection,
    link: &PaymentLink,
    why: Failure<'_>,
    remedy: Remedy,
    clock: &Clock,
) -> sqlx::Result<Option<PaymentLink>> {
    let now = clock.now();
    // Lock the cart first, like all other code: whoever ends it then finds this request or the
    // next.
    let cart = match link.cart_id.parse::<CartId>() {
        Ok(id) => carts::lock(&mut *conn, &id).await?,
        Err(_) => None,
    };
    let wanted = cart.is_some_and(|cart| cart.status == CartStatus::Abandoned);
    let ended = match remedy {
        Remedy::NewKey => settle_later(&mut *conn, link, why, now).await?,
        Remedy::NewExpiry | Remedy::WithoutEmail => give_up(&mut *conn, link, why, now).await?,
    };
    if !ended || !wanted || link.replacements >= MOST_REPLACEMENTS {
        return Ok(None);
    }
    let next = NewRequest {
        cart_id: link.cart_id.clone(),
        version: link.version + 1,
        replacements: link.replacements + 1,
        requested_by: RequestedBy::Replacement,
        recovery_end: None,
        without_email: remedy == Remedy::WithoutEmail,
    };
    let (next, _) = insert(conn, next, remedy.pause(link.replacements), clock).await?;
    Ok(Some(next))
}

/// A request to be stored.
struct NewRequest {
    cart_id: String,
    /// One more than the version of the cart's newest request.
    version: i32,
    /// The number of consecutive requests that it replaces.
    replacements: i16,
    requested_by: RequestedBy,
    /// When the recovery link stops working from now on; `None` keeps its end.
    recovery_end: Option<DateTime<Utc>>,
    /// Whether Stripe has just refused the cart's address.
    without_email: bool,
}

/// Stores the request, with the cart's current amount and currency and the end of the session by
/// Postgres' clock, and its job. An address that Stripe refused for the previous request is left out
/// as long as the cart keeps it.
async fn insert(
    conn: &mut Connection,
    new: NewRequest,
    delay: Duration,
    clock: &Clock,
) -> sqlx::Result<(PaymentLink, Option<RecoveryLink>)> {
    let now = clock.now();
    let job = CreatePaymentLink { cart_id: new.cart_id.clone(), version: new.version };
    let options = EnqueueOptions { delay, ..EnqueueOptions::default() };
    // The job's unique key contains the new version, so no other job can have it.
    let job_id = queue::enqueue_with(conn, &job, options).await?.ok_or(sqlx::Error::RowNotFound)?;
    let (token, token_hash) = recovery::new_token();
    let row = sqlx::query!(
        r#"
        with extended as (
            insert into recovery_links (token_hash, token, cart_id, expires_at)
            select $11, $12, $1, $13 where $13::timestamptz is not null
            on conflict (cart_id) do update set expires_at = excluded.expires_at
            returning token, expires_at
        )
        insert into payment_links
            (cart_id, version, status, job_id, session_expires_at, replacements, requested_by, created_at, updated_at,
             amount_minor, currency, settings)
        select $1, $2, 'pending', $3,
               (select least(greatest(coalesce($13, max(recovery.expires_at)), clock.now + make_interval(mins => $8)),
                             clock.now + make_interval(mins => $9))
                from recovery_links recovery where recovery.cart_id = $1),
               $5, $7, $6, $6,
               (select total_minor from carts where id = $1), (select currency from carts where id = $1),
               case when $10 or exists (
                   select from payment_links refused
                   where refused.cart_id = $1 and refused.version = $2 - 1 and refused.settings @> '{"withoutEmail": true}'
                     and not exists (select from cart_events changed
                                     where changed.cart_id = $1 and changed.kind = 'changed'
                                       and changed.at >= refused.created_at
                                       and changed.details->'fields' ? 'customerEmail'))
               then '{"withoutEmail": true}'::jsonb end
        from (select coalesce($4::timestamptz, now()) as now) clock
        returning session_expires_at, (select token from extended) as token, (select expires_at from extended) as recovery_end
        "#,
        new.cart_id,
        new.version,
        job_id,
        clock.stopped(),
        new.replacements,
        now,
        new.requested_by.as_str(),
        SHORTEST_SESSION,
        LONGEST_SESSION,
        new.without_email,
        token_hash,
        token,
        new.recovery_end,
    )
    .fetch_one(&mut *conn)
    .await?;
    let recovery = row.token.zip(row.recovery_end).map(|(token, expires_at)| RecoveryLink { token, expires_at });
    let link = PaymentLink {
        cart_id: new.cart_id,
        version: new.version,
        status: LinkStatus::Pending,
        job_id,
        session_expires_at: row.session_expires_at,
        replacements: new.replacements,
        attempted_at: None,
        session_id: None,
        url: None,
        failure: None,
        updated_at: now,
    };
    Ok((link, recovery))
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
