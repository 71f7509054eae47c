//! `/queues/{name}`: the last day of a queue by hour.

use axum::{Router, extract::State, response::Response, routing::get};
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use chrono_tz::Tz;
use common::operations::{self, JobState, Throughput};
use maud::{Markup, PreEscaped, html};

use super::{
    chart::{self, Bar, Size},
    format,
    page::{Page, PageError, Section},
    session::Operator,
};
use crate::{
    http::{base_path::at, error::ApiError},
    routes::queues::QueueName,
    state::AppState,
};

/// Hours on the page; the last one is not over.
const HOURS: i32 = 24;

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/queues/{name}", get(show))
}

async fn show(
    State(state): State<AppState>,
    operator: Operator,
    path: Result<QueueName, ApiError>,
) -> Result<Response, PageError> {
    let (name, now, zone) = (path?.0, state.clock.now(), operator.zone);
    let this_hour = now.duration_trunc(TimeDelta::hours(1)).unwrap_or(now);
    let first = this_hour - TimeDelta::hours(i64::from(HOURS - 1));
    let (_permit, database) = state.dashboard_searches.begin(&state.database).await?;
    let read = operations::throughput(&mut database.acquire().await?, name, first).await?;
    let (all, hours): (Vec<Throughput>, Vec<Throughput>) = read.into_iter().partition(|read| read.hour.is_none());
    let body = html! {
        div.heading {
            h1 { (name) }
            a.button href=(jobs(name, None)) { "Jobs" }
        }
        section.card aria-labelledby="hours" {
            div.heading {
                h2 #hours { "Finished jobs per hour" }
                ul.legend { li { span.key.abandoned {} "Finished" } li { span.key.recovered {} "Dead" } }
            }
            (drawing(name, first, &hours, zone))
            @if hours.is_empty() { p.muted { "No jobs finished since " (format::moment(first, zone)) "." } }
            @else { (numbers(name, &all, &hours, zone)) }
            p.muted.small {
                "As of " (format::moment(now, zone)) ". Waited: from the time at which a job was due to its last start. "
                "Ran: its last attempt. Cancelled jobs count as dead, without times; deleted jobs do not count."
            }
        }
    };
    Ok(Page { title: name, section: Section::Queues, operator: &operator, live: "" }.show(&body))
}

/// The list of a queue's jobs.
fn jobs(queue: &str, state: Option<JobState>) -> String {
    at("/jobs") + &format::query(&[("queue", Some(queue)), ("state", state.map(JobState::as_str))])
}

fn drawing(name: &str, first: DateTime<Utc>, hours: &[Throughput], zone: Tz) -> Markup {
    let bars: Vec<Bar> = (0..HOURS)
        .map(|place| {
            let start = first + TimeDelta::hours(i64::from(place));
            let (done, dead) =
                hours.iter().find(|hour| hour.hour == Some(start)).map_or((0, 0), |hour| (hour.done, hour.dead));
            Bar {
                label: start.with_timezone(&zone).format("%H:%M").to_string(),
                back: done + dead,
                front: dead,
                tooltip: format!(
                    "{}: {} done, {} dead",
                    format::minute(start, zone),
                    format::count(done),
                    format::count(dead)
                ),
                link: jobs(name, (dead > 0).then_some(JobState::Dead)),
            }
        })
        .collect();
    let label = format!("Bars of finished and dead jobs of {name} per hour. The table below has the numbers.");
    html! {
        (PreEscaped(chart::draw(&bars, Size::WIDE, &label, &chart::short)))
        (PreEscaped(chart::draw(&bars, Size::NARROW, &label, &chart::short)))
    }
}

fn numbers(name: &str, all: &[Throughput], hours: &[Throughput], zone: Tz) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Hours, newest first" { table {
            caption.visually-hidden { "Finished jobs of " (name) " per hour, newest first" }
            thead { tr {
                th scope="col" { "Hour" } th.number scope="col" { "Done" } th.number scope="col" { "Dead" }
                th.number scope="col" { "Failed or interrupted attempts" }
                th.number scope="col" { "Waited (median)" } th.number scope="col" { "Waited (95%)" }
                th.number scope="col" { "Ran (median)" } th.number scope="col" { "Ran (95%)" }
            } }
            tbody {
                @for row in all { (number_row(name, row, &html! { "All hours" })) }
                @for row in hours.iter().rev() {
                    (number_row(name, row, &html! { @if let Some(hour) = row.hour { (format::instant(hour, zone)) } }))
                }
            }
        } }
    }
}

fn number_row(queue: &str, row: &Throughput, name: &Markup) -> Markup {
    let time = |seconds: Option<f64>| seconds.map_or_else(|| "–".to_owned(), format::short_time);
    html! {
        tr {
            th scope="row" { (name) }
            td.number { (format::count(row.done)) }
            td.number { @if row.dead > 0 { a href=(jobs(queue, Some(JobState::Dead))) { (format::count(row.dead)) } } @else { "0" } }
            td.number { (format::count(row.failed_attempts)) }
            @for seconds in [row.median_wait, row.long_wait, row.median_run, row.long_run] { td.number { (time(seconds)) } }
        }
    }
}
