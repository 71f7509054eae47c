//! Requests payment links: stores the request and enqueues its job.

use std::time::Duration;

use chrono::{DateTime, Utc};
use queue::EnqueueOptions;

use super::{Failure, LinkStatus, PaymentLink, RequestedBy, fail, latest, outcome::settle_later};
use crate::{
    carts::{self, CartId, CartStatus},
    db::Connection,
    jobs::CreatePaymentLink,
};

/// Maximum number of consecutive replacements of requests that failed permanently.
const MOST_REPLACEMENTS: i16 = 5;

/// Requests a session that lives until `session_expires_at`: stores the request and enqueues its
/// job. The cart must be locked, and `newest` must be its newest request, read under that lock.
///
/// Returns an existing link instead if it is live, or pending with an unfinished job.
pub async fn request(
    conn: &mut Connection,
    cart_id: &CartId,
    mut newest: Option<PaymentLink>,
    session_expires_at: DateTime<Utc>,
    requested_by: RequestedBy,
    now: DateTime<Utc>,
) -> sqlx::Result<PaymentLink> {
    if let Some(pending) = newest.clone().filter(|link| link.status == LinkStatus::Pending) {
        let job = queue::find(conn, pending.job_id).await?;
        if job.as_ref().is_some_and(|job| job.is_unfinished()) {
            return Ok(pending);
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
        return Ok(live); // opened since the caller looked
    }
    let version = newest.map_or(1, |link| link.version + 1);
    let cart_id = cart_id.to_string();
    let new = NewRequest { cart_id, version, replacements: 0, session_expires_at, requested_by };
    insert(conn, new, Duration::ZERO, now).await
}

/// Replaces a request that can't succeed under its idempotency key by one with the next version,
/// which is sent after a pause. `None` if five were replaced in a row, or the link is not wanted
/// any more.
pub async fn replace(
    conn: &mut Connection,
    link: &PaymentLink,
    why: Failure<'_>,
    now: DateTime<Utc>,
) -> sqlx::Result<Option<PaymentLink>> {
    // Lock the cart first, like all other code: whoever ends it then finds this request or the
    // next.
    let cart = match link.cart_id.parse::<CartId>() {
        Ok(id) => carts::lock(&mut *conn, &id).await?,
        Err(_) => None,
    };
    let wanted = cart.is_some_and(|cart| cart.status == CartStatus::Abandoned);
    if !settle_later(&mut *conn, link, why, now).await? || !wanted || link.replacements >= MOST_REPLACEMENTS {
        return Ok(None);
    }
    let next = NewRequest {
        cart_id: link.cart_id.clone(),
        version: link.version + 1,
        replacements: link.replacements + 1,
        session_expires_at: link.session_expires_at,
        requested_by: RequestedBy::Replacement,
    };
    let pause = Duration::from_secs(1 << link.replacements.clamp(0, MOST_REPLACEMENTS));
    insert(conn, next, pause, now).await.map(Some)
}

/// A request to be stored.
struct NewRequest {
    cart_id: String,
    /// One more than the version of the cart's newest request.
    version: i32,
    /// The number of consecutive requests that it replaces.
    replacements: i16,
    /// When the session expires.
    session_expires_at: DateTime<Utc>,
    requested_by: RequestedBy,
}

/// Stores the request, with the cart's current amount and currency, and its job.
async fn insert(
    conn: &mut Connection,
    new: NewRequest,
    delay: Duration,
    now: DateTime<Utc>,
) -> sqlx::Result<PaymentLink> {
    let job = CreatePaymentLink { cart_id: new.cart_id.clone(), version: new.version };
    let options = EnqueueOptions { delay, ..EnqueueOptions::default() };
    // The job's unique key contains the new version, so no other job can have it.
    let job_id = queue::enqueue_with(conn, &job, options).await?.ok_or(sqlx::Error::RowNotFound)?;
    sqlx::query!(
        r#"
        insert into payment_links
            (cart_id, version, status, job_id, session_expires_at, replacements, requested_by, created_at, updated_at,
             amount_minor, currency)
        select $1, $2, 'pending', $3, $4, $5, $7, $6, $6,
               (select total_minor from carts where id = $1), (select currency from carts where id = $1)
        "#,
        new.cart_id,
        new.version,
        job_id,
        new.session_expires_at,
        new.replacements,
        now,
        new.requested_by.as_str(),
    )
    .execute(&mut *conn)
    .await?;
    Ok(PaymentLink {
        cart_id: new.cart_id,
        version: new.version,
        status: LinkStatus::Pending,
        job_id,
        session_expires_at: new.session_expires_at,
        replacements: new.replacements,
        attempted_at: None,
        session_id: None,
        url: None,
        failure: None,
        updated_at: now,
    })
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
