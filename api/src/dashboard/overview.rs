//! `/`: abandoned and recovered carts of a period, problems, and the newest carts.

use std::collections::BTreeSet;

use axum::{Router, extract::State, http::StatusCode, response::Response, routing::get};
use chrono::{Datelike, NaiveDate};
use chrono_tz::Tz;
use common::{
    analytics::{self, DayStats, Rate, Summary},
    carts::{
        self, Cart,
        list::{SortKey, Start},
    },
    money::{Currency, grouped},
    time_zone,
};
use maud::{Markup, PreEscaped, html};

use super::{
    attention, chart,
    chart::Size,
    format,
    page::{Page, PageError, Section},
    period::{Bar, Period, Step, bars},
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
    let body = html! {
        div.heading {
            h1 { "Overview" }
            div.period {
                (currency_choice(&currencies, currency, &parameters))
                (period_choice(period, chosen, &Custom { parameters: &parameters, wrong: wrong.as_deref(), today }, (currency != state.config.currency).then_some(currency)))
            }
        }
        @if newest.is_empty() && range.summary.total_abandoned == 0 {
            (no_carts(&state.config.shared.public_url))
        } @else {
            (figures(&range.summary, before.as_ref(), currency, period))
            (history(&range.days, period))
        }
        div.columns {
            (attention::show(&concerns))
            (newest_carts(&newest, zone))
        }
    };
    let (status, live) = if wrong.is_some() { (StatusCode::BAD_REQUEST, "") } else { (StatusCode::OK, "carts jobs") };
    Ok(Page { title: "Overview", section: Section::Overview, operator: &operator, live }.show_as(status, &body))
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
                @for name in ["period", "startDate", "endDate"] {
                    @if let Some(value) = parameters.get(name) { input type="hidden" name=(name) value=(value); }
                }
                button.button type="submit" { "Apply" }
            }
        }
    }
}

