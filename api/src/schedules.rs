//! `/api/schedules`: what runs by the clock, and whether it did.

use axum::{Router, extract::State, routing::get};
use common::operations::{self, ScheduleStatus};
use serde::Serialize;

use crate::{AppState, body::Data, error::ApiError};

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/schedules", get(list))
}

#[derive(Serialize)]
struct ScheduleList {
    schedules: Vec<ScheduleStatus>,
}

async fn list(State(state): State<AppState>) -> Result<Data<ScheduleList>, ApiError> {
    let schedules = operations::schedules(&mut state.database.acquire().await?).await?;
    Ok(Data(ScheduleList { schedules }))
}
