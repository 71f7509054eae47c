//! Assigns sessions to links. A session belongs to at most one link.

use chrono::{DateTime, Utc};

use super::{Failure, PaymentLink, outcome::settle_later};
use crate::db::Connection;

/// pending → settling: Stripe created a session that does not match the request. Its address is not
/// published, and a job closes it. `false` if the request is not pending any more.
pub async fn refuse_session(
    conn: &mut Connection,
    link: &PaymentLink,
    session_id: &str,
    why: Failure<'_>,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let refused = settle_later(conn, link, why, now).await?;
    attach_session(conn, link, session_id, None, None).await?;
    Ok(refused)
}

/// Whether a link other than `link` has the session.
pub async fn is_held_by_another(conn: &mut Connection, link: &PaymentLink, session_id: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"
        select exists (select from payment_links
                       where session_id = $1 and (cart_id, version) <> ($2, $3)) as "is_held!"
        "#,
        session_id,
        link.cart_id,
        link.version,
    )
    .fetch_one(conn)
    .await
}

/// Stores the id of the link's session, so that it can be closed, and the other reported data.
/// Known values are kept, and a session stays with the link that has it.
pub async fn attach_session(
    conn: &mut Connection,
    link: &PaymentLink,
    session_id: &str,
    payment_intent: Option<&str>,
    livemode: Option<bool>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update payment_links
        set session_id = $3, livemode = coalesce(livemode, $5),
            payment_intent = coalesce(payment_intent, case
                when not exists (select from payment_links other where other.payment_intent = $4) then $4 end)
        where cart_id = $1 and version = $2 and (session_id is null or session_id = $3)
          and not exists (select from payment_links other
                          where other.session_id = $3 and (other.cart_id, other.version) <> ($1, $2))
        "#,
        link.cart_id,
        link.version,
        session_id,
        payment_intent,
        livemode,
    )
    .execute(conn)
    .await?;
    Ok(())
}
