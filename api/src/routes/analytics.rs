//! `/api/analytics`

use axum::extract::State;
use chrono::{DateTime, Days, NaiveDate, Utc};
use chrono_tz::Tz;
use common::{
    analytics::{self, DayStats, Summary},
    clock,
    money::Currency,
    time_zone,
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

/// The longest range.
pub(crate) const MAX_DAYS: i64 = 3_660;
const DEFAULT_DAYS: u64 = 30;

pub(crate) fn router() -> ScopedRouter {
    ScopedRouter::new().read_or_support(routes!(show))
}

/// Abandoned and recovered carts of a range of days.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Analytics {
    /// The currency of the counted carts.
    currency: Currency,
    /// The currencies of all carts, sorted by code.
    currencies: Vec<Currency>,
    /// IANA name of the shop's time zone, `TIME_ZONE`.
    #[schema(examples("Europe/Vienna"))]
    time_zone: &'static str,
    summary: Summary,
    /// Every day of the range, oldest first.
    daily_stats: Vec<DayStats>,
}

/// Get analytics
///
/// A day is a date in the shop's time zone (`TIME_ZONE`). `abandoned` counts carts by the day of
/// `abandonedAt`, whatever their status is now; `recovered` counts them by the day of `recoveredAt`.
/// Values are sums of `totalValue`, except `refundedValue`. Only carts in one currency are counted;
/// currencies are never added up. The response equals a count over the carts at any moment. The
/// default range is the last 30 days.
#[utoipa::path(
    get, path = "/analytics", operation_id = "showAnalytics", tag = "Analytics",
    params(
        ("period" = inline(Option<Period>), Query, description = "The number of days, of which today is the last; not together with a range."),
        ("currency" = inline(Option<String>), Query, description = "Counts carts in this currency: an ISO 4217 code in either case. The default is `CURRENCY`.", example = "eur"),
        ("startDate" = inline(Option<DateOrInstant>), Query, description = "The first day: a date, or an instant, which means its date in the shop's time zone. Alone it runs to today."),
        ("endDate" = inline(Option<DateOrInstant>), Query, description = "The last day, at most 3,660 days from the first. Alone it means the 30 days that end there."),
    ),
    responses((status = 200, description = "The range", body = Success<Analytics>)),
)]
async fn show(State(state): State<AppState>, parameters: Parameters) -> Result<Data<Analytics>, ApiError> {
    let zone = state.config.time_zone;
    let range = range(&parameters, state.clock.now(), zone)?;
    let currency = currency(&parameters)?.unwrap_or(state.config.currency);
    let mut conn = state.database.acquire().await?;
    let range = analytics::between(&mut conn, range, zone, currency).await?;
    state.upkeep.counts_read(range.deltas);
    let currencies = analytics::currencies(&mut conn).await?;
    Ok(Data(Analytics {
        currency,
        currencies,
        time_zone: zone.name(),
        summary: range.summary,
        daily_stats: range.days,
    }))
}

/// The requested currency; `None` if none was requested.
pub(crate) fn currency(parameters: &Parameters) -> Result<Option<Currency>, ApiError> {
    parameters.parse("currency", "an ISO 4217 code such as eur", |text| text.parse().ok())
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

/// The requested days, both ends included. Today and the days of instants are those of `zone`.
pub(crate) fn range(parameters: &Parameters, now: DateTime<Utc>, zone: Tz) -> Result<(NaiveDate, NaiveDate), ApiError> {
    let day = |text: &str| clock::parse_date(text).or_else(|| Some(time_zone::date(date_or_instant(text)?, zone)));
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
    let last = end.unwrap_or_else(|| time_zone::date(now, zone));
    let first = match start {
        Some(first) => first,
        None => last
            .checked_sub_days(Days::new(period.unwrap_or(DEFAULT_DAYS) - 1))
            .ok_or_else(|| ApiError::bad_request("endDate is too far back"))?,
    };
    if first > last {
        return Err(ApiError::bad_request("startDate must not be after endDate"));
    }
    if (last - first).num_days() + 1 > MAX_DAYS {
        return Err(ApiError::bad_request(format!("The range must not have more than {MAX_DAYS} days")));
    }
    Ok((first, last))
}
