//! Links whose session has to be requested from Stripe, because the event with its outcome may have
//! been lost.
//!
//! Times are those of Postgres' clock, so that workers whose clocks differ agree. `clock` takes its
//! place in tests ([`Clock::stopped`](crate::clock::Clock::stopped)).

use chrono::{DateTime, Utc};

use super::{LinkStatus, PaymentLink, select_links};
use crate::{db::Connection, jobs::ReconcilePayments};

/// Takes up to `limit` links that are due: their session ended 20 s ago without a known outcome, or
/// their payment has been in progress for a day, by the last response of Stripe. Links taken within
/// the last 50 s are left out, so nothing is requested twice, and a request without a response is
/// repeated by the next run.
pub async fn take_due(
    conn: &mut Connection,
    limit: i64,
    clock: Option<DateTime<Utc>>,
) -> sqlx::Result<Vec<PaymentLink>> {
    sqlx::query_as!(
        PaymentLink,
        r#"
        update payment_links set asked_at = coalesce($2::timestamptz, now())
        where ctid = any (
            array(select ctid from payment_links
                  where status in ('open', 'closing')
                    and session_expires_at < coalesce($2, now()) - interval '20 seconds'
                    and (asked_at is null or asked_at < coalesce($2, now()) - interval '50 seconds')
                  order by session_expires_at limit $1 for update skip locked)
            || array(select ctid from payment_links
                     where status = 'processing' and session_id is not null
                       and updated_at < coalesce($2, now()) - interval '1 day'
                       and (asked_at is null or asked_at < coalesce($2, now()) - interval '50 seconds')
                     order by ended_at limit $1 for update skip locked))
        returning cart_id, version, status as "status: LinkStatus", job_id, session_expires_at, replacements,
                  attempted_at, session_id, url, failure, updated_at
        "#,
        limit,
        clock,
    )
    .fetch_all(conn)
    .await
}

/// Queues a job that requests the session of the cart's payment in progress from Stripe, at most
/// once a minute. `false` if no payment is in progress, one was queued within the last minute, or
/// another transaction has locked the link. Must run in a transaction.
pub async fn look_up(conn: &mut Connection, cart_id: &str, clock: Option<DateTime<Utc>>) -> sqlx::Result<bool> {
    let taken = sqlx::query!(
        r#"
        update payment_links set asked_at = coalesce($2::timestamptz, now())
        where (cart_id, version) in (
            select cart_id, version from payment_links
            where cart_id = $1 and status = 'processing' and session_id is not null
              and (asked_at is null or asked_at < coalesce($2, now()) - interval '1 minute')
            for no key update skip locked)
        "#,
        cart_id,
        clock,
    )
    .execute(&mut *conn)
    .await?
    .rows_affected()
        == 1;
    if taken {
        queue::enqueue(conn, &ReconcilePayments { cart_id: Some(cart_id.to_owned()) }).await?;
    }
    Ok(taken)
}

/// The payload of the notification on [`super::CHANNEL`] that the cart's payment was looked up.
pub fn notification(cart_id: &str) -> String {
    format!("{cart_id} looked up")
}

/// The link of the cart's payment in progress; `None` if there is none.
pub async fn in_progress(conn: &mut Connection, cart_id: &str) -> sqlx::Result<Option<PaymentLink>> {
    select_links!("where cart_id = $1 and status = 'processing'", cart_id).fetch_optional(conn).await
}

/// Records that Stripe reports the payment as still in progress.
pub async fn still_in_progress(
    conn: &mut Connection,
    link: &PaymentLink,
    clock: Option<DateTime<Utc>>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update payment_links set updated_at = coalesce($3::timestamptz, now())
        where cart_id = $1 and version = $2 and status = 'processing'
        "#,
        link.cart_id,
        link.version,
        clock,
    )
    .execute(conn)
    .await?;
    Ok(())
}
