//! `/api/analytics`

use axum::extract::State;
use chrono::{Days, NaiveDate};
use common::{
    analytics::{self, DayStats, Summary},
    money::Currency,
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::{
    auth::scoped_router::ScopedRouter,
    http::{
        body::{Data, Success},
        error::ApiError,
        query::{DATE_OR_INSTANT, DateOrInstant, Parameters, date_or_instant},
    },
    state::AppState,
};

const MOST_DAYS: i64 = 3_660;
const DEFAULT_DAYS: u64 = 30;

pub(crate) fn router() -> ScopedRouter {
    ScopedRouter::new().read(routes!(show))
}

/// Abandoned and recovered carts of a range of days.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Analytics {
    currency: Currency,
    summary: Summary,
    /// Every day of the range, oldest first.
    daily_stats: Vec<DayStats>,
}

/// Shows the totals of a range, and each of its days
///
/// A day is a UTC date. `abandoned` counts carts by the day of `abandonedAt`, whatever their status
/// is now; `recovered` counts them by the day of `recoveredAt`. The response equals a count over
/// the carts at any moment. Carts in another currency than the store's are left out. The default
/// range is the last 30 days.
#[utoipa::path(
    get, path = "/analytics", operation_id = "showAnalytics", tag = "Analytics",
    params(
        ("period" = inline(Option<Period>), Query, description = "So many days that end today; not together with a range."),
        ("startDate" = inline(Option<DateOrInstant>), Query, description = "The first day. Alone it runs to today."),
        ("endDate" = inline(Option<DateOrInstant>), Query, description = "The last day, at most 3,660 days from the first. Alone it means the 30 days that end there."),
    ),
    responses((status = 200, description = "The range", body = Success<Analytics>)),
)]
async fn show(State(state): State<AppState>, parameters: Parameters) -> Result<Data<Analytics>, ApiError> {
    let (first, last) = range(&parameters, state.clock.now().date_naive())?;
    let currency = state.config.currency;
    let mut conn = state.database.acquire().await?;
    let (summary, daily_stats) = analytics::between(&mut conn, first, last, currency).await?;
    Ok(Data(Analytics { currency, summary, daily_stats }))
}

/// Values of `period`, for the OpenAPI document.
#[derive(ToSchema)]
#[expect(dead_code, reason = "this is described, never made")]
enum Period {
    #[schema(rename = "7d")]
    Week,
    #[schema(rename = "30d")]
    Month,
    #[schema(rename = "90d")]
    Quarter,
}

/// The requested days, both ends included.
pub(crate) fn range(parameters: &Parameters, today: NaiveDate) -> Result<(NaiveDate, NaiveDate), ApiError> {
    let day = |text: &str| Some(date_or_instant(text)?.date_naive());
    let start = parameters.parse("startDate", DATE_OR_INSTANT, day)?;
    let end = parameters.parse("endDate", DATE_OR_INSTANT, day)?;
    let period = parameters.parse("period", "7d, 30d or 90d", |text| match text {
        "7d" => Some(7),
        "30d" => Some(30),
        "90d" => Some(90),
        _ => None,
    })?;
    if period.is_some() && (start.is_some() || end.is_some()) {
        return Err(ApiError::bad_request("period can't be combined with startDate or endDate"));
    }
    let last = end.unwrap_or(today);
    let first = match start {
        Some(first) => first,
        None => last
            .checked_sub_days(Days::new(period.unwrap_or(DEFAULT_DAYS) - 1))
            .ok_or_else(|| ApiError::bad_request("endDate is too far back"))?,
    };
    if first > last {
        return Err(ApiError::bad_request("startDate must not be after endDate"));
    }
    if (last - first).num_days() + 1 > MOST_DAYS {
        return Err(ApiError::bad_request(format!("The range must not have more than {MOST_DAYS} days")));
    }
    Ok((first, last))
}
