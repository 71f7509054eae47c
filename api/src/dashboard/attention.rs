//! Problems that an operator should look at.

mod stripe;

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use common::{
    db::{Connection, snapshots},
    jobs::QUEUES,
    operations::{self, DEAD_LIMIT},
    payment_links,
};
use maud::{Markup, html};

use super::format;
use crate::http::base_path::at;

/// A ready job that waits longer than this is a problem.
const LONG_WAIT_SECONDS: f64 = 60.0;

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

/// Collects problems in the order in which they are shown.
#[derive(Debug, Default)]
struct Concerns(Vec<Concern>);

impl Concerns {
    fn add(&mut self, what: String, advice: &str, path: Option<String>) {
        self.0.push(Concern { what, advice: advice.to_owned(), path });
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
        concerns.add(what, advice, None);
    }
    stripe::add_refused_webhooks(&mut concerns, conn, now).await?;
    stripe::add_events(&mut concerns, conn, now, zone).await?;
    stripe::add_disputes(&mut concerns, conn, now, zone).await?;
    if let Some(oldest) = snapshots::oldest(conn).await?.filter(snapshots::OldestSnapshot::is_old) {
        concerns.add(format!("The oldest snapshot in Postgres: {oldest}"), &oldest.advice(), None);
    }
    Ok(concerns.0)
}

/// Adds the problems of workers, queues and schedules, and a key that Stripe does not accept.
async fn add_jobs(concerns: &mut Concerns, conn: &mut Connection) -> sqlx::Result<()> {
    let queue_health = operations::queue_health(conn, &QUEUES).await?;
    let workers = operations::workers(conn).await?;
    if workers.is_empty() {
        concerns.add("No worker is running".to_owned(), "Jobs wait until one is started.", Some("/queues".to_owned()));
    }
    if let Some(refused) = payment_links::refused_key(conn).await? {
        let wait = if refused.jobs == 1 { "job waits" } else { "jobs wait" };
        let what = format!("Stripe does not accept the key: {} {wait}", format::count(refused.jobs));
        let path = format!("/jobs{}", format::query(&[("queue", Some("payment-links"))]));
        concerns.add(what, &format!("{}. The jobs then continue by themselves.", refused.error), Some(path));
    }
    for health in &queue_health {
        let dead = i64::from(health.dead);
        if dead > 0 {
            let more = if dead >= DEAD_LIMIT { " or more" } else { "" };
            let jobs = if dead == 1 { "job" } else { "jobs" };
            let path = format!("/jobs{}", format::query(&[("queue", Some(&health.queue)), ("state", Some("dead"))]));
            let what = format!("{}{more} dead {jobs} in {}", format::count(dead), health.queue);
            concerns.add(
                what,
                "Their attempts are used up, the first failed for good, or they were cancelled. See why before a retry.",
                Some(path),
            );
        }
    }
    for schedule in operations::schedules(conn).await?.into_iter().filter(|schedule| schedule.overdue) {
        let advice = if schedule.paused { "Its queue is paused." } else { "A slot should have run and did not begin." };
        concerns.add(format!("{} is overdue", format::capital(&schedule.name)), advice, Some("/schedules".to_owned()));
    }
    for health in &queue_health {
        if health.paused {
            let advice = "Workers leave its jobs alone until it is resumed.";
            concerns.add(format!("The queue {} is paused", health.queue), advice, Some("/queues".to_owned()));
        } else if health.oldest_ready_age_seconds > LONG_WAIT_SECONDS && !workers.is_empty() {
            #[expect(clippy::cast_possible_truncation, reason = "whole seconds are exact enough")]
            let age = format::seconds(health.oldest_ready_age_seconds as i64);
            let advice = "More workers would shorten the wait.";
            concerns.add(format!("Jobs in {} wait for {age}", health.queue), advice, Some("/queues".to_owned()));
        }
    }
    Ok(())
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
