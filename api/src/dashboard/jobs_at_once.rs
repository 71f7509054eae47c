//! Actions on several jobs, after a page that shows their number: `/jobs/retry`, `/jobs/cancel` and
//! `/jobs/discard` on all jobs of a filter, `/jobs/selected` on those that were checked in the list.

use std::fmt::Display;

use axum::{Router, extract::State, response::Response, routing::get};
use common::{
    jobs::{KINDS, QUEUES},
    operations::{self, COUNT_LIMIT, JobFilter, JobState, JobSummary},
};
use maud::{Markup, html};
use uuid::Uuid;

use super::{
    format,
    guard::OurForm,
    job_filters::{choice, filter, pairs},
    page::{Page, PageError, Section},
    selection::{self, Tally},
    session::Operator,
};
use crate::{
    auth::keys::By,
    http::{base_path::at, error::ApiError, query::Parameters},
    routes::jobs::{self as api, JobPath, bulk},
    state::AppState,
};

pub(crate) fn router() -> Router<AppState> {
    let of_filter = |action: Action| {
        get(move |state, operator, parameters| ask(action, state, operator, parameters))
            .post(move |state, form| act(action, state, form))
    };
    Router::new()
        .route("/jobs/retry", of_filter(Action::Retry))
        .route("/jobs/cancel", of_filter(Action::Cancel))
        .route("/jobs/discard", of_filter(Action::Discard))
        .route("/jobs/selected", get(ask_selected).post(act_on_selected))
}

/// Which jobs a retry does not help.
const REFUSED_LINKS: &str = "A job whose payment link was refused creates none: create a new link on its cart's page.";

/// What can be done to several jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Retry,
    Cancel,
    Discard,
}

impl Action {
    /// All actions, in the order of their buttons.
    pub(crate) const ALL: [Self; 3] = [Self::Retry, Self::Cancel, Self::Discard];

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == text)
    }

    /// Its name in paths and forms.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Cancel => "cancel",
            Self::Discard => "discard",
        }
    }

    /// Its name on buttons.
    pub(crate) fn verb(self) -> &'static str {
        match self {
            Self::Retry => "Retry",
            Self::Cancel => "Cancel",
            Self::Discard => "Dismiss",
        }
    }

    /// What happens to the jobs, after their number.
    fn effect(self) -> &'static str {
        match self {
            Self::Retry => " will be queued again with fresh attempts.",
            Self::Cancel => " will be cancelled. Running jobs stop within 10 seconds.",
            Self::Discard => " will be deleted. A payment link that waits for one of them fails.",
        }
    }

    /// The title of its pages.
    fn title(self) -> &'static str {
        match self {
            Self::Retry => "Retry dead jobs",
            Self::Cancel => "Cancel jobs",
            Self::Discard => "Dismiss jobs",
        }
    }

    /// The notice after it.
    fn done(self, jobs: impl Display) -> String {
        let what = match self {
            Self::Retry => "queued again",
            Self::Cancel => "cancelled",
            Self::Discard => "dismissed",
        };
        format!("{} {what}.", counted(jobs))
    }

    fn class(self) -> &'static str {
        if self == Self::Retry { "primary" } else { "danger" }
    }

    /// Whether the job's state allows the action.
    pub(crate) fn fits(self, job: &JobSummary) -> bool {
        match self {
            Self::Retry => job.state == JobState::Dead,
            Self::Cancel => job.is_unfinished(),
            Self::Discard => !job.is_unfinished(),
        }
    }

    /// Acts on all jobs of a filter; returns how many match, or were changed.
    async fn run(self, state: &AppState, by: &By, filter: &JobFilter, dry_run: bool) -> Result<i64, ApiError> {
        match self {
            Self::Retry | Self::Discard if filter.state.is_some_and(|state| state != JobState::Dead) => {
                return Err(ApiError::bad_request("All of a filter can be retried or dismissed if they are dead"));
            }
            Self::Cancel if filter.state.is_some_and(|state| !state.is_unfinished()) => {
                return Err(ApiError::bad_request("Only unfinished jobs can be cancelled"));
            }
            _ => {}
        }
        Ok(match self {
            Self::Retry => {
                let many = bulk::retry(state, by, filter, dry_run).await?;
                i64::try_from(if dry_run { many.matched } else { many.retried }).unwrap_or(i64::MAX)
            }
            Self::Cancel => bulk::cancel(state, by, filter, dry_run).await?.matched,
            Self::Discard => bulk::discard(state, by, filter, dry_run).await?.matched,
        })
    }
}

