//! `/api/jobs/retry`, `/api/jobs/cancel`, `/api/jobs/discard`: actions on all jobs that match a filter.

use axum::extract::State;
use common::{
    audit::{self, Action, OpenEntry},
    carts::new::FieldError,
    db::Connection,
    jobs::QUEUES,
    json::{self, Fields},
    operations::{self, CancelledMany, JobFilter, JobState, RetriedMany},
};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::{
    auth::{keys::By, scoped_router::ScopedRouter},
    http::{
        body::{Data, JsonBody, Success},
        error::ApiError,
    },
    routes::queues::QueueName,
    state::AppState,
};

pub(crate) fn router() -> ScopedRouter {
    ScopedRouter::new().operator(routes!(retry_many)).operator(routes!(cancel_many)).operator(routes!(discard_many))
}

/// Retry dead jobs
///
/// Retries all dead jobs of a queue that match the filter. `dryRun` only counts them.
#[utoipa::path(
    post, path = "/jobs/retry", operation_id = "retryJobs", tag = "Operations",
    request_body = JobSelection,
    responses((status = 200, description = "What was done, or would be", body = Success<RetriedMany>)),
)]
async fn retry_many(
    State(state): State<AppState>,
    by: By,
    JsonBody(body): JsonBody,
) -> Result<Data<RetriedMany>, ApiError> {
    let (filter, dry_run) = JobSelection::parse(&body)?;
    retry(&state, &by, &filter, dry_run).await.map(Data)
}

/// Cancel unfinished jobs
///
/// Cancels all unfinished jobs of a queue that match the filter: they become dead, and those that are
/// running are dropped within 10 s. `dryRun` only counts them.
#[utoipa::path(
    post, path = "/jobs/cancel", operation_id = "cancelJobs", tag = "Operations",
    request_body = JobSelection,
    responses((status = 200, description = "What was done, or would be", body = Success<CancelledMany>)),
)]
async fn cancel_many(
    State(state): State<AppState>,
    by: By,
    JsonBody(body): JsonBody,
) -> Result<Data<CancelledMany>, ApiError> {
    let (filter, dry_run) = JobSelection::parse(&body)?;
    cancel(&state, &by, &filter, dry_run).await.map(Data)
}

/// Result of discarding many jobs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"matched": 12, "discarded": 12}))]
pub(crate) struct DiscardedMany {
    /// Number of dead jobs that match the filter; counting stops at 100,000.
    pub(crate) matched: i64,
    /// Number of deleted jobs; 0 in a dry run.
    pub(crate) discarded: i64,
}

/// Discard dead jobs
///
/// Deletes all dead jobs of a queue that match the filter. Payment links that wait for them fail.
/// `dryRun` only counts them.
#[utoipa::path(
    post, path = "/jobs/discard", operation_id = "discardJobs", tag = "Operations",
    request_body = JobSelection,
    responses((status = 200, description = "What was done, or would be", body = Success<DiscardedMany>)),
)]
async fn discard_many(
    State(state): State<AppState>,
    by: By,
    JsonBody(body): JsonBody,
) -> Result<Data<DiscardedMany>, ApiError> {
    let (filter, dry_run) = JobSelection::parse(&body)?;
    discard(&state, &by, &filter, dry_run).await.map(Data)
}

/// Retries the dead jobs of a filter.
pub(crate) async fn retry(
    state: &AppState,
    by: &By,
    filter: &JobFilter,
    dry_run: bool,
) -> Result<RetriedMany, ApiError> {
    let mut tx = state.database.begin().await?;
    let many = operations::retry_dead(&mut tx, filter, dry_run).await?;
    note_many(&mut tx, state, by, Action::JobRetried, filter, i64::try_from(many.retried).unwrap_or(i64::MAX)).await?;
    tx.commit().await?;
    Ok(many)
}

/// Cancels the unfinished jobs of a filter.
pub(crate) async fn cancel(
    state: &AppState,
    by: &By,
    filter: &JobFilter,
    dry_run: bool,
) -> Result<CancelledMany, ApiError> {
    let mut tx = state.database.begin().await?;
    let many = operations::cancel_many(&mut tx, filter, dry_run).await?;
    note_many(&mut tx, state, by, Action::JobCancelled, filter, many.cancelled).await?;
    tx.commit().await?;
    Ok(many)
}

