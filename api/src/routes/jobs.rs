//! `/api/jobs`: lists, retries, cancels and discards jobs.

pub(crate) mod bulk;

use axum::{
    extract::{FromRequestParts, Path, State},
    http::request::Parts,
};
use chrono::{DateTime, Utc};
use common::{
    audit::{self, Action},
    carts::CartId,
    jobs::QUEUES,
    operations::{self, ActionOutcome, COUNT_LIMIT, FailedAttempt, JobFilter, JobState, JobSummary},
};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::routes;
use uuid::Uuid;

use super::queues::QueueName;
use crate::{
    auth::{keys::By, scoped_router::ScopedRouter},
    http::{
        body::{Data, Success},
        error::ApiError,
        pagination::{NextLink, Page, Pagination, next_link},
        query::Parameters,
    },
    openapi,
    state::AppState,
};

pub(crate) fn router() -> ScopedRouter {
    ScopedRouter::new()
        .operator_or_support(routes!(list))
        .operator_or_support(routes!(show))
        .operator(routes!(discard))
        .operator(routes!(retry))
        .operator(routes!(cancel))
        .merge(bulk::router())
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

/// A job.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({
    "id": "01a20a8d-47f2-72fe-9743-e55eae145464", "queue": "payment-links", "kind": "create_payment_link",
    "cartId": "cart_01m84zjdhtftc9p973qfnt3nn0", "arguments": {"cartId": "cart_01m84zjdhtftc9p973qfnt3nn0", "version": 1},
    "state": "dead", "attempts": 12, "maxAttempts": 12, "runAt": "2026-11-24T09:46:43.605Z", "slot": null,
    "lastError": "Stripe did not answer within 20 s", "createdAt": "2026-11-24T08:46:43.605Z", "finishedAt": "2026-11-24T09:46:44.001Z",
}))]
pub(crate) struct Job {
    /// Id of the job.
    pub(crate) id: Uuid,
    /// Name of the queue.
    queue: String,
    /// Kind of job; selects the handler.
    kind: String,
    /// Id of the job's cart; null for jobs about no single cart.
    #[schema(required, example = "cart_01m84zjdhtftc9p973qfnt3nn0")]
    cart_id: Option<String>,
    /// The job's payload: ids only.
    #[schema(value_type = Object, example = json!({"cartId": "cart_01m84zjdhtftc9p973qfnt3nn0", "version": 1}))]
    arguments: Box<RawValue>,
    /// State of the job.
    state: JobState,
    /// Number of attempts so far. Attempts that a shutdown or the loss of a worker interrupted do not
    /// count.
    attempts: i16,
    /// Maximum number of attempts.
    max_attempts: i16,
    /// Time at which the job is, or was, due.
    run_at: DateTime<Utc>,
    /// Time of the schedule's occurrence; null for jobs without a schedule.
    #[schema(required)]
    slot: Option<DateTime<Utc>>,
    /// Most recent error; null if there was none.
    #[schema(required)]
    last_error: Option<String>,
    /// Time at which the job was queued.
    created_at: DateTime<Utc>,
    /// Time at which the job became done or dead; null until then.
    #[schema(required)]
    finished_at: Option<DateTime<Utc>>,
}

impl From<JobSummary> for Job {
    fn from(job: JobSummary) -> Self {
        Self {
            id: job.id,
            queue: job.queue,
            kind: job.kind,
            cart_id: job.subject,
            arguments: RawValue::from_string(job.payload).unwrap_or_default(), // Postgres wrote it
            state: job.state,
            attempts: job.attempts,
            max_attempts: job.max_attempts,
            run_at: job.run_at,
            slot: job.slot,
            last_error: job.last_error,
            created_at: job.created_at,
            finished_at: job.finished_at,
        }
    }
}

/// A page of jobs, newest first.
#[derive(Serialize, ToSchema)]
struct JobList {
    jobs: Vec<Job>,
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
        ("kind" = Option<String>, Query, description = "Only of this kind.", example = "create_payment_link"),
        ("error" = Option<String>, Query, description = "Only with this text in their last error, in any case."),
        ("cartId" = Option<String>, Query, pattern = "^cart_[A-Za-z0-9_-]{1,100}$", description = "Only of this cart."),
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
    let text = |name: &str| parameters.get(name).map(str::to_owned);
    let cart = parameters.parse("cartId", "the id of a cart", |text| text.parse::<CartId>().ok())?;
    let subject = cart.map(|cart| cart.to_string());
    let filter = JobFilter { queue, state: job_state, kind: text("kind"), error: text("error"), subject };
    let mut conn = state.database.acquire().await?;
    let total = operations::count(&mut conn, &filter).await?;
    let past_the_end = page.offset() >= total && total < COUNT_LIMIT;
    let jobs =
        if past_the_end { Vec::new() } else { operations::list(&mut conn, &filter, page.offset(), page.limit).await? };
    let next = (page.number < page.pages(total)).then(|| (page.number + 1).to_string());
    let link = next_link(&parameters, "/api/jobs", "page", next.as_deref());
    let jobs = jobs.into_iter().map(Job::from).collect();
    Ok((link, Data(JobList { jobs, pagination: Pagination::new(page, total) })))
}

