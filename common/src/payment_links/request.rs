//! Asking for a session: written down, and queued.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{LinkStatus, PaymentLink, fail, latest, notify};
use crate::{
    carts::CartId,
    jobs::{ClosePaymentLink, CreatePaymentLink},
};

/// Asks for a session that lives until `session_expires_at`: writes the request
/// down and queues its job. The cart must be locked. A live link is answered instead.
///
/// A request that is pending already is joined, unless its job is dead.
pub async fn request(
    conn: &mut PgConnection,
    cart_id: &CartId,
    session_expires_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> sqlx::Result<PaymentLink> {
    let mut newest = latest(conn, cart_id.as_str()).await?;
    if let Some(pending) = newest.clone().filter(|link| link.status == LinkStatus::Pending) {
        let job = queue::find(conn, pending.job_id).await?;
        if job.as_ref().is_some_and(|job| job.is_unfinished()) {
            return Ok(pending);
        }
        let why = job.and_then(|job| job.last_error).unwrap_or_else(|| "its job was lost".to_owned());
        if !give_up(conn, &pending, &why, now).await? {
            // The job, which needs no lock on the cart, ended between the two
            // looks, and the request with it: look again at what came of it.
            newest = latest(conn, cart_id.as_str()).await?;
        }
    }
    if let Some(live) = newest.clone().filter(|link| link.is_live(now)) {
        return Ok(live); // opened since the caller looked
    }
    let version = newest.map_or(1, |link| link.version + 1);
    insert(conn, cart_id.as_str(), version, session_expires_at, now).await
}

/// Replaces a request that can't succeed under its idempotency key by one with
/// the next version. `None`: it is not pending any more.
pub async fn replace(
    conn: &mut PgConnection,
    link: &PaymentLink,
    why: &str,
    now: DateTime<Utc>,
) -> sqlx::Result<Option<PaymentLink>> {
    if !settle_later(conn, link, why, now).await? {
        return Ok(None);
    }
    insert(conn, &link.cart_id, link.version + 1, link.session_expires_at, now).await.map(Some)
}

async fn insert(
    conn: &mut PgConnection,
    cart_id: &str,
    version: i32,
    session_expires_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> sqlx::Result<PaymentLink> {
    let job = CreatePaymentLink { cart_id: cart_id.to_owned(), version };
    // The key names this version, which is new: no other job can have it.
    let job_id = queue::enqueue(conn, &job).await?.ok_or(sqlx::Error::RowNotFound)?;
    sqlx::query!(
        r#"
        insert into payment_links (cart_id, version, status, job_id, session_expires_at, created_at, updated_at)
        values ($1, $2, 'pending', $3, $4, $5, $5)
        "#,
        cart_id,
        version,
        job_id,
        session_expires_at,
        now,
    )
    .execute(&mut *conn)
    .await?;
    Ok(PaymentLink {
        cart_id: cart_id.to_owned(),
        version,
        status: LinkStatus::Pending,
        job_id,
        session_expires_at,
        attempted_at: None,
        session_id: None,
        url: None,
        failure: None,
        updated_at: now,
    })
}

/// Nothing will come of a pending request. If Stripe was asked before, and did
/// not answer, it may have made a session all the same: that is found out first.
///
/// `false`: it is not pending any more.
pub async fn give_up(conn: &mut PgConnection, link: &PaymentLink, why: &str, now: DateTime<Utc>) -> sqlx::Result<bool> {
    if link.attempted_at.is_some() {
        settle_later(conn, link, why, now).await
    } else {
        fail(conn, link, why, now).await
    }
}

/// pending → settling: Stripe may have made a session that we don't know of.
async fn settle_later(
    conn: &mut PgConnection,
    link: &PaymentLink,
    why: &str,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let changed = sqlx::query!(
        r#"
        update payment_links set status = 'settling', failure = $3, updated_at = $4
        where cart_id = $1 and version = $2 and status = 'pending'
        "#,
        link.cart_id,
        link.version,
        why,
        now,
    )
    .execute(&mut *conn)
    .await?
    .rows_affected()
        == 1;
    if changed {
        queue::enqueue(&mut *conn, &ClosePaymentLink { cart_id: link.cart_id.clone(), version: link.version }).await?;
        notify(conn, &link.cart_id).await?;
    }
    Ok(changed)
}
