//! `/schedules`: periodic jobs, and whether they ran on time.

use axum::{
    Router,
    extract::{Path, State, rejection::PathRejection},
    response::Response,
    routing::{get, post},
};
use common::operations::{self, ScheduleStatus};
use maud::{Markup, html};

use super::{
    format,
    guard::OurForm,
    page::{Page, PageError, Section},
    session::Operator,
};
use crate::{
    http::{base_path::at, body::Data, error::ApiError},
    routes::schedules as api,
    state::AppState,
};

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/schedules", get(show)).route("/schedules/{name}/run", post(run))
}

/// Leads to the job.
async fn run(
    state: State<AppState>,
    path: Result<Path<String>, PathRejection>,
    form: OurForm,
) -> Result<Response, PageError> {
    let path = path.map_err(|_| ApiError::not_found("Schedule not found"))?;
    let database = state.database.clone();
    let Data(job) = api::run(state, form.by.clone(), path).await?;
    let schedules = operations::schedules(&mut database.acquire().await?).await?;
    let waits = schedules.iter().any(|schedule| schedule.last_job_id == Some(job.id) && schedule.paused);
    let text = if waits { "Job queued. It waits, because its queue is paused." } else { "Job queued." };
    Ok(form.done(&format!("/jobs/{}", job.id), text))
}

async fn show(State(state): State<AppState>, operator: Operator) -> Result<Response, PageError> {
    let schedules = operations::schedules(&mut state.database.acquire().await?).await?;
    let body = html! {
        div.heading { h1 { "Schedules" } }
        section.card aria-label="Schedules" {
            @if schedules.is_empty() { p.muted { "Schedules appear once a worker has started." } }
            @else { div.scroll tabindex="0" role="region" aria-label="Schedules" { table {
                caption.visually-hidden { "Schedules with their last and next runs" }
                thead { tr {
                    th scope="col" { "Schedule" } th scope="col" { "State" } th.wide-only scope="col" { "Last run" }
                    th scope="col" { "Next run" } th.wide-only scope="col" { "Missed runs" }
                } }
                tbody { @for schedule in &schedules { (row(schedule, &operator)) } }
            } } }
            p.muted.small { "Cron: second minute hour day month weekday, in UTC." }
        }
    };
    Ok(Page { title: "Schedules", section: Section::Schedules, operator: &operator, live: "jobs" }.show(&body))
}

/// What a schedule does.
fn purpose(name: &str) -> Option<&'static str> {
    Some(match name {
        "add_up_counts" => "Adds up the counts behind the figures, so that they load fast",
        "anonymize_old_carts" => "Erases the shopper's data of old carts",
        "delete_old_records" => {
            "Deletes old events, links, idempotency keys, runs of schedules and entries of the audit log"
        }
        "expire_carts" => "Expires carts that were abandoned too long ago",
        "reconcile_payments" => "Asks Stripe about payments that no webhook reported",
        "roll_up_days" => "Adds up the counts behind the figures once more",
        _ => return None,
    })
}

fn row(schedule: &ScheduleStatus, operator: &Operator) -> Markup {
    let zone = operator.zone;
    html! {
        tr id={ "schedule-" (schedule.name) } {
            th scope="row" {
                (format::capital(&schedule.name))
                @if let Some(purpose) = purpose(&schedule.name) { span.muted.small.line { (purpose) } }
                span.muted.small.line { code { (schedule.cron) } " in " a href={ (at("/jobs?queue=")) (schedule.queue) } { (schedule.queue) } }
            }
            td data-announce={ "Schedule " (schedule.name) } {
                @if schedule.overdue {
                    span.badge.dead { "Overdue" }
                    @if let Some(slot) = schedule.overdue_slot { span.muted.small.line { "since " (format::instant(slot, zone)) } }
                } @else if schedule.paused { span.badge.paused { "Paused" } }
                @else { span.badge.active { "On time" } }
            }
            td.wide-only {
                (format::maybe_instant(schedule.last_slot, zone))
                @if let Some(job) = schedule.last_job_id { a.small.line href={ (at("/jobs/")) (job) } { "Last run's job" } }
            }
            td {
                (format::maybe_instant(schedule.next_slot, zone))
                (operator.button(&format!("/schedules/{}/run", schedule.name), "", "Run now"))
            }
            td.wide-only { @if schedule.catch_up == "all" { "run each" } @else { "run once" } }
        }
    }
}
