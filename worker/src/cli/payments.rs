//! `worker doctor`: Stripe events that need attention.

use chrono::TimeDelta;
use common::{
    clock::Clock,
    db::Database,
    stripe_events::{self, Payment},
};

use super::check::Check;

/// The period that is checked, the same as on the dashboard.
const SINCE: TimeDelta = TimeDelta::days(7);

/// Events about payments of the product's links that need attention, and those of others that named a
/// cart.
pub(super) async fn examine(database: &Database, clock: &Clock) -> sqlx::Result<Check> {
    let found = stripe_events::attention_since(&mut database.acquire().await?, clock.now() - SINCE).await?;
    let shown =
        |payment: &Payment| format!("{}, {}: {}", payment.ids(), payment.at.format("%Y-%m-%dT%H:%MZ"), payment.reason);
    let mut told = Vec::new();
    if found.own.count > 0 {
        let newest: Vec<String> = found.own.newest.iter().map(shown).collect();
        told.push(format!(
            "{} payments, refunds or disputes need attention, the newest: {}",
            found.own.count,
            newest.join("; ")
        ));
    }
    if let Some(newest) = found.foreign.newest.first() {
        told.push(format!("{} foreign payments named a cart, the newest: {}", found.foreign.count, shown(newest)));
    }
    Ok(if told.is_empty() {
        Check::ok("payments", "within seven days no event that named a cart went uncounted; others are not looked at")
    } else {
        let told = told.join(". ");
        Check::warn("payments", format!("within seven days {told}. docs/operations.md says what each reason means"))
    })
}
