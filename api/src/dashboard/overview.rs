//! `/`: abandoned and recovered carts of a period, problems, and the newest carts.

mod figures;
mod funnel;
mod history;

use std::collections::BTreeSet;

use axum::{Router, extract::State, http::StatusCode, response::Response, routing::get};
use chrono::{Datelike, NaiveDate};
use chrono_tz::Tz;
use common::{
    analytics,
    carts::{
        self, Cart,
        list::{SortKey, Start},
    },
    money::Currency,
    time_zone,
};
use maud::{Markup, html};

use super::{
    attention, format,
    page::{Page, PageError, Section},
    period::Period,
    session::Operator,
};
use crate::{
    http::{base_path::at, error::ApiError, query::Parameters},
    routes::analytics as api,
    state::AppState,
};

/// Number of newest carts on the page.
const NEWEST: i64 = 5;

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/", get(show))
}

async fn show(
    State(state): State<AppState>,
    operator: Operator,
    parameters: Result<Parameters, ApiError>,
) -> Result<Response, PageError> {
    let (parameters, now, zone) = (parameters?, state.clock.now(), operator.zone);
    let currency = api::currency(&parameters)?.unwrap_or(state.config.currency);
    let today = time_zone::date(now, zone);
    let (period, wrong) = match Period::of(&parameters, now, zone) {
        Ok(period) if period.first > today => {
            (Period::last_days(30, today), Some("From must not be in the future.".to_owned()))
        }
        Ok(period) => (period, None),
        Err(_) if parameters.get("period").is_none() => {
            (Period::last_days(30, today), Some(Period::wrong(&parameters)))
        }
        Err(error) => return Err(error.into()),
    };
    let chosen = match (parameters.get("startDate").or(parameters.get("endDate")), parameters.get("period")) {
        (Some(_), _) => None,
        (None, period) => Some(period.unwrap_or("30d")),
    };
    let mut conn = state.database.acquire().await?;
    let range = analytics::between(&mut conn, (period.first, period.last), zone, currency).await?;
    state.upkeep.counts_read(range.deltas);
    let before = match period.before() {
        Some(before) => Some(analytics::between(&mut conn, (before.first, before.last), zone, currency).await?.summary),
        None => None,
    };
    let mut currencies = BTreeSet::from([currency, state.config.currency]);
    currencies.extend(analytics::currencies(&mut conn).await?);
    let concerns = attention::concerns(&mut conn, state.unnamed_proxy.address(), now, zone).await?;
    let newest = carts::list::page(&mut conn, None, Start::Offset(0), NEWEST, now).await?.carts;
    drop(conn);
    let has_carts = !newest.is_empty() || range.summary.total_abandoned > 0;
    let days = (period.first, period.last);
    let funnel = if has_carts { state.dashboard.funnels.count(days, currency, now).await } else { None };
    let others = Others {
        currency: (currency != state.config.currency).then(|| currency.code().to_owned()),
        chart: parameters.get("chart").filter(|chart| *chart == "value"),
    };
    let body = html! {
        div.heading {
            h1 { "Overview" }
            div.period {
                (currency_choice(&currencies, currency, &parameters))
                (period_choice(period, chosen, &Custom { parameters: &parameters, wrong: wrong.as_deref(), today }, &others))
            }
        }
        @if has_carts {
            (figures::show(&range.summary, before.as_ref(), currency, period))
            (history::show(&range.days, period, &history::Drawn {
                currency,
                only_currency: currencies.len() == 1,
                unit: if others.chart.is_some() { history::Unit::Value } else { history::Unit::Carts },
                parameters: &parameters,
            }))
            @if let Some(funnel) = funnel { (funnel::show(&funnel, range.summary.total_abandoned, zone)) }
        } @else {
            (no_carts(&state.config.shared.public_url))
        }
        div.columns {
            (attention::show(&concerns))
            (newest_carts(&newest, zone))
        }
    };
    let (status, live) = if wrong.is_some() { (StatusCode::BAD_REQUEST, "") } else { (StatusCode::OK, "carts jobs") };
    Ok(Page { title: "Overview", section: Section::Overview, operator: &operator, live }.show_as(status, &body))
}

/// What a link to another period keeps.
struct Others<'a> {
    /// The chosen currency, if it is not the default.
    currency: Option<String>,
    chart: Option<&'a str>,
}

