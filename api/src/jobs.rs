//! `/api/jobs`: what an operator sees of jobs, and does to them.

use axum::{
    Router,
    extract::{FromRequestParts, Path, State},
    http::request::Parts,
    routing::{get, post},
};
use common::{
    jobs::QUEUES,
    new_cart::FieldError,
    operations::{self, COUNT_LIMIT, DeadFilter, JobFilter, JobSummary, Pulled, RetriedMany},
};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    AppState,
    body::{Data, JsonBody},
    error::ApiError,
    pagination::{Page, Pagination},
    query::Parameters,
};

pub(crate) fn router() -> Router<AppState> {
    Router::new()
        .route("/jobs", get(list))
        .route("/jobs/retry", post(retry_many))
        .route("/jobs/{id}", get(show))
        .route("/jobs/{id}/retry", post(retry))
        .route("/jobs/{id}/cancel", post(cancel))
}

/// The job that a path names. What can't be one is not found.
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

#[derive(Serialize)]
struct JobList {
    jobs: Vec<JobSummary>,
    pagination: Pagination,
}

async fn list(State(state): State<AppState>, parameters: Parameters) -> Result<Data<JobList>, ApiError> {
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
    Ok(Data(JobList { jobs, pagination: Pagination::new(page, total) }))
}

#[derive(Serialize)]
struct JobDetail {
    #[serde(flatten)]
    job: JobSummary,
    history: Value,
}

async fn show(State(state): State<AppState>, JobPath(id): JobPath) -> Result<Data<JobDetail>, ApiError> {
    let mut conn = state.database.acquire().await?;
    let job = operations::find(&mut conn, id).await?.ok_or_else(job_not_found)?;
    let history = operations::history(&mut conn, id).await?.ok_or_else(job_not_found)?;
    Ok(Data(JobDetail { job, history }))
}

pub(crate) async fn retry(State(state): State<AppState>, JobPath(id): JobPath) -> Result<Data<JobSummary>, ApiError> {
    let mut tx = state.database.begin().await?;
    let job = pulled(operations::retry(&mut tx, id).await?, "only a dead one can be retried")?;
    tx.commit().await?;
    Ok(Data(job))
}

pub(crate) async fn cancel(State(state): State<AppState>, JobPath(id): JobPath) -> Result<Data<JobSummary>, ApiError> {
    let mut tx = state.database.begin().await?;
    let job = pulled(operations::cancel(&mut tx, id).await?, "only an unfinished one can be cancelled")?;
    tx.commit().await?;
    Ok(Data(job))
}

fn pulled(pulled: Pulled, rule: &str) -> Result<JobSummary, ApiError> {
    match pulled {
        Pulled::Done(job) => Ok(job),
        Pulled::NotFound => Err(job_not_found()),
        Pulled::WrongState(state) => Err(ApiError::conflict(format!("The job is {}: {rule}", state.as_str()))),
        Pulled::AlreadyQueued => Err(ApiError::conflict("The same job is queued already")),
    }
}

/// All dead jobs of a queue that a filter fits; `dryRun` only counts them.
async fn retry_many(State(state): State<AppState>, JsonBody(body): JsonBody) -> Result<Data<RetriedMany>, ApiError> {
    let (filter, dry_run) = parse_retry(&body).map_err(ApiError::validation)?;
    let mut tx = state.database.begin().await?;
    let retried = operations::retry_dead(&mut tx, &filter, dry_run).await?;
    tx.commit().await?;
    Ok(Data(retried))
}

fn parse_retry(body: &Value) -> Result<(DeadFilter, bool), Vec<FieldError>> {
    let mut errors = Vec::new();
    let Some(fields) = body.as_object() else { return Err(vec![FieldError::new("", "must be an object")]) };
    let mut text = |name: &str| match fields.get(name) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if !text.is_empty() && !text.contains('\0') => Some(text.clone()),
        Some(_) => {
            errors.push(FieldError::new(name, "must be a text that is not empty"));
            None
        }
    };
    let (queue, kind, error) = (text("queue"), text("kind"), text("error"));
    let dry_run = match fields.get("dryRun") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(dry_run)) => *dry_run,
        Some(_) => {
            errors.push(FieldError::new("dryRun", "must be true or false"));
            false
        }
    };
    let queue = queue.filter(|queue| QUEUES.contains(&queue.as_str()));
    if queue.is_none() && !errors.iter().any(|error| error.field == "queue") {
        errors.push(FieldError::new("queue", format!("must be one of {}", QUEUES.join(", "))));
    }
    match queue {
        Some(queue) if errors.is_empty() => Ok((DeadFilter { queue, kind, error }, dry_run)),
        _ => Err(errors),
    }
}
