//! Asking for a session: written down, and queued.

use chrono::{DateTime, Utc};
use queue::JobSummary;
use sqlx::PgConnection;

use super::{LinkStatus, PaymentLink, fail, latest};
use crate::{
    carts::CartId,
    jobs::{ClosePaymentLink, CreatePaymentLink},
};

/// Asks for a session that lives until `session_expires_at`: writes the request
/// down and queues its job. The cart must be locked, and have no live link.
///
/// A request that is pending already is joined, unless its job is dead.
pub async fn request(
    conn: &mut PgConnection,
    cart_id: &CartId,
    session_expires_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> sqlx::Result<PaymentLink> {
    let latest = latest(conn, cart_id.as_str()).await?;
    if let Some(pending) = latest.as_ref().filter(|link| link.status == LinkStatus::Pending) {
        match queue::find(conn, pending.job_id).await? {
            Some(job) if job.is_unfinished() => return Ok(pending.clone()),
            job => give_up(conn, pending, job.as_ref(), now).await?,
        }
    }
    let version = latest.map_or(1, |link| link.version + 1);
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

/// The job of a pending request is dead or gone, so nothing will come of it.
async fn give_up(
    conn: &mut PgConnection,
    link: &PaymentLink,
    job: Option<&JobSummary>,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    let why = job.and_then(|job| job.last_error.as_deref()).unwrap_or("its job was lost");
    if link.attempted_at.is_some() {
        settle_later(conn, link, why, now).await?;
    } else {
        fail(conn, link, why, now).await?;
    }
    Ok(())
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
        queue::enqueue(conn, &ClosePaymentLink { cart_id: link.cart_id.clone(), version: link.version }).await?;
    }
    Ok(changed)
}
