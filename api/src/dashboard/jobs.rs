//! `/jobs`: the list of jobs, by queue and state.

use axum::{Router, extract::State, response::Response, routing::get};
use chrono_tz::Tz;
use common::{
    jobs::QUEUES,
    operations::{self, COUNT_LIMIT, JobFilter, JobState, JobSummary},
};
use maud::{Markup, html};

use super::{
    format,
    page::{Page, PageError, Section},
    session::Operator,
};
use crate::{
    http::{base_path::at, error::ApiError, pagination, query::Parameters},
    state::AppState,
};

/// Jobs per page.
const LIMIT: i64 = 25;

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/jobs", get(show))
}

/// Parses the filter in a query string or a form: an optional queue and an optional state.
pub(crate) fn filter<'p>(get: impl Fn(&str) -> Option<&'p str>) -> Result<JobFilter, ApiError> {
    let queue = queue(&get)?;
    let state = get("state").filter(|state| !state.is_empty()).map(str::parse).transpose();
    let state =
        state.map_err(|_| ApiError::bad_request("state must be scheduled, ready, running, retrying, done or dead"))?;
    Ok(JobFilter { queue, state })
}

/// Parses the queue of a filter.
pub(crate) fn queue<'p>(get: impl Fn(&str) -> Option<&'p str>) -> Result<Option<String>, ApiError> {
    let queue = get("queue").filter(|queue| !queue.is_empty());
    if queue.is_some_and(|queue| !QUEUES.contains(&queue)) {
        return Err(ApiError::bad_request(format!("queue must be {}", QUEUES.join(", "))));
    }
    Ok(queue.map(str::to_owned))
}

/// The filter as pairs of a query string.
pub(crate) fn pairs(filter: &JobFilter) -> [(&'static str, Option<&str>); 2] {
    [("queue", filter.queue.as_deref()), ("state", filter.state.map(JobState::as_str))]
}

async fn show(
    State(state): State<AppState>,
    operator: Operator,
    parameters: Result<Parameters, ApiError>,
) -> Result<Response, PageError> {
    let parameters = parameters?;
    let filter = filter(|name| parameters.get(name))?;
    let page = pagination::Page { number: parameters.page()?, limit: LIMIT };
    let mut conn = state.database.acquire().await?;
    let total = operations::count(&mut conn, &filter).await?;
    let found = operations::list(&mut conn, &filter, page.offset(), LIMIT).await?;
    let body = html! {
        div.heading { h1 { "Jobs" } (queue_choice(&filter)) }
        (states(&filter))
        section.card aria-label="Jobs" {
            div.heading {
                p.muted { (counted(total)) }
                (at_once(&filter, total))
            }
            @if !found.is_empty() { (table(&found, operator.zone)) }
            (format::pages("/jobs", &pairs(&filter), page, total))
        }
    };
    Ok(Page { title: "Jobs", section: Section::Jobs, operator: &operator, live: "jobs" }.show(&body))
}

fn counted(total: i64) -> Markup {
    let more = if total >= COUNT_LIMIT { " or more" } else { "" };
    html! { (format::count(total)) (more) @if total == 1 { " job" } @else { " jobs" } }
}

fn queue_choice(filter: &JobFilter) -> Markup {
    html! {
        form.search method="get" action=(at("/jobs")) {
            label.visually-hidden for="queue" { "Queue" }
            select #queue name="queue" {
                option value="" { "All queues" }
                @for queue in QUEUES { option value=(queue) selected[filter.queue.as_deref() == Some(queue)] { (queue) } }
            }
            @if let Some(state) = filter.state { input type="hidden" name="state" value=(state.as_str()); }
            button.button type="submit" { "Apply" }
        }
    }
}

fn states(filter: &JobFilter) -> Markup {
    let states = std::iter::once(None).chain(JobState::ALL.map(Some));
    html! {
        nav aria-label="State" { ul.tabs {
            @for state in states {
                @let pairs = [("queue", filter.queue.as_deref()), ("state", state.map(JobState::as_str))];
                li { a href={ (at("/jobs")) (format::query(&pairs)) } aria-current=[(state == filter.state).then_some("true")] {
                    (state.map_or("All".to_owned(), |state| format::capital(state.as_str())))
                } }
            }
        } }
    }
}

/// Links to the actions on all jobs that match the filter; a page with their count comes first.
fn at_once(filter: &JobFilter, total: i64) -> Markup {
    let query = format::query(&pairs(filter));
    let dead = filter.state == Some(JobState::Dead);
    let unfinished = !matches!(filter.state, Some(JobState::Dead | JobState::Done));
    html! {
        @if total > 0 && dead { a.button href={ (at("/jobs/retry")) (query) } { "Retry all …" } }
        @if total > 0 && unfinished { a.button href={ (at("/jobs/cancel")) (query) } { "Cancel all …" } }
    }
}

fn table(jobs: &[JobSummary], zone: Tz) -> Markup {
    html! {
        table.rows {
            caption.visually-hidden { "Jobs, newest first" }
            thead { tr {
                th scope="col" { "Job" } th scope="col" { "State" } th.number.wide-only scope="col" { "Attempts" }
                th.wide-only scope="col" { "Runs at" }
            } }
            tbody { @for job in jobs { tr id={ "job-" (job.id) } {
                th scope="row" {
                    a.cover href={ (at("/jobs/")) (job.id) } { (format::capital(&job.kind)) }
                    span.muted.small.ellipsis { (job.queue) @if let Some(error) = &job.last_error { " · " bdi { (error) } } }
                }
                td { (format::job_state(job.state)) }
                td.number.wide-only { (job.attempts) " of " (job.max_attempts) }
                td.wide-only { (format::instant(job.run_at, zone)) }
            } } }
        }
    }
}
