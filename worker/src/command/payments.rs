//! Stripe events that had no effect and need attention.

use chrono::TimeDelta;
use common::{
    clock::Clock,
    db::Database,
    stripe_events::{self, ATTENTION_LIMIT},
};

use super::doctor::Finding;

/// The same period as on the dashboard.
const SINCE: TimeDelta = TimeDelta::days(7);

/// Reports events that named a cart but were about none of its sessions, and payments of deleted carts.
pub(super) async fn examine(database: &Database, clock: &Clock) -> sqlx::Result<Finding> {
    let found = stripe_events::attention_since(&mut database.acquire().await?, clock.now() - SINCE).await?;
    let Some(found) = found else {
        return Ok(Finding::well("payments", "no Stripe event of the last seven days needs attention"));
    };
    let or_more = if found.count >= ATTENTION_LIMIT { " or more" } else { "" };
    let events = if found.count == 1 { "event" } else { "events" };
    Ok(Finding::notice(
        "payments",
        format!(
            "{}{or_more} Stripe {events} of the last seven days named a cart and had no effect, the newest is {} ({}); \
             docs/running.md explains each reason",
            found.count, found.event, found.reason
        ),
    ))
}
