//! Attempts to create a session. The first one freezes everything that retries must repeat.

use chrono::{DateTime, Utc};
use sqlx::types::Json;

use super::{
    PaymentLink, SessionSettings,
    request::{LONGEST_SESSION, SHORTEST_SESSION},
};
use crate::{clock::Clock, db::Connection};

/// The shortest remaining time, in minutes, with which a session can be requested: Stripe's minimum
/// (<https://docs.stripe.com/api/checkout/sessions/create#create_checkout_session-expires_at>) and one
/// for the call.
const LEAST_LEFT: i32 = 31;

/// The data that an attempt sends to Stripe, besides the cart's own.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The settings that the first attempt stored.
    pub settings: SessionSettings,
    /// When the session expires.
    pub session_expires_at: DateTime<Utc>,
}

/// Records that a request is about to be sent to Stripe, in this mode (test or live) if it is
/// known, so that early events of the other mode don't match. `None` if the link is not pending
/// any more and the request must not be sent.
///
/// The first attempt stores `settings`, and renews the end of a session for which it comes too late,
/// by Postgres' clock. Later ones repeat what is stored.
pub async fn begin_attempt(
    conn: &mut Connection,
    link: &PaymentLink,
    settings: &SessionSettings,
    livemode: Option<bool>,
    clock: &Clock,
) -> sqlx::Result<Option<Attempt>> {
    let row = sqlx::query!(
        r#"
        update payment_links link
        set attempted_at = coalesce(attempted_at, $3), livemode = coalesce($4, livemode), updated_at = $3,
            settings = case when settings ? 'publicUrl' then settings else $5::jsonb || coalesce(settings, '{}') end,
            session_expires_at = case
                when attempted_at is null and session_expires_at < clock.now + make_interval(mins => $7)
                then (select least(greatest(max(recovery.expires_at), clock.now + make_interval(mins => $8)),
                                   clock.now + make_interval(mins => $9))
                      from recovery_links recovery where recovery.cart_id = $1)
                else session_expires_at end
        from (select coalesce($6::timestamptz, now()) as now) clock
        where cart_id = $1 and version = $2 and status = 'pending'
        returning settings as "settings!: Json<SessionSettings>", session_expires_at
        "#,
        link.cart_id,
        link.version,
        clock.now(),
        livemode,
        Json(settings) as _,
        clock.stopped(),
        LEAST_LEFT,
        SHORTEST_SESSION,
        LONGEST_SESSION,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Attempt { settings: row.settings.0, session_expires_at: row.session_expires_at }))
}