impl Others<'_> {
    /// A link to the page with these parameters and `more`.
    fn link(&self, more: &[(&str, Option<&str>)]) -> String {
        let kept = [("currency", self.currency.as_deref()), ("chart", self.chart)];
        format!("{}{}", at("/"), format::query(&[more, &kept].concat()))
    }
}

/// What a shop without carts sees instead of figures.
fn no_carts(public_url: &str) -> Markup {
    html! {
        section.card aria-labelledby="no-carts" {
            h2 #no-carts { "No carts yet" }
            (super::start::first_cart(public_url))
            p { a.button.primary href=(at("/start")) { "Getting started" } }
        }
    }
}

/// The form for a range of days.
struct Custom<'a> {
    parameters: &'a Parameters,
    /// Why the range can't be shown.
    wrong: Option<&'a str>,
    today: NaiveDate,
}

/// The choice of a currency, if carts are in several. The period stays as it is.
fn currency_choice(currencies: &BTreeSet<Currency>, chosen: Currency, parameters: &Parameters) -> Markup {
    html! {
        @if currencies.len() > 1 {
            form.search method="get" action=(at("/")) {
                label.visually-hidden for="currency" { "Currency" }
                select #currency name="currency" {
                    @for currency in currencies {
                        option value=(currency) selected[*currency == chosen] { (currency.code().to_ascii_uppercase()) }
                    }
                }
                @for name in ["period", "startDate", "endDate", "chart"] {
                    @if let Some(value) = parameters.get(name) { input type="hidden" name=(name) value=(value); }
                }
                button.button type="submit" { "Apply" }
            }
        }
    }
}

/// The choice of a period.
fn period_choice(period: Period, chosen: Option<&str>, custom: &Custom<'_>, others: &Others<'_>) -> Markup {
    let Custom { parameters, wrong, today } = custom;
    let day = |name: &str, day: NaiveDate| match (wrong, parameters.get(name)) {
        (Some(_), Some(given)) => given.to_owned(),
        _ => day.to_string(),
    };
    let presets = [
        ("Today", *today),
        ("This month", today.with_day(1).unwrap_or(*today)),
        ("This year", today.with_ordinal(1).unwrap_or(*today)),
    ];
    html! {
        nav aria-label="Period" { ul.choice {
            @for (value, name) in [("7d", "7 days"), ("30d", "30 days"), ("90d", "90 days")] {
                li { a href=(others.link(&[("period", Some(value))]))
                    aria-current=[(chosen == Some(value)).then_some("true")] { (name) } }
            }
        } }
        details #range .menu open[wrong.is_some()] {
            summary class=(if chosen.is_none() { "button chosen" } else { "button" }) {
                @if chosen.is_none() && wrong.is_none() { (period.first.format("%-d %b %Y")) " – " (period.last.format("%-d %b %Y")) }
                @else { "Custom" }
            }
            form.panel method="get" action=(at("/")) {
                @if let Some(wrong) = wrong { p #wrong-range .problem role="alert" { (wrong) } }
                label { "From" input type="date" name="startDate" value=(day("startDate", period.first)) max=(today) required
                    aria-describedby=[wrong.map(|_| "wrong-range")]; }
                label { "To" input type="date" name="endDate" value=(day("endDate", period.last)) max=(today) required
                    aria-describedby=[wrong.map(|_| "wrong-range")]; }
                @if let Some(currency) = &others.currency { input type="hidden" name="currency" value=(currency); }
                @if let Some(chart) = others.chart { input type="hidden" name="chart" value=(chart); }
                button.button.primary type="submit" { "Apply" }
                ul.presets { @for (name, first) in presets {
                    @let (first, last) = (first.to_string(), today.to_string());
                    li { a href=(others.link(&[("startDate", Some(&first)), ("endDate", Some(&last))])) { (name) } }
                } }
            }
        }
    }
}

fn newest_carts(newest: &[Cart], zone: Tz) -> Markup {
    html! {
        section.card aria-labelledby="newest" {
            div.heading { h2 #newest { "Newest carts" } a href=(at("/carts")) { "All carts" } }
            @if newest.is_empty() {
                p.muted { "No carts yet. " a href=(at("/start")) { "Getting started" } }
            } @else {
                (super::carts::search_form(None, &html! {}))
                (super::carts::table(newest, "The newest carts", SortKey::CreatedAt, zone, false))
            }
        }
    }
}
