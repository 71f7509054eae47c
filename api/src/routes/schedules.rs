//! `/api/schedules`: periodic jobs, and whether they ran on time.

use axum::extract::State;
use common::operations::{self, ScheduleStatus};
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
    ScopedRouter::new().operator(routes!(list))
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
