//! Problems of Stripe's webhooks and events.

use chrono::{DateTime, Days, Utc};
use chrono_tz::Tz;
use common::{db::Connection, refused_webhooks, stripe_events};

use super::Concerns;
use crate::dashboard::format;

/// Days for which refused webhooks, and events that need attention, are shown.
const WEBHOOK_DAYS: u64 = 7;
/// Days for which an open dispute is shown after its last event. A dispute lasts up to three months,
/// an inquiry 120 days (<https://docs.stripe.com/disputes/how-disputes-work>).
const DISPUTE_DAYS: u64 = 180;

/// Adds the webhooks that failed verification.
pub(super) async fn add_refused_webhooks(
    concerns: &mut Concerns,
    conn: &mut Connection,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    let since = now.date_naive().checked_sub_days(Days::new(WEBHOOK_DAYS - 1)).unwrap_or_default();
    if let Some(refused) = refused_webhooks::since(conn, since).await? {
        let times = if refused.count == 1 { "webhook" } else { "webhooks" };
        let age = format::seconds((now - refused.last_at).num_seconds());
        let what = format!("{} {times} failed verification, the last {age} ago", format::count(refused.count));
        let advice = "If Stripe sent them, STRIPE_WEBHOOK_SECRET doesn't match. Counted over seven days.";
        concerns.add("refused-webhooks", what, advice, None);
    }
    Ok(())
}

/// Adds the events of payments, refunds and disputes that need attention.
pub(super) async fn add_events(
    concerns: &mut Concerns,
    conn: &mut Connection,
    now: DateTime<Utc>,
    zone: Tz,
) -> sqlx::Result<()> {
    let uncounted = stripe_events::attention_since(conn, now - Days::new(WEBHOOK_DAYS)).await?;
    for payment in &uncounted.own.newest {
        let what = format!("Stripe {} needs attention: {}", payment.what(), payment.why());
        let at = format::minute(payment.at, zone);
        let advice = format!("{}, {at}. {}", payment.ids(), payment.advice());
        concerns.add(&format!("payment-{}", payment.ids()), what, &advice, None);
    }
    let more = more(uncounted.own.count, uncounted.own.newest.len());
    if more > 0 {
        let what = format!("{} more of the last seven days need attention", format::count(more));
        concerns.add("payments", what, "docs/operations.md has the query that lists them.", None);
    }
    if let Some(newest) = uncounted.foreign.newest.first() {
        let (count, age) = (uncounted.foreign.count, format::seconds((now - newest.at).num_seconds()));
        let payments = if count == 1 { "foreign Stripe payment" } else { "foreign Stripe payments" };
        let what = format!("{} {payments} named a cart, the last {age} ago", format::count(count));
        let advice = format!(
            "Not of a link of the cart, so nothing changed. The newest: {}: {}. Counted over seven days.",
            newest.ids(),
            newest.why()
        );
        concerns.add("foreign", what, &advice, None);
    }
    Ok(())
}

/// Adds the open disputes.
pub(super) async fn add_disputes(
    concerns: &mut Concerns,
    conn: &mut Connection,
    now: DateTime<Utc>,
    zone: Tz,
) -> sqlx::Result<()> {
    let disputes = stripe_events::open_disputes(conn, now - Days::new(DISPUTE_DAYS)).await?;
    for dispute in &disputes.newest {
        let what =
            format!("Open dispute about {}", dispute.currency.format(dispute.currency.amount(dispute.amount_minor)));
        let at = format::minute(dispute.at, zone);
        let advice = format!("{} at Stripe, {at}. Respond to it or accept it in Stripe's dashboard.", dispute.id);
        concerns.add(
            &format!("dispute-{}", dispute.id),
            what,
            &advice,
            dispute.has_cart.then(|| format!("/carts/{}", dispute.cart_id)),
        );
    }
    let more = more(disputes.count, disputes.newest.len());
    if more > 0 {
        let what = format!("{} more open disputes", format::count(more));
        concerns.add("disputes", what, "Stripe's dashboard lists them.", None);
    }
    Ok(())
}

/// The number of those that are not shown one by one.
fn more(count: i64, shown: usize) -> i64 {
    count - i64::try_from(shown).unwrap_or(i64::MAX)
}
