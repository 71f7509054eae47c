//! Payments that were not counted.

use chrono::TimeDelta;
use common::{
    clock::Clock,
    db::Database,
    stripe_events::{self, ATTENTION_LIMIT},
};

use super::doctor::Finding;

/// The same time as on the dashboard.
const SINCE: TimeDelta = TimeDelta::days(7);

/// Events that named a cart without being of its session, and payments of deleted carts.
pub(super) async fn examine(database: &Database, clock: &Clock) -> sqlx::Result<Finding> {
    let found = stripe_events::attention_since(&mut database.acquire().await?, clock.now() - SINCE).await?;
    let Some(found) = found else {
        return Ok(Finding::well("payments", "every Stripe event was of a session of ours"));
    };
    let or_more = if found.count >= ATTENTION_LIMIT { " or more" } else { "" };
    Ok(Finding::notice(
        "payments",
        format!(
            "within seven days {}{or_more} Stripe events named a cart and were not counted, the newest is {} ({}); \
             docs/running.md says what each reason means",
            found.count, found.event, found.reason
        ),
    ))
}
