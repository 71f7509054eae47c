//! `/jobs/retry` and `/jobs/cancel`: actions on all jobs that match a filter, after their count is
//! shown.

use axum::{Router, extract::State, response::Response, routing::get};
use common::{
    db::Connection,
    jobs::QUEUES,
    operations::{self, DeadFilter, JobFilter, JobState},
};
use maud::{Markup, html};

use super::{
    format,
    guard::OurForm,
    jobs::{filter, pairs, queue},
    page::{Page, PageError, Section},
    session::Operator,
};
use crate::{
    http::{base_path::at, error::ApiError, query::Parameters},
    state::AppState,
};

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/jobs/retry", get(ask_retry).post(retry)).route("/jobs/cancel", get(ask_cancel).post(cancel))
}

/// A filter of dead jobs: optionally by queue, by kind, and by a text in the last error.
#[derive(Debug)]
struct Dead {
    queue: Option<String>,
    kind: Option<String>,
    error: Option<String>,
}

impl Dead {
    fn of<'p>(get: impl Fn(&str) -> Option<&'p str>) -> Result<Self, ApiError> {
        let text = |name: &str| get(name).map(str::to_owned);
        Ok(Self { queue: queue(&get)?, kind: text("kind"), error: text("error") })
    }

    /// Returns how many jobs match, and how many were retried.
    async fn retry(&self, conn: &mut Connection, dry_run: bool) -> sqlx::Result<(usize, usize)> {
        let (mut matched, mut retried) = (0, 0);
        for queue in QUEUES.into_iter().filter(|queue| self.queue.as_deref().is_none_or(|wanted| wanted == *queue)) {
            let filter = DeadFilter { queue: queue.to_owned(), kind: self.kind.clone(), error: self.error.clone() };
            let many = operations::retry_dead(conn, &filter, dry_run).await?;
            matched += many.matched;
            retried += many.retried;
        }
        Ok((matched, retried))
    }
}

async fn ask_retry(
    State(state): State<AppState>,
    operator: Operator,
    parameters: Result<Parameters, ApiError>,
) -> Result<Response, PageError> {
    let parameters = parameters?;
    let dead = Dead::of(|name| parameters.get(name))?;
    let mut conn = state.database.begin().await?;
    let (matched, _) = dead.retry(&mut conn, true).await?;
    let chosen = [("queue", &dead.queue), ("kind", &dead.kind), ("error", &dead.error)];
    let body = html! {
        section.card.narrow {
            h1 { "Retry dead jobs" }
            form.stack method="get" action=(at("/jobs/retry")) {
                (queue_field(dead.queue.as_deref()))
                label for="kind" { "Kind" }
                input #kind name="kind" value=[dead.kind.as_deref()] placeholder="create_payment_link" maxlength="200";
                label for="error" { "Error contains" }
                input #error name="error" value=[dead.error.as_deref()] maxlength="200" dir="auto";
                button.button type="submit" { "Preview" }
            }
            p.value-line { strong { (counted(matched)) } " will be queued again with fresh attempts." }
            p.muted.small { "A job whose payment link was refused creates none: create a new link on its cart's page." }
            div.actions {
                @if matched > 0 { (send(&operator, "/jobs/retry", &chosen, "primary", &format!("Retry {}", counted(matched)))) }
                a.button href=(at("/jobs?state=dead")) { "Back to dead jobs" }
            }
        }
    };
    Ok(Page { title: "Retry dead jobs", section: Section::Jobs, operator: &operator, live: "" }.show(&body))
}

async fn retry(State(state): State<AppState>, form: OurForm) -> Result<Response, PageError> {
    let dead = Dead::of(|name| form.get(name))?;
    let mut tx = state.database.begin().await?;
    let (_, retried) = dead.retry(&mut tx, false).await?;
    tx.commit().await?;
    let queue = format::query(&[("queue", dead.queue.as_deref())]);
    Ok(form.done(&format!("/jobs{queue}"), &format!("{} queued again.", counted(retried))))
}

async fn ask_cancel(
    State(state): State<AppState>,
    operator: Operator,
    parameters: Result<Parameters, ApiError>,
) -> Result<Response, PageError> {
    let parameters = parameters?;
    let filter = filter(|name| parameters.get(name))?;
    let many = operations::cancel_many(&mut state.database.begin().await?, &filter, true).await?;
    let matched = usize::try_from(many.matched).unwrap_or_default();
    let (queue, job_state) = (filter.queue.clone(), filter.state.map(|state| state.as_str().to_owned()));
    let body = html! {
        section.card.narrow {
            h1 { "Cancel jobs" }
            form.stack method="get" action=(at("/jobs/cancel")) {
                (queue_field(filter.queue.as_deref()))
                label for="state" { "State" }
                select #state name="state" {
                    option value="" { "unfinished" }
                    @for state in [JobState::Scheduled, JobState::Ready, JobState::Running, JobState::Retrying] {
                        option value=(state.as_str()) selected[filter.state == Some(state)] { (state.as_str()) }
                    }
                }
                button.button type="submit" { "Preview" }
            }
            p.value-line { strong { (counted(matched)) } " will be cancelled. Running jobs stop within 10 seconds." }
            div.actions {
                @if matched > 0 {
                    (send(&operator, "/jobs/cancel", &[("queue", &queue), ("state", &job_state)], "danger",
                        &format!("Cancel {}", counted(matched))))
                }
                a.button href={ (at("/jobs")) (format::query(&pairs(&filter))) } { "Back to jobs" }
            }
        }
    };
    Ok(Page { title: "Cancel jobs", section: Section::Jobs, operator: &operator, live: "" }.show(&body))
}

async fn cancel(State(state): State<AppState>, form: OurForm) -> Result<Response, PageError> {
    let filter: JobFilter = filter(|name| form.get(name))?;
    let mut tx = state.database.begin().await?;
    let many = operations::cancel_many(&mut tx, &filter, false).await?;
    tx.commit().await?;
    let queue = format::query(&[("queue", filter.queue.as_deref()), ("state", Some("dead"))]);
    let cancelled = usize::try_from(many.cancelled).unwrap_or_default();
    Ok(form.done(&format!("/jobs{queue}"), &format!("{} cancelled.", counted(cancelled))))
}

fn queue_field(chosen: Option<&str>) -> Markup {
    html! {
        label for="queue" { "Queue" }
        select #queue name="queue" {
            option value="" { "All queues" }
            @for queue in QUEUES { option value=(queue) selected[chosen == Some(queue)] { (queue) } }
        }
    }
}

fn counted(jobs: usize) -> String {
    let number = format::count(i64::try_from(jobs).unwrap_or(i64::MAX));
    format!("{number} {}", if jobs == 1 { "job" } else { "jobs" })
}

fn send(operator: &Operator, action: &str, fields: &[(&str, &Option<String>)], class: &str, text: &str) -> Markup {
    html! {
        form method="post" action=(at(action)) {
            (operator.token_field())
            @for (name, value) in fields {
                @if let Some(value) = value { input type="hidden" name=(name) value=(value); }
            }
            button class={ "button " (class) } type="submit" { (text) }
        }
    }
}
