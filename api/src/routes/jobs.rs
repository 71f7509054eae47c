//! `/api/jobs`: lists, retries and cancels jobs.

use axum::{
    extract::{FromRequestParts, Path, State},
    http::request::Parts,
};
use common::{
    carts::new::FieldError,
    jobs::QUEUES,
    json::{self, Fields},
    operations::{
        self, ActionOutcome, COUNT_LIMIT, DeadFilter, FailedAttempt, JobFilter, JobState, JobSummary, RetriedMany,
    },
};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::routes;
use uuid::Uuid;

use super::queues::QueueName;
use crate::{
    auth::scoped_router::ScopedRouter,
    http::{
        body::{Data, JsonBody, Success},
        error::ApiError,
        pagination::{NextLink, Page, Pagination, next_link},
        query::Parameters,
    },
    openapi,
    state::AppState,
};

pub(crate) fn router() -> ScopedRouter {
    ScopedRouter::new()
        .operator(routes!(list))
        .operator(routes!(retry_many))
        .operator(routes!(show))
        .operator(routes!(retry))
        .operator(routes!(cancel))
}

/// The job id in a path. Malformed ids return 404.
pub(crate) struct JobPath(pub(crate) Uuid);

impl<S: Send + Sync> FromRequestParts<S> for JobPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(id) = Path::from_request_parts(parts, state).await.map_err(|_| job_not_found())?;
        Ok(Self(id))
    }
}

pub(crate) fn job_not_found() -> ApiError {
    ApiError::not_found("Job not found")
}

/// A page of jobs, newest first.
#[derive(Serialize, ToSchema)]
struct JobList {
    jobs: Vec<JobSummary>,
    pagination: Pagination,
}

/// List jobs
///
/// Newest first. `total` is at most 100,000.
#[utoipa::path(
    get, path = "/jobs", operation_id = "listJobs", tag = "Operations",
    params(
        ("queue" = inline(Option<QueueName>), Query, description = "Only of this queue."),
        ("state" = Option<JobState>, Query, description = "Only in this state."),
        Page,
    ),
    responses((status = 200, description = "A page", body = Success<JobList>,
        headers(("Link" = String, description = "The address of the next page, with `rel=\"next\"`; absent on the last one.")))),
)]
async fn list(State(state): State<AppState>, parameters: Parameters) -> Result<(NextLink, Data<JobList>), ApiError> {
    let takes = QUEUES.join(", ");
    let queue = parameters.parse("queue", &takes, |text| QUEUES.contains(&text).then(|| text.to_owned()))?;
    let job_state =
        parameters.parse("state", "scheduled, ready, running, retrying, done or dead", |text| text.parse().ok())?;
    let page = Page::of(&parameters)?;
    let filter = JobFilter { queue, state: job_state };
    let mut conn = state.database.acquire().await?;
    let total = operations::count(&mut conn, &filter).await?;
    let past_the_end = page.offset() >= total && total < COUNT_LIMIT;
    let jobs =
        if past_the_end { Vec::new() } else { operations::list(&mut conn, &filter, page.offset(), page.limit).await? };
    let next = (page.number < page.pages(total)).then(|| (page.number + 1).to_string());
    let link = next_link(&parameters, "/api/jobs", "page", next.as_deref());
    Ok((link, Data(JobList { jobs, pagination: Pagination::new(page, total) })))
}

/// A job and its failed and interrupted attempts.
#[derive(Serialize, ToSchema)]
struct JobDetail {
    #[serde(flatten)]
    job: JobSummary,
    /// Failed and interrupted attempts, oldest first.
    history: Vec<FailedAttempt>,
}

/// Get a job
///
/// Includes its failed and interrupted attempts.
#[utoipa::path(
    get, path = "/jobs/{id}", operation_id = "showJob", tag = "Operations",
    params(("id" = Uuid, Path, description = "Which job.")),
    responses((status = 200, description = "The job", body = Success<JobDetail>)),
)]
async fn show(State(state): State<AppState>, JobPath(id): JobPath) -> Result<Data<JobDetail>, ApiError> {
    let mut conn = state.database.acquire().await?;
    let job = operations::find(&mut conn, id).await?.ok_or_else(job_not_found)?;
    let history = operations::history(&mut conn, id).await?.ok_or_else(job_not_found)?;
    Ok(Data(JobDetail { job, history }))
}

