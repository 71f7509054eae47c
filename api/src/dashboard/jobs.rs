//! `/jobs`: the list of jobs, by queue and state.

use std::collections::BTreeMap;

use axum::{Router, extract::State, response::Response, routing::get};
use common::{
    jobs::{KINDS, QUEUES},
    json::{self, Fields},
    operations::{self, COUNT_LIMIT, JobFilter, JobState, JobSummary},
};
use maud::{Markup, html};

use super::{
    format,
    job_filters::{choice, filter, pairs},
    jobs_at_once::Action,
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

async fn show(
    State(state): State<AppState>,
    operator: Operator,
    parameters: Result<Parameters, ApiError>,
) -> Result<Response, PageError> {
    let parameters = parameters?;
    let filter = filter(|name| parameters.get(name))?;
    let page = pagination::Page { number: parameters.page()?, limit: LIMIT };
    // These read every job.
    let scans = filter.kind.is_some() || filter.error.is_some();
    let (_permit, database) = if scans {
        let (permit, database) = state.dashboard_searches.begin(&state.database).await?;
        (Some(permit), database)
    } else {
        (None, state.database.clone())
    };
    let mut conn = database.acquire().await?;
    let counts = operations::count_by_state(&mut conn, &filter).await?;
    let all = counts.values().sum();
    // Of the pending states together at most 100,000 jobs are counted.
    let pending: i64 =
        [JobState::Scheduled, JobState::Ready, JobState::Retrying].iter().map(|state| counts[state]).sum();
    let total = match filter.state {
        None => all,
        Some(state) if pending < COUNT_LIMIT => counts[&state],
        Some(_) => operations::count(&mut conn, &filter).await?,
    };
    let found = operations::list(&mut conn, &filter, page.offset(), LIMIT).await?;
    let body = html! {
        div.heading { h1 { "Jobs" } (filters(&filter)) }
        @if let Some(cart) = &filter.subject {
            p { "Of the cart " a href={ (at("/carts/")) (cart) } { (cart) } ". " a href=(at("/jobs")) { "All jobs" } }
        }
        (states(&filter, &counts))
        section.card aria-label="Jobs" {
            div.heading {
                p.muted { (counted(total)) }
                @if operator.may_change { (at_once(&filter, &counts)) }
            }
            @if found.is_empty() && total > 0 { p.muted { "No such page." } }
            @else if !found.is_empty() { (table(&found, &filter, &operator)) }
            (format::pages("/jobs", &pairs(&filter), page, total))
        }
    };
    // An open page would read all errors again with each change.
    let live = if filter.error.is_some() { "" } else { "jobs" };
    Ok(Page { title: "Jobs", section: Section::Jobs, operator: &operator, live }.show(&body))
}

fn counted(total: i64) -> Markup {
    let more = if total >= COUNT_LIMIT { " or more" } else { "" };
    html! { (format::count(total)) (more) @if total == 1 { " job" } @else { " jobs" } }
}

fn filters(filter: &JobFilter) -> Markup {
    html! {
        form.search.several role="search" method="get" action=(at("/jobs")) {
            label.visually-hidden for="queue" { "Queue" }
            (choice("queue", "All queues", &QUEUES, filter.queue.as_deref()))
            label.visually-hidden for="kind" { "Kind" }
            (choice("kind", "All kinds", &KINDS, filter.kind.as_deref()))
            label.visually-hidden for="error" { "Error contains" }
            input #error type="search" name="error" value=[filter.error.as_deref()] placeholder="Error contains" maxlength="200" dir="auto";
            @if let Some(state) = filter.state { input type="hidden" name="state" value=(state.as_str()); }
            @if let Some(cart) = &filter.subject { input type="hidden" name="cartId" value=(cart); }
            button.button type="submit" { "Apply" }
        }
    }
}

fn states(filter: &JobFilter, counts: &BTreeMap<JobState, i64>) -> Markup {
    let states = std::iter::once(None).chain(JobState::ALL.map(Some));
    html! {
        nav aria-label="State" { ul.tabs {
            @for state in states {
                @let chosen = JobFilter { state, ..filter.clone() };
                @let count = state.map_or_else(|| counts.values().sum(), |state| counts[&state]);
                li { a href={ (at("/jobs")) (format::query(&pairs(&chosen))) } aria-current=[(state == filter.state).then_some("true")] {
                    (state.map_or("All".to_owned(), |state| format::capital(state.as_str())))
                    " " span.count { (format::count(count)) @if count >= COUNT_LIMIT { "+" } }
                } }
            }
        } }
    }
}

/// Links to the actions on all jobs that match the filter; a page with their count comes first.
fn at_once(filter: &JobFilter, counts: &BTreeMap<JobState, i64>) -> Markup {
    let query = format::query(&pairs(filter));
    let dead = filter.state == Some(JobState::Dead) && counts[&JobState::Dead] > 0;
    let unfinished = filter.state.is_none_or(JobState::is_unfinished)
        && counts.iter().any(|(state, count)| state.is_unfinished() && *count > 0);
    html! {
        @if dead || unfinished { div.actions {
            @if dead { a.button href={ (at("/jobs/retry")) (query) } { "Retry all …" } }
            @if dead { a.button.danger href={ (at("/jobs/discard")) (query) } { "Dismiss all …" } }
            @if unfinished { a.button href={ (at("/jobs/cancel")) (query) } { "Cancel all …" } }
        } }
    }
}

/// The jobs; for operators with a box each, and the actions on those that are checked.
fn table(jobs: &[JobSummary], filter: &JobFilter, operator: &Operator) -> Markup {
    if !operator.may_change {
        return rows(jobs, operator);
    }
    html! {
        form method="get" action=(at("/jobs/selected")) {
            (format::kept(&pairs(filter)))
            (rows(jobs, operator))
            div.actions.below {
                @for action in Action::ALL.into_iter().filter(|action| jobs.iter().any(|job| action.fits(job))) {
                    button.button type="submit" name="action" value=(action.name()) { (action.verb()) " selected …" }
                }
            }
        }
    }
}

fn rows(jobs: &[JobSummary], operator: &Operator) -> Markup {
    html! {
        table.rows {
            caption.visually-hidden { "Jobs, newest first" }
            thead { tr {
                th scope="col" { "Job" } th scope="col" { "State" } th.number.wide-only scope="col" { "Attempts" }
                th.wide-only scope="col" { "Runs at" }
            } }
            tbody { @for job in jobs { (row(job, operator)) } }
        }
    }
}

fn row(job: &JobSummary, operator: &Operator) -> Markup {
    let name = format::capital(&job.kind);
    html! {
        tr id={ "job-" (job.id) } {
            th scope="row" { div.picked {
                @if operator.may_change {
                    input.above type="checkbox" name="id" value=(job.id)
                        aria-label={ "Select " (name) @if let Some(cart) = &job.subject { " of " (cart) } };
                }
                div {
                    a.cover href={ (at("/jobs/")) (job.id) } { (name) }
                    span.muted.small.ellipsis {
                        (job.queue)
                        @if let Some(cart) = &job.subject { " · " a.above href={ (at("/carts/")) (cart) } { (cart) } }
                        @if let Some(arguments) = other_arguments(job) { " · " (arguments) }
                        // That of a job that is done is of an earlier attempt.
                        @if let Some(error) = job.last_error.as_ref().filter(|_| job.state != JobState::Done) { " · " bdi { (error) } }
                    }
                }
            } }
            td { (format::job_state(job.state)) }
            td.number.wide-only { (job.attempts) " of " (job.max_attempts) }
            td.wide-only { (format::instant(job.run_at, operator.zone)) }
        }
    }
}

/// `version 2`: the arguments of a job without its cart; `None` if there are no others.
fn other_arguments(job: &JobSummary) -> Option<String> {
    let fields = json::parse(job.payload.as_bytes()).ok()?;
    let fields = Fields::of(&fields)?.only(|name| name != "cartId");
    let shown: Vec<String> = fields.iter().map(|(name, value)| format!("{name} {}", value.get())).collect();
    (!shown.is_empty()).then(|| shown.join(", "))
}