async fn ask(
    action: Action,
    State(state): State<AppState>,
    operator: Operator,
    parameters: Result<Parameters, ApiError>,
) -> Result<Response, PageError> {
    operator.check_may_change()?;
    let parameters = parameters?;
    let filter = filter(|name| parameters.get(name))?;
    let matched = action.run(&state, &operator.by, &filter, true).await?;
    // Retries count all.
    let more = if action != Action::Retry && matched >= COUNT_LIMIT { " or more" } else { "" };
    let path = format!("/jobs/{}", action.name());
    let body = html! {
        section.card.narrow {
            h1 { (action.title()) }
            form.stack method="get" action=(at(&path)) {
                label for="queue" { "Queue" }
                (choice("queue", "All queues", &QUEUES, filter.queue.as_deref()))
                @if action == Action::Cancel { (unfinished_states(filter.state)) }
                label for="kind" { "Kind" }
                (choice("kind", "All kinds", &KINDS, filter.kind.as_deref()))
                label for="error" { "Error contains" }
                input #error name="error" value=[filter.error.as_deref()] maxlength="200" dir="auto";
                @if let Some(cart) = &filter.subject { input type="hidden" name="cartId" value=(cart); }
                button.button type="submit" { "Preview" }
            }
            p.value-line { strong { (counted(matched)) (more) } @if matched == 1 { " matches" } @else { " match" } " now. Those that match when you confirm" (action.effect()) }
            @if action == Action::Retry { p.muted.small { (REFUSED_LINKS) } }
            div.actions {
                @if matched > 0 {
                    form method="post" action=(at(&path)) {
                        (operator.token_field())
                        (format::kept(&pairs(&filter)))
                        button class={ "button " (action.class()) } type="submit" { (action.verb()) " " (counted(matched)) (more) }
                    }
                }
                a.button href={ (at("/jobs")) (format::query(&pairs(&filter))) } { "Back to jobs" }
            }
        }
    };
    Ok(Page { title: action.title(), section: Section::Jobs, operator: &operator, live: "" }.show(&body))
}

fn unfinished_states(chosen: Option<JobState>) -> Markup {
    html! {
        label for="state" { "State" }
        select #state name="state" {
            option value="" { "unfinished" }
            @for state in [JobState::Scheduled, JobState::Ready, JobState::Running, JobState::Retrying] {
                option value=(state.as_str()) selected[chosen == Some(state)] { (state.as_str()) }
            }
        }
    }
}

async fn act(action: Action, State(state): State<AppState>, form: OurForm) -> Result<Response, PageError> {
    let filter: JobFilter = filter(|name| form.get(name))?;
    let count = action.run(&state, &form.by, &filter, false).await?;
    // The list of what was changed, if it can be found.
    let list = match action {
        Action::Cancel => JobFilter { state: Some(JobState::Dead), error: None, ..filter },
        Action::Retry | Action::Discard => JobFilter { state: None, ..filter },
    };
    Ok(form.done(&format!("/jobs{}", format::query(&pairs(&list))), &action.done(count)))
}

/// The action and the ids in a query string or a form.
fn selected<'p>(action: Option<&str>, ids: impl Iterator<Item = &'p str>) -> Result<(Action, Vec<Uuid>), ApiError> {
    let action = action.and_then(Action::parse);
    let action = action.ok_or_else(|| ApiError::bad_request("action must be retry, cancel or discard"))?;
    Ok((action, selection::ids(ids, "job", "jobs")?))
}

async fn ask_selected(
    State(state): State<AppState>,
    operator: Operator,
    parameters: Result<Parameters, ApiError>,
) -> Result<Response, PageError> {
    operator.check_may_change()?;
    let parameters = parameters?;
    let (action, ids) = selected(parameters.get("action"), parameters.all("id"))?;
    let filter = filter(|name| parameters.get(name))?;
    let mut conn = state.database.acquire().await?;
    let mut fitting = Vec::new();
    for id in &ids {
        fitting.extend(operations::find(&mut conn, *id).await?.filter(|job| action.fits(job)));
    }
    let (matched, others) = (fitting.len(), ids.len() - fitting.len());
    let body = html! {
        section.card.narrow {
            h1 { (action.title()) }
            p.value-line { strong { (counted(matched)) } (action.effect()) }
            @if action == Action::Retry { p.muted.small { (REFUSED_LINKS) } }
            @if ids.is_empty() { p.muted { "No job is selected." } }
            @if others > 0 { p.muted { (counted(others)) " not included: deleted, or in another state." } }
            div.actions {
                @if matched > 0 {
                    @let button = format!("{} {}", action.verb(), counted(matched));
                    (selection::form(&operator, "/jobs/selected", action.name(), fitting.iter().map(|job| job.id), &format::kept(&pairs(&filter)), (action.class(), &button)))
                }
                a.button href={ (at("/jobs")) (format::query(&pairs(&filter))) } { "Back to jobs" }
            }
        }
    };
    Ok(Page { title: action.title(), section: Section::Jobs, operator: &operator, live: "" }.show(&body))
}

/// Acts on each job by itself. Jobs whose state has changed since are left alone.
async fn act_on_selected(State(state): State<AppState>, form: OurForm) -> Result<Response, PageError> {
    let (action, ids) = selected(form.get("action"), form.all("id"))?;
    let filter = filter(|name| form.get(name))?;
    let mut tally = Tally::default();
    for id in ids {
        let (state, by, path) = (State(state.clone()), form.by.clone(), JobPath(id));
        let done = match action {
            Action::Retry => api::retry(state, by, path).await.map(drop),
            Action::Cancel => api::cancel(state, by, path).await.map(drop),
            Action::Discard => api::discard(state, by, path).await.map(drop),
        };
        tally.add(done)?;
    }
    let list = format!("/jobs{}", format::query(&pairs(&filter)));
    Ok(form.done(&list, &format!("{}{}", action.done(tally.changed), tally.rest(counted))))
}

fn counted(jobs: impl Display) -> String {
    format::counted(jobs, "job", "jobs")
}
