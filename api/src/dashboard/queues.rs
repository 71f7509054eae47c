//! `/queues`: the number of waiting jobs, the age of the oldest, and the workers.

use axum::{
    Router,
    extract::State,
    response::Response,
    routing::{get, post},
};
use chrono::{DateTime, Utc};
use common::{
    jobs::QUEUES,
    operations::{self, JobState, QueueSummary, WorkerStatus},
};
use maud::{Markup, html};

use super::{
    format,
    guard::OurForm,
    page::{Page, PageError, Section},
    session::Operator,
};
use crate::{
    http::{base_path::at, error::ApiError},
    routes::queues::{self as api, QueueName},
    state::AppState,
};

pub(crate) fn router() -> Router<AppState> {
    Router::new()
        .route("/queues", get(show))
        .route("/queues/{name}/pause", post(pause))
        .route("/queues/{name}/resume", post(resume))
}

async fn show(State(state): State<AppState>, operator: Operator) -> Result<Response, PageError> {
    let now = state.clock.now();
    let mut conn = state.database.acquire().await?;
    let queues = operations::queues(&mut conn, &QUEUES).await?;
    let workers = operations::workers(&mut conn).await?;
    let body = html! {
        div.heading { h1 { "Queues" } }
        ul.queues { @for queue in &queues { (card(&operator, queue)) } }
        p.muted.small { "Done and dead jobs count as long as they are kept: RETAIN_DONE_JOBS and RETAIN_DEAD_JOBS of the worker." }
        (living(&workers, now))
    };
    Ok(Page { title: "Queues", section: Section::Queues, operator: &operator, live: "jobs" }.show(&body))
}

async fn pause(
    state: State<AppState>,
    path: Result<QueueName, ApiError>,
    form: OurForm,
) -> Result<Response, PageError> {
    let name = path?;
    let text = format!("Queue {} paused. Running jobs finish.", name.0);
    api::pause(state, form.by.clone(), name).await?;
    Ok(form.done("/queues", &text))
}

async fn resume(
    state: State<AppState>,
    path: Result<QueueName, ApiError>,
    form: OurForm,
) -> Result<Response, PageError> {
    let name = path?;
    let text = format!("Queue {} resumed.", name.0);
    api::resume(state, form.by.clone(), name).await?;
    Ok(form.done("/queues", &text))
}

fn card(operator: &Operator, queue: &QueueSummary) -> Markup {
    html! {
        li.card id={ "queue-" (queue.name) } {
            div.heading {
                h2 { a href={ (at("/queues/")) (queue.name) } { (queue.name) } " " span data-announce={ "Queue " (queue.name) } {
                    @if queue.paused { span.badge.paused { "Paused" } } @else { span.badge.active { "Active" } }
                } }
                @if queue.paused {
                    (operator.button(&format!("/queues/{}/resume", queue.name), "primary", "Resume"))
                } @else {
                    (operator.button(&format!("/queues/{}/pause", queue.name), "", "Pause"))
                }
            }
            dl.counts {
                @for state in JobState::ALL {
                    @let count = queue.counts.get(state.as_str()).copied().unwrap_or(0);
                    div class=[(count > 0 && state == JobState::Dead).then_some("bad")] {
                        dt { (format::capital(state.as_str())) }
                        dd { a href={ (at("/jobs")) (format::query(&[("queue", Some(&queue.name)), ("state", Some(state.as_str()))])) } {
                            (format::count(count))
                        } }
                    }
                }
            }
            p.muted.small {
                @match queue.oldest_ready_age_seconds {
                    Some(age) => { "The oldest job has waited " (format::seconds(age)) "." },
                    None => "No jobs waiting.",
                }
                " " a href={ (at("/queues/")) (queue.name) } { "Last 24 hours" }
                @if let Some(since) = queue.paused_at { " Paused since " (format::instant(since, operator.zone)) "." }
            }
        }
    }
}

fn living(workers: &[WorkerStatus], now: DateTime<Utc>) -> Markup {
    html! {
        section.card aria-labelledby="workers" {
            h2 #workers { "Workers" }
            @if workers.is_empty() {
                p.problem { "No workers running. Jobs wait until you start one." }
            } @else {
                div.scroll tabindex="0" role="region" aria-label="Workers" { table {
                    caption.visually-hidden { "Running workers and their jobs" }
                    thead { tr { th scope="col" { "Worker" } th scope="col" { "Running" }
                        th.wide-only scope="col" { "Queues" } th.wide-only scope="col" { "Uptime" } } }
                    tbody { @for worker in workers { (worker_row(worker, now)) } }
                } }
            }
        }
    }
}

fn worker_row(worker: &WorkerStatus, now: DateTime<Utc>) -> Markup {
    let running = &worker.running.0;
    html! {
        tr id={ "worker-" (worker.name) } {
            th scope="row" { code { (worker.name) } }
            td {
                span { (running.len()) " of " (worker.concurrency) }
                @for job in running {
                    br;
                    a href={ (at("/jobs/")) (job.id) } { (format::capital(&job.kind)) }
                    @if let Some(at) = job.started_at { " " span.muted { "for " (format::seconds((now - at).num_seconds())) } }
                }
            }
            td.wide-only { (worker.queues.join(", ")) }
            td.wide-only { (format::seconds((now - worker.started_at).num_seconds())) }
        }
    }
}
