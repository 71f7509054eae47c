//! `/jobs/{id}`: one job, its failed and interrupted attempts and its actions.

use axum::{
    Router,
    extract::State,
    response::Response,
    routing::{get, post},
};
use chrono_tz::Tz;
use common::{
    dead_jobs::{self, EndedLink},
    operations::{self, FailedAttempt, JobState, JobSummary},
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
    routes::jobs::{self as api, JobPath, job_not_found},
    state::AppState,
};

pub(crate) fn router() -> Router<AppState> {
    Router::new()
        .route("/jobs/{id}", get(show))
        .route("/jobs/{id}/retry", post(retry))
        .route("/jobs/{id}/cancel", post(cancel))
        .route("/jobs/{id}/discard", post(discard))
}

async fn show(
    State(state): State<AppState>,
    operator: Operator,
    path: Result<JobPath, ApiError>,
) -> Result<Response, PageError> {
    let JobPath(id) = path?;
    let mut conn = state.database.acquire().await?;
    let job = operations::find(&mut conn, id).await?.ok_or_else(job_not_found)?;
    let history = operations::history(&mut conn, id).await?.ok_or_else(job_not_found)?;
    let ended = dead_jobs::ended_link(&mut conn, id).await?;
    let title = format::capital(&job.kind);
    let body = html! {
        nav.crumbs aria-label="Breadcrumbs" { a href=(at("/jobs")) { "Jobs" } }
        div.heading {
            h1 { (title) " " span data-announce="Job" { (format::job_state(job.state)) } }
            (actions(&operator, &job, ended.as_ref()))
        }
        @if let Some(ended) = &ended { p { (needs_link(ended)) } }
        div.columns.uneven {
            (history_of(&history, &job, operator.zone))
            (details(&job, &operator))
        }
    };
    Ok(Page { title: &title, section: Section::Jobs, operator: &operator, live: "jobs" }.show(&body))
}

async fn retry(state: State<AppState>, path: Result<JobPath, ApiError>, form: OurForm) -> Result<Response, PageError> {
    let JobPath(id) = path?;
    api::retry(state, form.by.clone(), JobPath(id)).await?;
    Ok(form.done(&format!("/jobs/{id}"), "Job queued again, with fresh attempts."))
}

async fn cancel(state: State<AppState>, path: Result<JobPath, ApiError>, form: OurForm) -> Result<Response, PageError> {
    let JobPath(id) = path?;
    api::cancel(state, form.by.clone(), JobPath(id)).await?;
    Ok(form.done(&format!("/jobs/{id}"), "Job cancelled."))
}

async fn discard(
    state: State<AppState>,
    path: Result<JobPath, ApiError>,
    form: OurForm,
) -> Result<Response, PageError> {
    api::discard(state, form.by.clone(), path?).await?;
    Ok(form.done("/jobs", "Job dismissed."))
}

/// Offers no retry that would do nothing.
fn actions(operator: &Operator, job: &JobSummary, ended: Option<&EndedLink>) -> Markup {
    html! {
        div.actions {
            @if let Some(ended) = ended.filter(|ended| ended.needs_link && operator.may_change) {
                a #new-link .button.primary href={ (at("/carts/")) (ended.cart_id) "#link" } { "Create a new link" }
            } @else if job.state == JobState::Dead && ended.is_none() { (operator.button(&format!("/jobs/{}/retry", job.id), "primary", "Retry")) }
            @if !job.is_unfinished() { (operator.button(&format!("/jobs/{}/discard", job.id), "", "Dismiss")) }
            @if job.is_unfinished() { (operator.button(&format!("/jobs/{}/cancel", job.id), "danger", "Cancel")) }
        }
    }
}

/// Why the dead job of a payment link can't be retried.
fn needs_link(ended: &EndedLink) -> Markup {
    html! {
        "Its request for a payment link has ended, so a retry would do nothing. "
        @if ended.needs_link { "Create a new link on the cart's page." } @else { "The cart needs no new link." }
    }
}

fn history_of(attempts: &[FailedAttempt], job: &JobSummary, zone: Tz) -> Markup {
    html! {
        section.card aria-labelledby="attempts" {
            h2 #attempts { "Failed or interrupted attempts" }
            @if attempts.is_empty() { p.muted { "None" } }
            @if let Some(error) = job.last_error.as_ref().filter(|_| attempts.is_empty()) { p.problem dir="auto" { (error) } }
            ol.attempts {
                @for attempt in attempts.iter().rev() {
                    li id={ "attempt-" (attempt.ended_at.timestamp_micros()) } {
                        p.problem dir="auto" { (attempt.error.as_deref().unwrap_or("no message")) }
                        p.muted.small {
                            "Attempt " (attempt.attempt)
                            @if let Some(at) = attempt.started_at { ", began " (format::moment(at, zone)) }
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

fn details(job: &JobSummary, operator: &Operator) -> Markup {
    let zone = operator.zone;
    html! {
        section.card aria-labelledby="details" {
            h2 #details { "Details" }
            dl.details {
                dt { "ID" } dd { (format::copyable("job-id", "the job ID", &html! { code { (job.id) } })) }
                dt { "Queue" } dd { a href={ (at("/jobs")) (format::query(&[("queue", Some(job.queue.as_str()))])) } { (job.queue) } }
                dt { "Kind" } dd { code { (job.kind) } }
                @if let Some(cart) = &job.subject { dt { "Cart" } dd { a href={ (at("/carts/")) (cart) } { code { (cart) } } } }
                dt { "Arguments" } dd { code { (job.payload) } }
                dt { "Attempts" } dd { (job.attempts) " of " (job.max_attempts) }
                dt { "Runs at" } dd {
                    (format::moment(job.run_at, zone))
                    @if job.is_unfinished() { span.muted.line { (format::relative(job.run_at, operator.now, zone)) } }
                }
                dt { "Scheduled run" } dd { (format::maybe_moment(job.slot, zone)) }
                dt { "Queued" } dd { (format::moment(job.created_at, zone)) }
                dt { "Finished" } dd { (format::maybe_moment(job.finished_at, zone)) }
            }
        }
    }
}
