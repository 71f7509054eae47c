//! Problems that an operator should look at.

use std::net::IpAddr;

use chrono::{DateTime, Days, Utc};
use chrono_tz::Tz;
use common::{
    db::Connection,
    jobs::QUEUES,
    operations::{self, DEAD_LIMIT},
    payment_links, refused_webhooks, stripe_events,
};
use maud::{Markup, html};

use super::format;
use crate::http::base_path::at;

/// A ready job that waits longer than this is a problem.
const LONG_WAIT_SECONDS: f64 = 60.0;
/// Days for which refused webhooks, and events that need attention, are shown.
const WEBHOOK_DAYS: u64 = 7;
/// Days for which an open dispute is shown after its last event. A dispute lasts up to three months,
/// an inquiry 120 days (<https://docs.stripe.com/disputes/how-disputes-work>).
const DISPUTE_DAYS: u64 = 180;

/// A problem to show.
#[derive(Debug)]
pub(crate) struct Concern {
    /// Short description.
    what: String,
    /// Meaning of the problem, or a remedy.
    advice: String,
    /// The page with the details.
    path: Option<String>,
}

/// All problems, most severe first. No query counts a large table.
/// `unnamed_proxy` is the address of a proxy that is not in `TRUSTED_PROXIES`.
pub(crate) async fn concerns(
    conn: &mut Connection,
    unnamed_proxy: Option<IpAddr>,
    now: DateTime<Utc>,
    zone: Tz,
) -> sqlx::Result<Vec<Concern>> {
    let mut concerns = Vec::new();
    let mut add = |what: String, advice: &str, path: Option<String>| {
        concerns.push(Concern { what, advice: advice.to_owned(), path });
    };
    let queue_health = operations::queue_health(conn, &QUEUES).await?;
    let workers = operations::workers(conn).await?;
    if workers.is_empty() {
        add("No worker is running".to_owned(), "Jobs wait until one is started.", Some("/queues".to_owned()));
    }
    if let Some(refused) = payment_links::refused_key(conn).await? {
        let wait = if refused.jobs == 1 { "job waits" } else { "jobs wait" };
        let what = format!("Stripe does not accept the key: {} {wait}", format::count(refused.jobs));
        let path = format!("/jobs{}", format::query(&[("queue", Some("payment-links"))]));
        add(what, &format!("{}. The jobs then continue by themselves.", refused.error), Some(path));
    }
    for health in &queue_health {
        let dead = i64::from(health.dead);
        if dead > 0 {
            let more = if dead >= DEAD_LIMIT { " or more" } else { "" };
            let jobs = if dead == 1 { "job" } else { "jobs" };
            let path = format!("/jobs{}", format::query(&[("queue", Some(&health.queue)), ("state", Some("dead"))]));
            let what = format!("{}{more} dead {jobs} in {}", format::count(dead), health.queue);
            add(
                what,
                "Their attempts are used up, the first failed for good, or they were cancelled. See why before a retry.",
                Some(path),
            );
        }
    }
    for schedule in operations::schedules(conn).await?.into_iter().filter(|schedule| schedule.overdue) {
        let advice = if schedule.paused { "Its queue is paused." } else { "A slot should have run and did not begin." };
        add(format!("{} is overdue", format::capital(&schedule.name)), advice, Some("/schedules".to_owned()));
    }
    for health in &queue_health {
        if health.paused {
            let advice = "Workers leave its jobs alone until it is resumed.";
            add(format!("The queue {} is paused", health.queue), advice, Some("/queues".to_owned()));
        } else if health.oldest_ready_age_seconds > LONG_WAIT_SECONDS && !workers.is_empty() {
            #[expect(clippy::cast_possible_truncation, reason = "whole seconds are exact enough")]
            let age = format::seconds(health.oldest_ready_age_seconds as i64);
            let advice = "More workers would shorten the wait.";
            add(format!("Jobs in {} wait for {age}", health.queue), advice, Some("/queues".to_owned()));
        }
    }
    if let Some(address) = unnamed_proxy {
        let what = format!("{address} forwards requests and is not in TRUSTED_PROXIES");
        let advice = "If it is your proxy, add its network to TRUSTED_PROXIES: until then, everyone behind it shares \
                      one rate limit. If it is not, ignore it. Seen since this api started.";
        add(what, advice, None);
    }
    let since = now.date_naive().checked_sub_days(Days::new(WEBHOOK_DAYS - 1)).unwrap_or_default();
    if let Some(refused) = refused_webhooks::since(conn, since).await? {
        let times = if refused.count == 1 { "webhook" } else { "webhooks" };
        let age = format::seconds((now - refused.last_at).num_seconds());
        let what = format!("{} {times} failed verification, the last {age} ago", format::count(refused.count));
        add(what, "If they are Stripe's, STRIPE_WEBHOOK_SECRET does not fit. Counted over seven days.", None);
    }
    let uncounted = stripe_events::attention_since(conn, now - Days::new(WEBHOOK_DAYS)).await?;
    for payment in &uncounted.own.newest {
        let what = format!("Stripe {} needs attention: {}", payment.what(), payment.why());
        let at = format::minute(payment.at, zone);
        let advice = format!("{}, {at}. {}", payment.ids(), payment.advice());
        add(what, &advice, None);
    }
    let more = uncounted.own.count - i64::try_from(uncounted.own.newest.len()).unwrap_or(i64::MAX);
    if more > 0 {
        let what = format!("{} more of the last seven days need attention", format::count(more));
        add(what, "docs/operations.md has the query that lists them.", None);
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
        add(what, &advice, None);
    }
    let disputes = stripe_events::open_disputes(conn, now - Days::new(DISPUTE_DAYS)).await?;
    for dispute in &disputes.newest {
        let what =
            format!("Open dispute about {}", dispute.currency.format(dispute.currency.amount(dispute.amount_minor)));
        let at = format::minute(dispute.at, zone);
        let advice = format!("{} at Stripe, {at}. Respond to it or accept it in Stripe's dashboard.", dispute.id);
        add(what, &advice, dispute.has_cart.then(|| format!("/carts/{}", dispute.cart_id)));
    }
    let more = disputes.count - i64::try_from(disputes.newest.len()).unwrap_or(i64::MAX);
    if more > 0 {
        add(format!("{} more open disputes", format::count(more)), "Stripe's dashboard lists them.", None);
    }
    Ok(concerns)
}

pub(crate) fn show(concerns: &[Concern]) -> Markup {
    html! {
        section.card aria-labelledby="attention" {
            h2 #attention { "Needs attention" }
            @if concerns.is_empty() {
                p.all-well { span.dot aria-hidden="true" {} "All is well." }
            } @else {
                ul.concerns {
                    @for concern in concerns {
                        li {
                            @match &concern.path {
                                Some(path) => a href=(at(path)) dir="auto" { (concern.what) },
                                None => strong dir="auto" { (concern.what) },
                            }
                            span.muted dir="auto" { (concern.advice) }
                        }
                    }
                }
            }
        }
    }
}
