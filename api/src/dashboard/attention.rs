//! Problems that an operator should look at.

mod stripe;

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use common::{
    db::{Connection, snapshots},
    dead_jobs::{self, DEAD_LIMIT, DeadJobs},
    jobs::QUEUES,
    operations, payment_links,
};
use maud::{Markup, html};

use super::format;
use crate::http::base_path::at;

/// A ready job that waits longer than this is a problem.
const LONG_WAIT_SECONDS: f64 = 60.0;

/// A problem to show.
#[derive(Debug)]
pub(crate) struct Concern {
    /// Identifies the problem while its numbers change, for live updates.
    key: String,
    /// Short description.
    what: String,
    /// Meaning of the problem, or a remedy.
    advice: String,
    /// The page with the details.
    path: Option<String>,
}

/// Collects problems in the order in which they are shown.
#[derive(Debug, Default)]
struct Concerns(Vec<Concern>);

impl Concerns {
    fn add(&mut self, key: &str, what: String, advice: &str, path: Option<String>) {
        self.0.push(Concern { key: key.replace(char::is_whitespace, "-"), what, advice: advice.to_owned(), path });
    }
}

/// All problems, most severe first. No query counts a large table.
/// `unnamed_proxy` is the address of a proxy that is not in `TRUSTED_PROXIES`.
pub(crate) async fn concerns(
    conn: &mut Connection,
    unnamed_proxy: Option<IpAddr>,
    now: DateTime<Utc>,
    zone: Tz,
) -> sqlx::Result<Vec<Concern>> {
    let mut concerns = Concerns::default();
    add_jobs(&mut concerns, conn).await?;
    if let Some(address) = unnamed_proxy {
        let what = format!("{address} forwards requests and is not in TRUSTED_PROXIES");
        let advice = "If it is your proxy, add its network to TRUSTED_PROXIES: until then, everyone behind it shares \
                      one rate limit. If it is not, ignore it. Seen since this api started.";
        concerns.add("proxy", what, advice, None);
    }
    stripe::add_refused_webhooks(&mut concerns, conn, now).await?;
    stripe::add_events(&mut concerns, conn, now, zone).await?;
    stripe::add_disputes(&mut concerns, conn, now, zone).await?;
    if let Some(oldest) = snapshots::oldest(conn).await?.filter(snapshots::OldestSnapshot::is_old) {
        concerns.add("snapshot", format!("The oldest snapshot in Postgres: {oldest}"), &oldest.advice(), None);
    }
    Ok(concerns.0)
}

/// Adds the problems of workers, queues and schedules, and a key that Stripe does not accept.
async fn add_jobs(concerns: &mut Concerns, conn: &mut Connection) -> sqlx::Result<()> {
    let queue_health = operations::queue_health(conn, &QUEUES).await?;
    let workers = operations::workers(conn).await?;
    if workers.is_empty() {
        let advice = "Jobs wait until you start one.";
        concerns.add("workers", "No worker is running".to_owned(), advice, Some("/queues".to_owned()));
    }
    if let Some(refused) = payment_links::refused_key(conn).await? {
        let wait = if refused.jobs == 1 { "job waits" } else { "jobs wait" };
        let what = format!("Stripe does not accept the key: {} {wait}", format::count(refused.jobs));
        let path = format!("/jobs{}", format::query(&[("queue", Some("payment-links"))]));
        concerns.add("key", what, &format!("{}. The jobs then continue by themselves.", refused.error), Some(path));
    }
    add_dead_jobs(concerns, &dead_jobs::dead_jobs(conn).await?);
    for schedule in operations::schedules(conn).await?.into_iter().filter(|schedule| schedule.overdue) {
        let advice = if schedule.paused { "Its queue is paused." } else { "A scheduled run is overdue." };
        let what = format!("{} is overdue", format::capital(&schedule.name));
        concerns.add(&format!("overdue-{}", schedule.name), what, advice, Some("/schedules".to_owned()));
    }
    for health in &queue_health {
        if health.paused {
            let advice = "Its jobs won't run until you resume it.";
            let what = format!("The queue {} is paused", health.queue);
            concerns.add(&format!("paused-{}", health.queue), what, advice, Some("/queues".to_owned()));
        } else if health.oldest_ready_age_seconds > LONG_WAIT_SECONDS && !workers.is_empty() {
            #[expect(clippy::cast_possible_truncation, reason = "whole seconds are exact enough")]
            let age = format::seconds(health.oldest_ready_age_seconds as i64);
            let advice = "More workers would shorten the wait.";
            let what = format!("Jobs in {} have been waiting for {age}", health.queue);
            concerns.add(&format!("late-{}", health.queue), what, advice, Some("/queues".to_owned()));
        }
    }
    Ok(())
}

fn add_dead_jobs(concerns: &mut Concerns, dead: &[DeadJobs]) {
    let counted = |number: i64, one: &str, many: &str| {
        let more = if number >= DEAD_LIMIT { " or more" } else { "" };
        format!("{}{more} {}", format::count(number), if number == 1 { one } else { many })
    };
    for DeadJobs { queue, failed, without_link } in dead {
        let path = format!("/jobs{}", format::query(&[("queue", Some(queue)), ("state", Some("dead"))]));
        if *failed > 0 {
            let what = format!("{} in {queue}", counted(*failed, "dead job", "dead jobs"));
            let advice = "Failed permanently. Open to see the errors.";
            concerns.add(&format!("dead-{queue}"), what, advice, Some(path));
        }
        if *without_link > 0 {
            let what = format!("{} without a payment link", counted(*without_link, "cart", "carts"));
            let advice = "The last request was refused. Open the cart to see why, and create a new link.";
            let path = format!("/carts{}", format::query(&[("status", Some("abandoned")), ("link", Some("failed"))]));
            concerns.add("without-link", what, advice, Some(path));
        }
    }
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
                        li id={ "concern-" (concern.key) } {
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