/// A job and its failed and interrupted attempts.
#[derive(Serialize, ToSchema)]
struct JobDetail {
    #[serde(flatten)]
    job: Job,
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
    Ok(Data(JobDetail { job: job.into(), history }))
}

/// Retry a job
///
/// The job must be dead. It is ready again, with all its attempts left.
#[utoipa::path(
    post, path = "/jobs/{id}/retry", operation_id = "retryJob", tag = "Operations",
    params(("id" = Uuid, Path, description = "Which job.")),
    responses(
        (status = 200, description = "It is ready", body = Success<Job>),
        (status = 409, description = "`CONFLICT`: it is not dead, or the same is queued already", body = openapi::Error),
    ),
)]
pub(crate) async fn retry(State(state): State<AppState>, by: By, JobPath(id): JobPath) -> Result<Data<Job>, ApiError> {
    let mut tx = state.database.begin().await?;
    let job = changed(operations::retry(&mut tx, id).await?, "only a dead one can be retried")?;
    audit::note(&mut tx, &by.0, Action::JobRetried, &id.to_string(), state.clock.now()).await?;
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
        (status = 200, description = "It is dead", body = Success<Job>),
        (status = 409, description = "`CONFLICT`: it has ended already", body = openapi::Error),
    ),
)]
pub(crate) async fn cancel(State(state): State<AppState>, by: By, JobPath(id): JobPath) -> Result<Data<Job>, ApiError> {
    let mut tx = state.database.begin().await?;
    let job = changed(operations::cancel(&mut tx, id).await?, "only an unfinished one can be cancelled")?;
    audit::note(&mut tx, &by.0, Action::JobCancelled, &id.to_string(), state.clock.now()).await?;
    tx.commit().await?;
    Ok(Data(job))
}

fn changed(outcome: ActionOutcome, rule: &str) -> Result<Job, ApiError> {
    match outcome {
        ActionOutcome::Done(job) => Ok(job.into()),
        ActionOutcome::NotFound => Err(job_not_found()),
        ActionOutcome::WrongState(state) => Err(ApiError::conflict(format!("The job is {}: {rule}", state.as_str()))),
        ActionOutcome::AlreadyQueued => Err(ApiError::conflict("The same job is queued already")),
    }
}

/// `data` of the response to `DELETE /api/jobs/{id}`.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"id": "01a20a8d-47f2-72fe-9743-e55eae145464", "deleted": true}))]
pub(crate) struct DiscardedJob {
    id: Uuid,
    #[schema(schema_with = crate::http::schema::only_true)]
    deleted: bool,
}

/// Discard a job
///
/// The job must be done or dead. It is deleted; a payment link that waits for it fails.
#[utoipa::path(
    delete, path = "/jobs/{id}", operation_id = "discardJob", tag = "Operations",
    params(("id" = Uuid, Path, description = "Which job.")),
    responses(
        (status = 200, description = "It is deleted", body = Success<DiscardedJob>),
        (status = 409, description = "`CONFLICT`: it is not done or dead; cancel it first", body = openapi::Error),
    ),
)]
pub(crate) async fn discard(
    State(state): State<AppState>,
    by: By,
    JobPath(id): JobPath,
) -> Result<Data<DiscardedJob>, ApiError> {
    let now = state.clock.now();
    let mut tx = state.database.begin().await?;
    if operations::discard(&mut tx, id, now).await?.is_none() {
        let job = operations::find(&mut tx, id).await?.ok_or_else(job_not_found)?;
        let message = format!("The job is {}: only a done or dead one can be discarded", job.state.as_str());
        return Err(ApiError::conflict(message));
    }
    audit::note(&mut tx, &by.0, Action::JobDiscarded, &id.to_string(), now).await?;
    tx.commit().await?;
    Ok(Data(DiscardedJob { id, deleted: true }))
}
