//! `/api/schedules`: periodic jobs, whether they ran on time, and runs by hand.

use axum::extract::{Path, State};
use common::{
    audit::{self, Action},
    operations::{self, RunByHand, ScheduleStatus},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::jobs::Job;
use crate::{
    auth::{keys::By, scoped_router::ScopedRouter},
    http::{
        body::{Data, Success},
        error::ApiError,
    },
    openapi,
    state::AppState,
};

pub(crate) fn router() -> ScopedRouter {
    ScopedRouter::new().operator_or_support(routes!(list)).operator(routes!(run))
}

/// All schedules.
#[derive(Serialize, ToSchema)]
struct ScheduleList {
    schedules: Vec<ScheduleStatus>,
}

/// List schedules
///
/// Each schedule has its last and next run, and whether a run is overdue.
#[utoipa::path(
    get, path = "/schedules", operation_id = "listSchedules", tag = "Operations",
    responses((status = 200, description = "All schedules, by name", body = Success<ScheduleList>)),
)]
async fn list(State(state): State<AppState>) -> Result<Data<ScheduleList>, ApiError> {
    let schedules = operations::schedules(&mut state.database.acquire().await?).await?;
    Ok(Data(ScheduleList { schedules }))
}

/// Run a schedule now
///
/// Queues its job once, besides its occurrences, which stay as they are. While a run waits or is in
/// progress, nothing is queued.
#[utoipa::path(
    post, path = "/schedules/{name}/run", operation_id = "runSchedule", tag = "Operations",
    params(("name" = String, Path, description = "Which schedule.", example = "expire_carts")),
    responses(
        (status = 200, description = "The queued job", body = Success<Job>),
        (status = 409, description = "`CONFLICT`: a run is in progress or queued, perhaps in a paused queue; the message names its job", body = openapi::Error),
    ),
)]
pub(crate) async fn run(
    State(state): State<AppState>,
    by: By,
    Path(name): Path<String>,
) -> Result<Data<Job>, ApiError> {
    let not_found = || ApiError::not_found("Schedule not found");
    if name.contains('\0') {
        return Err(not_found()); // Postgres can't store it in text
    }
    let mut tx = state.database.begin().await?;
    let id = match operations::run_schedule(&mut tx, &name).await? {
        RunByHand::Queued(id) => id,
        RunByHand::InProgress(id) => {
            return Err(ApiError::conflict(format!("A run is queued or in progress: job {id}")));
        }
        RunByHand::Paused(id) => {
            return Err(ApiError::conflict(format!("A run is queued, but its queue is paused: job {id}")));
        }
        RunByHand::NotFound => return Err(not_found()),
    };
    audit::note(&mut tx, &by.0, Action::ScheduleRun, &name, state.clock.now()).await?;
    let job = operations::find(&mut tx, id).await?;
    tx.commit().await?;
    job.map(|job| Data(job.into())).ok_or_else(|| ApiError::internal("a queued job is missing"))
}
