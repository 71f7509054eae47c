//! `/schedules`: periodic jobs, and whether they ran on time.

use axum::{Router, extract::State, response::Response, routing::get};
use chrono_tz::Tz;
use common::operations::{self, ScheduleStatus};
use maud::{Markup, html};

use super::{
    format,
    page::{Page, PageError, Section},
    session::Operator,
};
use crate::{http::base_path::at, state::AppState};

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/schedules", get(show))
}

async fn show(State(state): State<AppState>, operator: Operator) -> Result<Response, PageError> {
    let schedules = operations::schedules(&mut state.database.acquire().await?).await?;
    let body = html! {
        div.heading { h1 { "Schedules" } }
        section.card aria-label="Schedules" {
            @if schedules.is_empty() { p.muted { "No worker has been here yet; it brings its schedules with it." } }
            @else { div.scroll tabindex="0" role="region" aria-label="Schedules" { table {
                caption.visually-hidden { "Schedules with their last and next slots" }
                thead { tr {
                    th scope="col" { "Schedule" } th scope="col" { "State" } th.wide-only scope="col" { "Last slot" }
                    th scope="col" { "Next slot" } th.wide-only scope="col" { "After an outage" }
                } }
                tbody { @for schedule in &schedules { (row(schedule, operator.zone)) } }
            } } }
            p.muted.small { "Cron expressions have six fields, seconds first, and are in UTC." }
        }
    };
    Ok(Page { title: "Schedules", section: Section::Schedules, operator: &operator, live: "jobs" }.show(&body))
}

fn row(schedule: &ScheduleStatus, zone: Tz) -> Markup {
    html! {
        tr {
            th scope="row" {
                (format::capital(&schedule.name))
                span.muted.small.ellipsis { code { (schedule.cron) } " in " a href={ (at("/jobs?queue=")) (schedule.queue) } { (schedule.queue) } }
            }
            td data-announce={ "Schedule " (schedule.name) } {
                @if schedule.overdue {
                    span.badge.dead { "Overdue" }
                    @if let Some(slot) = schedule.overdue_slot { span.muted.small.line { "since " (format::instant(slot, zone)) } }
                } @else if schedule.paused { span.badge.paused { "Paused" } }
                @else { span.badge.active { "On time" } }
            }
            td.wide-only { (format::maybe_instant(schedule.last_slot, zone)) }
            td { (format::maybe_instant(schedule.next_slot, zone)) }
            td.wide-only { @if schedule.catch_up == "all" { "every slot runs" } @else { "one run for all" } }
        }
    }
}