/// The choice of a period. `currency` is the chosen one, if it is not the default.
fn period_choice(period: Period, chosen: Option<&str>, custom: &Custom<'_>, currency: Option<Currency>) -> Markup {
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
    let currency = currency.as_ref().map(Currency::code);
    html! {
        nav aria-label="Period" { ul.choice {
            @for (value, name) in [("7d", "7 days"), ("30d", "30 days"), ("90d", "90 days")] {
                li { a href={ (at("/")) (format::query(&[("period", Some(value)), ("currency", currency)])) }
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
                @if let Some(currency) = currency { input type="hidden" name="currency" value=(currency); }
                button.button.primary type="submit" { "Apply" }
                ul.presets { @for (name, first) in presets {
                    @let (first, last) = (first.to_string(), today.to_string());
                    li { a href={ (at("/")) (format::query(&[("startDate", Some(&first)), ("endDate", Some(&last)), ("currency", currency)])) } { (name) } }
                } }
            }
        }
    }
}

fn figures(now: &Summary, before: Option<&Summary>, currency: Currency, period: Period) -> Markup {
    let share = |now: i64, was: i64| (was != 0 || now == 0).then(|| Rate::percent(now - was, was));
    let change = |of: fn(&Summary) -> i64| before.and_then(|before| share(of(now), of(before)));
    let points = before.map(|before| now.recovery_rate - before.recovery_rate);
    let was = |of: &dyn Fn(&Summary) -> Markup| before.map(of);
    html! {
        section aria-label="Figures" {
            dl.figures {
                (figure("Abandoned", &html! { (format::count(now.total_abandoned)) },
                    &delta(change(|s| s.total_abandoned), "%", false), was(&|s| html! { (format::count(s.total_abandoned)) })))
                (figure("Recovered", &html! { (format::count(now.total_recovered)) },
                    &delta(change(|s| s.total_recovered), "%", true), was(&|s| html! { (format::count(s.total_recovered)) })))
                (figure("Recovery rate", &html! { (now.recovery_rate) span.unit { "%" } },
                    &delta(points, " pp", true), was(&|s| html! { (s.recovery_rate) "%" })))
                (figure("Recovered revenue", &format::money(now.total_recovered_value, currency),
                    &delta(change(|s| s.total_recovered_value.minor()), "%", true),
                    was(&|s| html! { (format::amount(s.total_recovered_value)) })))
            }
            p.muted.small {
                "Abandoned value: " (format::money(now.total_abandoned_value, currency)) ". "
                "Recovered by payment: " (format::money(now.recovered_by_payment_value, currency))
                " in " (format::count(now.recovered_by_payment)) @if now.recovered_by_payment == 1 { " cart. " } @else { " carts. " }
                @if now.refunded_value.minor() > 0 { "Refunded: " (format::money(now.refunded_value, currency)) ". " }
                @if let Some(before) = period.before() {
                    "Compared with the previous " (counted_days(period.days())) " (" (span(before)) ")."
                }
            }
        }
    }
}

/// `30 days`, `1,063 days`
fn counted_days(days: i64) -> String {
    if days == 1 { "day".to_owned() } else { format!("{} days", format::count(days)) }
}

/// `30 Sep – 29 Oct 2026`
fn span(period: Period) -> String {
    let first = if period.first.year() == period.last.year() { "%-d %b" } else { "%-d %b %Y" };
    if period.first == period.last {
        return period.last.format("%-d %b %Y").to_string();
    }
    format!("{} – {}", period.first.format(first), period.last.format("%-d %b %Y"))
}

fn figure(name: &str, value: &Markup, change: &Markup, before: Option<Markup>) -> Markup {
    html! {
        div.card.figure {
            dt { (name) }
            dd.value data-announce=(name) { (value) }
            dd.change { (change) @if let Some(before) = before { span.muted { "previously " (before) } } }
        }
    }
}

/// `more_is_better` marks the change as good or bad; otherwise it is neutral.
fn delta(change: Option<Rate>, unit: &str, more_is_better: bool) -> Markup {
    let Some(change) = change else { return html! { span.delta { "new" } } };
    let zero = Rate::percent(0, 1);
    let (class, arrow, word) = match change.cmp(&zero) {
        std::cmp::Ordering::Greater => (if more_is_better { "delta good" } else { "delta" }, "↑", "up by"),
        std::cmp::Ordering::Less => (if more_is_better { "delta bad" } else { "delta" }, "↓", "down by"),
        std::cmp::Ordering::Equal => ("delta", "→", "unchanged,"),
    };
    let size = if change < zero { zero - change } else { change };
    html! {
        span class=(class) {
            span aria-hidden="true" { (arrow) " " } span.visually-hidden { (word) " " }
            (grouped(&size.to_string())) (unit)
        }
    }
}

fn history(days: &[DayStats], period: Period) -> Markup {
    let step = period.step();
    let bars = bars(days, step);
    let label = format!(
        "Bars of abandoned and recovered carts per {}, from {} to {}. The table below has the numbers.",
        step.name(),
        period.first.format("%-d %B %Y"),
        period.last.format("%-d %B %Y"),
    );
    html! {
        section.card aria-labelledby="history" {
            div.heading {
                h2 #history { "Carts per " (step.name()) }
                ul.legend { li { span.key.abandoned {} "Abandoned" } li { span.key.recovered {} "Recovered" } }
            }
            (PreEscaped(chart::draw(&bars, Size::WIDE, &label)))
            (PreEscaped(chart::draw(&bars, Size::NARROW, &label)))
            (numbers(&bars, step))
        }
    }
}

fn numbers(bars: &[Bar], step: Step) -> Markup {
    html! {
        details #numbers {
            summary { "Show as table" }
            div.scroll tabindex="0" role="region" aria-label="Carts, newest first" { table {
                caption.visually-hidden { "Abandoned and recovered carts per " (step.name()) ", newest first" }
                thead { tr {
                    th scope="col" { @if step == Step::Day { "Day" } @else { "From" } }
                    th.number scope="col" { "Abandoned" } th.number scope="col" { "Recovered" } th.number scope="col" { "Rate" }
                } }
                tbody { @for bar in bars.iter().rev() { tr {
                    th scope="row" { (bar.date.format("%-d %b %Y")) }
                    td.number { (format::count(bar.abandoned)) } td.number { (format::count(bar.recovered)) }
                    td.number { (grouped(&Rate::percent(bar.recovered, bar.abandoned).to_string())) "%" }
                } } }
            } }
        }
    }
}

fn newest_carts(newest: &[Cart], zone: Tz) -> Markup {
    html! {
        section.card aria-labelledby="newest" {
            div.heading { h2 #newest { "Newest carts" } a href=(at("/carts")) { "All carts" } }
            @if newest.is_empty() {
                p.muted { "No carts yet. " a href=(at("/start")) { "Getting started" } }
            } @else { (super::carts::table(newest, "The newest carts", SortKey::CreatedAt, zone, false)) }
        }
    }
}
