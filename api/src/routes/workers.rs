//! `/api/workers`: the live workers, and what they run.

use axum::extract::State;
use common::operations::{self, WorkerStatus};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::{
    auth::scoped_router::ScopedRouter,
    http::{
        body::{Data, Success},
        error::ApiError,
    },
    state::AppState,
};

pub(crate) fn router() -> ScopedRouter {
    ScopedRouter::new().operator_or_support(routes!(list))
}

/// The live workers.
#[derive(Serialize, ToSchema)]
struct WorkerList {
    workers: Vec<WorkerStatus>,
}

/// List workers
///
/// The processes with a heartbeat within the last 30 s, the longest-running first, and the jobs that
/// they are running (at most 200 in all).
#[utoipa::path(
    get, path = "/workers", operation_id = "listWorkers", tag = "Operations",
    responses((status = 200, description = "The live workers", body = Success<WorkerList>)),
)]
async fn list(State(state): State<AppState>) -> Result<Data<WorkerList>, ApiError> {
    let workers = operations::workers(&mut state.database.acquire().await?).await?;
    Ok(Data(WorkerList { workers }))
}
