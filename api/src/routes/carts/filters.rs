//! The filters of lists and exports of carts.

use common::carts::{
    CartStatus,
    filter::{Filter, LinkFilter, Period, ValueBound},
    list::Sort,
    new::EXTERNAL_ID_CHARACTERS,
    search::text::{MAX_CHARACTERS, MIN_CHARACTERS},
};
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        error::ApiError,
        query::{DATE_OR_INSTANT, DateOrInstant, EmailToFind, Parameters, date_or_instant},
    },
    routes::analytics::currency,
};

/// The parameters of [`parse`], for the OpenAPI document.
#[derive(IntoParams)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
#[expect(dead_code, reason = "describes the parameters")]
pub(crate) struct Filters {
    /// Only with this status.
    status: Option<CartStatus>,
    /// Only with this text in the shopper's name or address or in your id, or with this id. Case and accents
    /// don't count.
    #[param(min_length = 2, max_length = 254, example = "ada")]
    q: Option<String>,
    /// Only of the shopper with this address, in any spelling.
    #[param(inline)]
    email: Option<EmailToFind>,
    /// Only the cart with this id of yours.
    #[param(min_length = 1, max_length = 200)]
    external_id: Option<String>,
    /// Only in this currency: an ISO 4217 code in either case.
    #[param(example = "usd")]
    currency: Option<String>,
    /// Only those created then or later. A date begins in UTC.
    #[param(inline)]
    from: Option<DateOrInstant>,
    /// Only those created before.
    #[param(inline)]
    to: Option<DateOrInstant>,
    /// Only those abandoned then or later.
    #[param(inline)]
    abandoned_from: Option<DateOrInstant>,
    /// Only those abandoned before.
    #[param(inline)]
    abandoned_to: Option<DateOrInstant>,
    /// Only those recovered then or later.
    #[param(inline)]
    recovered_from: Option<DateOrInstant>,
    /// Only those recovered before.
    #[param(inline)]
    recovered_to: Option<DateOrInstant>,
    /// Only with this `totalValue` or a higher one.
    #[param(minimum = 0)]
    min_value: Option<f64>,
    /// Only with this `totalValue` or a lower one.
    #[param(minimum = 0)]
    max_value: Option<f64>,
    /// Only with a payment link in this state. `none`: none was requested, or the last one has expired, was closed or
    /// paid. `failed`: it could not be made, or its payment failed.
    #[param(inline)]
    link: Option<LinkState>,
}

/// The states of a payment link, for the OpenAPI document.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "describes the values")]
pub(crate) enum LinkState {
    None,
    Pending,
    Ready,
    Failed,
    Processing,
}

/// The orders of a list, for the OpenAPI document.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the values")]
pub(crate) enum Order {
    #[schema(rename = "createdAt")]
    CreatedAt,
    #[schema(rename = "-createdAt")]
    CreatedAtDescending,
    #[schema(rename = "abandonedAt")]
    AbandonedAt,
    #[schema(rename = "-abandonedAt")]
    AbandonedAtDescending,
    #[schema(rename = "recoveredAt")]
    RecoveredAt,
    #[schema(rename = "-recoveredAt")]
    RecoveredAtDescending,
    #[schema(rename = "totalValue")]
    TotalValue,
    #[schema(rename = "-totalValue")]
    TotalValueDescending,
}

/// The requested filter. Dates begin in UTC.
pub(crate) fn parse(parameters: &Parameters) -> Result<Filter, ApiError> {
    let period = |from, to| -> Result<Period, ApiError> {
        let period = Period {
            from: parameters.parse(from, DATE_OR_INSTANT, date_or_instant)?,
            to: parameters.parse(to, DATE_OR_INSTANT, date_or_instant)?,
        };
        if period.from.zip(period.to).is_some_and(|(from, to)| from > to) {
            return Err(ApiError::bad_request(format!("{from} must not be after {to}")));
        }
        Ok(period)
    };
    let filter = without_periods(parameters)?;
    Ok(Filter {
        email: parameters.parse("email", "an e-mail address", |text| text.parse().ok())?,
        external_id: parameters.parse("externalId", "an id of 1 to 200 characters", |text| {
            (text.chars().count() <= EXTERNAL_ID_CHARACTERS).then(|| text.to_owned())
        })?,
        created: period("from", "to")?,
        abandoned: period("abandonedFrom", "abandonedTo")?,
        recovered: period("recoveredFrom", "recoveredTo")?,
        ..filter
    })
}

/// The part of the filter that the dashboard has as well.
pub(crate) fn without_periods(parameters: &Parameters) -> Result<Filter, ApiError> {
    let text = format!("{MIN_CHARACTERS} to {MAX_CHARACTERS} characters");
    let filter = Filter {
        status: parameters.parse("status", "abandoned, recovered or expired", |text| text.parse().ok())?,
        text: parameters.parse("q", &text, |text| text.parse().ok())?,
        currency: currency(parameters)?,
        min_value: value(parameters, "minValue")?,
        max_value: value(parameters, "maxValue")?,
        link: parameters
            .parse("link", "none, pending, ready, failed or processing", |text| text.parse::<LinkFilter>().ok())?,
        ..Filter::default()
    };
    if filter.min_value.zip(filter.max_value).is_some_and(|(min, max)| min > max) {
        return Err(ApiError::bad_request("minValue must not be higher than maxValue"));
    }
    Ok(filter)
}

/// The requested order.
pub(crate) fn sort(parameters: &Parameters) -> Result<Option<Sort>, ApiError> {
    let keys = "createdAt, abandonedAt, recoveredAt or totalValue, with - before it for descending";
    parameters.parse("sort", keys, |text| text.parse().ok())
}

fn value(parameters: &Parameters, name: &str) -> Result<Option<ValueBound>, ApiError> {
    parameters.parse(name, "a number from 0, such as 99.90", |text| text.parse().ok())
}