/// Deletes the dead jobs of a filter, in batches.
pub(crate) async fn discard(
    state: &AppState,
    by: &By,
    filter: &JobFilter,
    dry_run: bool,
) -> Result<DiscardedMany, ApiError> {
    if dry_run {
        let dead = JobFilter { state: Some(JobState::Dead), ..filter.clone() };
        let matched = operations::count(&mut state.database.acquire().await?, &dead).await?;
        return Ok(DiscardedMany { matched, discarded: 0 });
    }
    let now = state.clock.now();
    let entry = OpenEntry::new(by.0.clone(), Action::JobDiscarded, queues(filter), now);
    let mut discarded = 0;
    loop {
        let mut tx = state.database.begin().await?;
        let batch = operations::discard_dead(&mut tx, filter, now).await?;
        let batch = i64::try_from(batch).unwrap_or(i64::MAX);
        if batch == 0 {
            return Ok(DiscardedMany { matched: discarded, discarded });
        }
        entry.add(&mut tx, batch).await?;
        tx.commit().await?;
        discarded += batch;
    }
}

/// Adds an action on the jobs of a filter to the audit log, if it did anything. There may be too many
/// jobs for their ids, so the entry has their queue.
async fn note_many(
    tx: &mut Connection,
    state: &AppState,
    by: &By,
    action: Action,
    filter: &JobFilter,
    count: i64,
) -> Result<(), ApiError> {
    if count > 0 {
        audit::note_many(tx, &by.0, action, &queues(filter), count, state.clock.now()).await?;
    }
    Ok(())
}

/// The queues of a filter.
fn queues(filter: &JobFilter) -> Vec<&'static str> {
    QUEUES.into_iter().filter(|queue| filter.queue.as_deref().is_none_or(|chosen| chosen == *queue)).collect()
}

/// Body of the actions on all jobs that match a filter. Other fields are refused.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase", example = json!({"queue": "payment-links", "dryRun": true}))]
#[expect(dead_code, reason = "this only describes the body")]
struct JobSelection {
    #[schema(inline)]
    queue: QueueName,
    /// Only jobs of this kind.
    #[schema(min_length = 1, pattern = r"^[^\u0000]+$")]
    kind: Option<String>,
    /// Only jobs whose last error contains this text.
    #[schema(min_length = 1, pattern = r"^[^\u0000]+$")]
    error: Option<String>,
    /// Counts the jobs and changes nothing.
    dry_run: Option<bool>,
}

impl JobSelection {
    const FIELDS: [&str; 4] = ["queue", "kind", "error", "dryRun"];

    /// The filter, and whether to count only.
    fn parse(body: &RawValue) -> Result<(JobFilter, bool), ApiError> {
        let mut errors = Vec::new();
        let Some(fields) = Fields::of(body) else { return Err(ApiError::invalid("", "must be an object")) };
        let mut text = |name: &str| match fields.get(name).map(json::text) {
            None => None,
            Some(Some(text)) if !text.is_empty() && !text.contains('\0') => Some(text.into_owned()),
            Some(_) => {
                errors.push(FieldError::new(name, "must be a text that is not empty"));
                None
            }
        };
        let (queue, kind, error) = (text("queue"), text("kind"), text("error"));
        // An unknown field is refused, not ignored: it may be meant to select fewer jobs. (The first one, because there
        // may be a million.)
        if let Some((name, _)) = fields.iter().find(|(name, _)| !Self::FIELDS.contains(name)) {
            let known = Self::FIELDS.join(", ");
            errors.push(FieldError::new(name, format!("is unknown; the fields are {known}")));
        }
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
            Some(queue) if errors.is_empty() => {
                let queue = Some(queue.0.to_owned());
                Ok((JobFilter { queue, kind, error, ..JobFilter::default() }, dry_run))
            }
            _ => Err(ApiError::validation(errors)),
        }
    }
}
