//! Asking for a session: written down, and queued.

use std::time::Duration;

use chrono::{DateTime, Utc};
use queue::{EnqueueOptions, JobId};

use super::{Failure, LinkStatus, PaymentLink, RequestedBy, fail, latest, outcome::settle_later};
use crate::{
    carts::{self, CartId, CartStatus},
    db::Connection,
    jobs::CreatePaymentLink,
};

/// How often in a row Stripe may fail for good under a key before nobody asks any more.
const MOST_REPLACEMENTS: i16 = 5;

/// Asks for a session that lives until `session_expires_at`: writes the request
/// down and queues its job. The cart must be locked, and `newest` be the newest
/// request as it was found under that lock. A live link is answered instead.
///
/// A request that is pending already is joined, unless its job is dead. Once the
/// transaction has committed, [`wake`] hurries the job along.
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
        let why = last_error.as_deref().map_or_else(|| Failure::new("job_lost", "its job was lost"), Failure::told);
        if !give_up(conn, &pending, why, now).await? {
            // The job, which needs no lock on the cart, ended between the two
            // looks, and the request with it: look again at what came of it.
            newest = latest(conn, cart_id.as_str()).await?;
        }
    }
    if let Some(live) = newest.clone().filter(|link| link.is_live(now)) {
        return Ok(live); // opened since the caller looked
    }
    let version = newest.map_or(1, |link| link.version + 1);
    let trace = queue::telemetry::current_context();
    let cart_id = cart_id.to_string();
    let new = NewRequest { cart_id, version, replacements: 0, session_expires_at, requested_by, trace };
    insert_one(conn, new, Duration::ZERO, now).await
}

/// As [`request`], for different carts whose newest requests are neither pending nor live.
pub async fn request_first(
    conn: &mut Connection,
    new: Vec<NewRequest>,
    now: DateTime<Utc>,
) -> sqlx::Result<Vec<PaymentLink>> {
    insert(conn, new, Duration::ZERO, now).await
}

/// Wakes the workers that make links.
pub async fn wake(conn: &mut Connection) -> sqlx::Result<()> {
    queue::wake::<CreatePaymentLink>(conn).await
}

/// Replaces a request that can't succeed under its idempotency key by one with
/// the next version, which is asked for after a pause. `None`: that would be the
/// sixth in a row, or nobody wants it any more.
pub async fn replace(
    conn: &mut Connection,
    link: &PaymentLink,
    why: Failure<'_>,
    now: DateTime<Utc>,
) -> sqlx::Result<Option<PaymentLink>> {
    // The cart first, as everybody does: who ends it meanwhile finds this request or the next.
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
        trace: queue::telemetry::current_context(),
    };
    let pause = Duration::from_secs(1 << link.replacements.clamp(0, MOST_REPLACEMENTS));
    insert_one(conn, next, pause, now).await.map(Some)
}

/// A request that is to be written down.
#[derive(Debug, Clone)]
pub struct NewRequest {
    /// Whose link it is for.
    pub cart_id: String,
    /// One more than that of the cart's newest request.
    pub version: i32,
    /// How many requests in a row it replaces.
    pub replacements: i16,
    /// When the session is to end.
    pub session_expires_at: DateTime<Utc>,
    /// Who asks.
    pub requested_by: RequestedBy,
    /// Where whoever asked stands in a trace.
    pub trace: Option<String>,
}

async fn insert_one(
    conn: &mut Connection,
    new: NewRequest,
    delay: Duration,
    now: DateTime<Utc>,
) -> sqlx::Result<PaymentLink> {
    insert(conn, vec![new], delay, now).await?.pop().ok_or(sqlx::Error::RowNotFound)
}

async fn insert(
    conn: &mut Connection,
    new: Vec<NewRequest>,
    delay: Duration,
    now: DateTime<Utc>,
) -> sqlx::Result<Vec<PaymentLink>> {
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let job = |new: &NewRequest| CreatePaymentLink { cart_id: new.cart_id.clone(), version: new.version };
    let jobs: Vec<_> = new.iter().map(|new| (job(new), new.trace.clone())).collect();
    // Whoever asked wakes the workers; a delayed one is found by polling.
    let options = EnqueueOptions { delay, quiet: true, ..EnqueueOptions::default() };
    let job_ids = queue::enqueue_each(conn, &jobs, options).await?;
    // The key names this version, which is new: no other job can have it.
    let job_ids = job_ids.into_iter().collect::<Option<Vec<_>>>().ok_or(sqlx::Error::RowNotFound)?;
    let requested_by: Vec<&str> = new.iter().map(|new| new.requested_by.as_str()).collect();
    let links: Vec<PaymentLink> = new.into_iter().zip(job_ids).map(|(new, job_id)| pending(new, job_id, now)).collect();
    let cart_ids: Vec<&str> = links.iter().map(|link| link.cart_id.as_str()).collect();
    let versions: Vec<i32> = links.iter().map(|link| link.version).collect();
    let job_ids: Vec<JobId> = links.iter().map(|link| link.job_id).collect();
    let ends: Vec<DateTime<Utc>> = links.iter().map(|link| link.session_expires_at).collect();
    let replacements: Vec<i16> = links.iter().map(|link| link.replacements).collect();
    sqlx::query!(
        r#"
        insert into payment_links
            (cart_id, version, status, job_id, session_expires_at, replacements, requested_by, created_at, updated_at,
             amount_minor, currency)
        select cart_id, version, 'pending', job_id, session_expires_at, replacements, requested_by, $6, $6,
               carts.total_minor, carts.currency
        from unnest($1::text[], $2::integer[], $3::uuid[], $4::timestamptz[], $5::smallint[], $7::text[])
            as new (cart_id, version, job_id, session_expires_at, replacements, requested_by)
        left join carts on carts.id = new.cart_id
        "#,
        &cart_ids as &[&str],
        &versions,
        &job_ids,
        &ends,
        &replacements,
        now,
        &requested_by as &[&str],
    )
    .execute(&mut *conn)
    .await?;
    Ok(links)
}

fn pending(new: NewRequest, job_id: JobId, now: DateTime<Utc>) -> PaymentLink {
    PaymentLink {
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
    }
}

/// Nothing will come of a pending request. If Stripe was asked before, and did
/// not answer, it may have made a session all the same: that is found out first.
///
/// `false`: it is not pending any more.
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