/// Retry a job
///
/// The job must be dead. It is ready again, with all its attempts left.
#[utoipa::path(
    post, path = "/jobs/{id}/retry", operation_id = "retryJob", tag = "Operations",
    params(("id" = Uuid, Path, description = "Which job.")),
    responses(
        (status = 200, description = "It is ready", body = Success<JobSummary>),
        (status = 409, description = "`CONFLICT`: it is not dead, or the same is queued already", body = openapi::Error),
    ),
)]
pub(crate) async fn retry(State(state): State<AppState>, JobPath(id): JobPath) -> Result<Data<JobSummary>, ApiError> {
    let mut tx = state.database.begin().await?;
    let job = changed(operations::retry(&mut tx, id).await?, "only a dead one can be retried")?;
    tx.commit().await?;
    Ok(Data(job))
}

/// Cancel a job
///
/// The job must be unfinished. It becomes dead; if it is running, it is dropped within 10 s.
#[utoipa::path(
    post, path = "/jobs/{id}/cancel", operation_id = "cancelJob", tag = "Operations",
    params(("id" = Uuid, Path, description = "Which job.")),
    responses(
        (status = 200, description = "It is dead", body = Success<JobSummary>),
        (status = 409, description = "`CONFLICT`: it has ended already", body = openapi::Error),
    ),
)]
pub(crate) async fn cancel(State(state): State<AppState>, JobPath(id): JobPath) -> Result<Data<JobSummary>, ApiError> {
    let mut tx = state.database.begin().await?;
    let job = changed(operations::cancel(&mut tx, id).await?, "only an unfinished one can be cancelled")?;
    tx.commit().await?;
    Ok(Data(job))
}

fn changed(outcome: ActionOutcome, rule: &str) -> Result<JobSummary, ApiError> {
    match outcome {
        ActionOutcome::Done(job) => Ok(job),
        ActionOutcome::NotFound => Err(job_not_found()),
        ActionOutcome::WrongState(state) => Err(ApiError::conflict(format!("The job is {}: {rule}", state.as_str()))),
        ActionOutcome::AlreadyQueued => Err(ApiError::conflict("The same job is queued already")),
    }
}

/// Retry dead jobs
///
/// Retries all dead jobs of a queue that match the filter. `dryRun` only counts them.
#[utoipa::path(
    post, path = "/jobs/retry", operation_id = "retryJobs", tag = "Operations",
    request_body = DeadJobs,
    responses((status = 200, description = "What was done, or would be", body = Success<RetriedMany>)),
)]
async fn retry_many(State(state): State<AppState>, JsonBody(body): JsonBody) -> Result<Data<RetriedMany>, ApiError> {
    let DeadJobs { queue, kind, error, dry_run } = DeadJobs::parse(&body).map_err(ApiError::validation)?;
    let filter = DeadFilter { queue: queue.0.to_owned(), kind, error };
    let mut tx = state.database.begin().await?;
    let retried = operations::retry_dead(&mut tx, &filter, dry_run).await?;
    tx.commit().await?;
    Ok(Data(retried))
}

/// Body of `POST /api/jobs/retry`.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase", example = json!({"queue": "payment-links", "dryRun": true}))]
struct DeadJobs {
    #[schema(inline)]
    queue: QueueName,
    /// Only jobs of this kind.
    #[schema(min_length = 1, pattern = r"^[^\u0000]+$")]
    kind: Option<String>,
    /// Only jobs whose last error contains this text.
    #[schema(min_length = 1, pattern = r"^[^\u0000]+$")]
    error: Option<String>,
    /// Counts the jobs and changes nothing.
    #[schema(value_type = Option<bool>)]
    dry_run: bool,
}

impl DeadJobs {
    fn parse(body: &RawValue) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let Some(fields) = Fields::of(body) else { return Err(vec![FieldError::new("", "must be an object")]) };
        let mut text = |name: &str| match fields.get(name).map(json::text) {
            None => None,
            Some(Some(text)) if !text.is_empty() && !text.contains('\0') => Some(text.into_owned()),
            Some(_) => {
                errors.push(FieldError::new(name, "must be a text that is not empty"));
                None
            }
        };
        let (queue, kind, error) = (text("queue"), text("kind"), text("error"));
        let dry_run = match fields.get("dryRun").map(json::boolean) {
            None => false,
            Some(Some(dry_run)) => dry_run,
            Some(None) => {
                errors.push(FieldError::new("dryRun", "must be true or false"));
                false
            }
        };
        let queue = queue.as_deref().and_then(QueueName::parse);
        if queue.is_none() && !errors.iter().any(|error| error.field == "queue") {
            errors.push(FieldError::new("queue", format!("must be one of {}", QUEUES.join(", "))));
        }
        match queue {
            Some(queue) if errors.is_empty() => Ok(Self { queue, kind, error, dry_run }),
            _ => Err(errors),
        }
    }
}
