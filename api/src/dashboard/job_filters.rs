//! The filters of the list of jobs: which queue, state, kind, error and cart.

use common::{
    carts::CartId,
    jobs::QUEUES,
    operations::{JobFilter, JobState},
};
use maud::{Markup, html};

use crate::http::error::ApiError;

/// Parses the filter in a query string or a form; every part is optional.
pub(crate) fn filter<'p>(get: impl Fn(&str) -> Option<&'p str>) -> Result<JobFilter, ApiError> {
    let queue = queue(&get)?;
    let given = |name: &str| get(name).map(str::trim).filter(|value| !value.is_empty());
    let state = given("state").map(str::parse).transpose();
    let state =
        state.map_err(|_| ApiError::bad_request("state must be scheduled, ready, running, retrying, done or dead"))?;
    let cart = given("cartId").map(str::parse::<CartId>).transpose();
    let cart = cart.map_err(|_| ApiError::bad_request("cartId must be the id of a cart"))?;
    let text = |name: &str| given(name).map(str::to_owned);
    let subject = cart.map(|cart| cart.to_string());
    Ok(JobFilter { queue, state, kind: text("kind"), error: text("error"), subject })
}

fn queue<'p>(get: impl Fn(&str) -> Option<&'p str>) -> Result<Option<String>, ApiError> {
    let queue = get("queue").filter(|queue| !queue.is_empty());
    if queue.is_some_and(|queue| !QUEUES.contains(&queue)) {
        return Err(ApiError::bad_request(format!("queue must be {}", QUEUES.join(", "))));
    }
    Ok(queue.map(str::to_owned))
}

/// The filter as pairs of a query string.
pub(crate) fn pairs(filter: &JobFilter) -> [(&'static str, Option<&str>); 5] {
    let state = filter.state.map(JobState::as_str);
    [
        ("queue", filter.queue.as_deref()),
        ("state", state),
        ("kind", filter.kind.as_deref()),
        ("error", filter.error.as_deref()),
        ("cartId", filter.subject.as_deref()),
    ]
}

/// A list of values to filter by.
pub(crate) fn choice(name: &str, all: &str, values: &[&str], chosen: Option<&str>) -> Markup {
    html! {
        select id=(name) name=(name) {
            option value="" { (all) }
            @for value in values { option value=(value) selected[chosen == Some(*value)] { (value) } }
            @if let Some(other) = chosen.filter(|chosen| !values.contains(chosen)) { option value=(other) selected { (other) } }
        }
    }
}
