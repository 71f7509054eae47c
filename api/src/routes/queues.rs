//! `/api/queues`: lists, pauses and resumes queues.

use axum::{
    extract::{FromRequestParts, Path, State},
    http::request::Parts,
};
use common::{
    audit::{self, Action},
    db::Connection,
    jobs::QUEUES,
    operations::{self, QueueSummary},
};
use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};
use utoipa_axum::routes;

use crate::{
    auth::{keys::By, scoped_router::ScopedRouter},
    http::{
        body::{Data, Success},
        error::ApiError,
        schema,
    },
    state::AppState,
};

pub(crate) fn router() -> ScopedRouter {
    ScopedRouter::new().operator_or_support(routes!(list)).operator(routes!(pause)).operator(routes!(resume))
}

/// The name of a queue. In a path, unknown names return 404.
pub(crate) struct QueueName(pub(crate) &'static str);

impl QueueName {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        QUEUES.into_iter().find(|queue| *queue == text).map(Self)
    }
}

impl ToSchema for QueueName {}

impl PartialSchema for QueueName {
    fn schema() -> RefOr<Schema> {
        schema::one_of(QUEUES).into()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for QueueName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let not_found = || ApiError::not_found(format!("No such queue; there are {}", QUEUES.join(", ")));
        let Path(name) = Path::<String>::from_request_parts(parts, state).await.map_err(|_| not_found())?;
        Self::parse(&name).ok_or_else(not_found)
    }
}

/// All queues.
#[derive(Serialize, ToSchema)]
struct QueueList {
    queues: Vec<QueueSummary>,
}

/// List queues
///
/// Each queue has its job counts by state, the age of its oldest ready job, and whether it is
/// paused.
#[utoipa::path(
    get, path = "/queues", operation_id = "listQueues", tag = "Operations",
    responses((status = 200, description = "All queues", body = Success<QueueList>)),
)]
async fn list(State(state): State<AppState>) -> Result<Data<QueueList>, ApiError> {
    let queues = operations::queues(&mut state.database.acquire().await?, &QUEUES).await?;
    Ok(Data(QueueList { queues }))
}

/// Pause a queue
///
/// Workers start none of its jobs until it is resumed. Running jobs continue.
#[utoipa::path(
    post, path = "/queues/{name}/pause", operation_id = "pauseQueue", tag = "Operations",
    params(("name" = inline(QueueName), Path, description = "Which queue.")),
    responses((status = 200, description = "It is paused", body = Success<QueueSummary>)),
)]
pub(crate) async fn pause(
    State(state): State<AppState>,
    by: By,
    QueueName(name): QueueName,
) -> Result<Data<QueueSummary>, ApiError> {
    let mut tx = state.database.begin().await?;
    if operations::pause(&mut tx, name).await? {
        audit::note(&mut tx, &by.0, Action::QueuePaused, name, state.clock.now()).await?;
    }
    let queue = summary(&mut tx, name).await?;
    tx.commit().await?;
    Ok(Data(queue))
}

/// Resume a queue
///
/// Workers start its jobs again.
#[utoipa::path(
    post, path = "/queues/{name}/resume", operation_id = "resumeQueue", tag = "Operations",
    params(("name" = inline(QueueName), Path, description = "Which queue.")),
    responses((status = 200, description = "It is let through", body = Success<QueueSummary>)),
)]
pub(crate) async fn resume(
    State(state): State<AppState>,
    by: By,
    QueueName(name): QueueName,
) -> Result<Data<QueueSummary>, ApiError> {
    let mut tx = state.database.begin().await?;
    if operations::resume(&mut tx, name).await? {
        audit::note(&mut tx, &by.0, Action::QueueResumed, name, state.clock.now()).await?;
    }
    let queue = summary(&mut tx, name).await?;
    tx.commit().await?;
    Ok(Data(queue))
}

async fn summary(conn: &mut Connection, name: &str) -> Result<QueueSummary, ApiError> {
    let queue = operations::queues(conn, &[name]).await?.pop();
    queue.ok_or_else(|| ApiError::internal("a requested queue is missing from the result"))
}
