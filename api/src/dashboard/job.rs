//! `/jobs/{id}`: one job, its failed and interrupted attempts and its actions.

use axum::{
    Router,
    extract::State,
    response::Response,
    routing::{get, post},
};
use chrono_tz::Tz;
use common::operations::{self, FailedAttempt, JobState, JobSummary};
use maud::{Markup, html};

use super::{
    format,
    guard::{OurForm, go_to},
    page::{self, Page, PageError, Section},
    session::Operator,
};
use crate::{
    http::{base_path::at, error::ApiError, query::Parameters},
    routes::jobs::{self as api, JobPath, job_not_found},
    state::AppState,
};

pub(crate) fn router() -> Router<AppState> {
    Router::new()
        .route("/jobs/{id}", get(show))
        .route("/jobs/{id}/retry", post(retry))
        .route("/jobs/{id}/cancel", post(cancel))
}

async fn show(
    State(state): State<AppState>,
    operator: Operator,
    path: Result<JobPath, ApiError>,
    parameters: Result<Parameters, ApiError>,
) -> Result<Response, PageError> {
    let (JobPath(id), parameters) = (path?, parameters?);
    let mut conn = state.database.acquire().await?;
    let job = operations::find(&mut conn, id).await?.ok_or_else(job_not_found)?;
    let history = operations::history(&mut conn, id).await?.ok_or_else(job_not_found)?;
    let title = format::capital(&job.kind);
    let body = html! {
        (page::notice(parameters.get("done").and_then(done)))
        nav.crumbs aria-label="Breadcrumbs" { a href=(at("/jobs")) { "Jobs" } }
        div.heading {
            h1 { (title) " " span data-announce="Job" { (format::job_state(job.state)) } }
            (actions(&operator, &job))
        }
        div.columns.uneven {
            (history_of(&history, &job, operator.zone))
            (details(&job, operator.zone))
        }
    };
    Ok(Page { title: &title, section: Section::Jobs, operator: &operator, live: "jobs" }.show(&body))
}

fn done(what: &str) -> Option<&'static str> {
    Some(match what {
        "retried" => "The job is ready to run again.",
        "cancelled" => "The job is cancelled.",
        _ => return None,
    })
}

async fn retry(state: State<AppState>, path: Result<JobPath, ApiError>, _: OurForm) -> Result<Response, PageError> {
    let JobPath(id) = path?;
    api::retry(state, JobPath(id)).await?;
    Ok(go_to(&format!("/jobs/{id}?done=retried")))
}

async fn cancel(state: State<AppState>, path: Result<JobPath, ApiError>, _: OurForm) -> Result<Response, PageError> {
    let JobPath(id) = path?;
    api::cancel(state, JobPath(id)).await?;
    Ok(go_to(&format!("/jobs/{id}?done=cancelled")))
}

fn actions(operator: &Operator, job: &JobSummary) -> Markup {
    html! {
        div.actions {
            @if job.state == JobState::Dead { (operator.button(&format!("/jobs/{}/retry", job.id), "primary", "Retry")) }
            @if job.is_unfinished() { (operator.button(&format!("/jobs/{}/cancel", job.id), "danger", "Cancel")) }
        }
    }
}

fn history_of(attempts: &[FailedAttempt], job: &JobSummary, zone: Tz) -> Markup {
    html! {
        section.card aria-labelledby="attempts" {
            h2 #attempts { "Attempts that failed or were interrupted" }
            @if attempts.is_empty() { p.muted { "None." } }
            @if let Some(error) = job.last_error.as_ref().filter(|_| attempts.is_empty()) { p.problem dir="auto" { (error) } }
            ol.attempts {
                @for attempt in attempts.iter().rev() {
                    li {
                        p.problem dir="auto" { (attempt.error.as_deref().unwrap_or("no message")) }
                        p.muted.small {
                            "Attempt " (attempt.attempt)
                            @if let Some(at) = attempt.started_at { ", began " (format::instant(at, zone)) }
                            @if let Some(from) = attempt.started_at {
                                ", took " ((attempt.ended_at - from).num_milliseconds()) " ms"
                            }
                            @if let Some(worker) = &attempt.worker { ", by worker " bdi { (worker) } }
                        }
                    }
                }
            }
        }
    }
}

fn details(job: &JobSummary, zone: Tz) -> Markup {
    html! {
        section.card aria-labelledby="details" {
            h2 #details { "Details" }
            dl.details {
                dt { "Id" } dd { code { (job.id) } }
                dt { "Queue" } dd { a href={ (at("/jobs")) (format::query(&[("queue", Some(job.queue.as_str()))])) } { (job.queue) } }
                dt { "Kind" } dd { code { (job.kind) } }
                dt { "Attempts" } dd { (job.attempts) " of " (job.max_attempts) }
                dt { "To run" } dd { (format::instant(job.run_at, zone)) }
                dt { "Slot" } dd { (format::maybe_instant(job.slot, zone)) }
                dt { "Queued" } dd { (format::instant(job.created_at, zone)) }
                dt { "Finished" } dd { (format::maybe_instant(job.finished_at, zone)) }
            }
        }
    }
}
