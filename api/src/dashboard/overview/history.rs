//! The chart of a period, and its numbers as a table.

use chrono::NaiveDate;
use common::{
    analytics::{DayStats, Rate},
    money::{Currency, grouped},
};
use maud::{Markup, PreEscaped, html};

use crate::{
    dashboard::{
        chart::{self, Size},
        format,
        period::{Bar, Period, Step, bars},
    },
    http::{base_path::at, query::Parameters},
};

/// What the bars show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Carts,
    Value,
}

/// How the chart is drawn.
pub(super) struct Drawn<'a> {
    pub(super) currency: Currency,
    /// Whether all carts are in it.
    pub(super) only_currency: bool,
    pub(super) unit: Unit,
    pub(super) parameters: &'a Parameters,
}

pub(super) fn show(days: &[DayStats], period: Period, drawn: &Drawn<'_>) -> Markup {
    let step = period.step();
    let bars = bars(days, step);
    let long = (period.last - period.first).num_days() > 366;
    let shown: Vec<chart::Bar> = bars.iter().map(|bar| drawn.bar(bar, long)).collect();
    let label = format!(
        "Bars of abandoned and recovered {} per {}, from {} to {}. The table below has the numbers.",
        if drawn.unit == Unit::Carts { "carts" } else { "value" },
        step.name(),
        period.first.format("%-d %B %Y"),
        period.last.format("%-d %B %Y"),
    );
    let written = |value: i64| drawn.written(value);
    html! {
        section.card aria-labelledby="history" {
            div.heading {
                h2 #history {
                    @match drawn.unit { Unit::Carts => "Carts", Unit::Value => { "Value in " (drawn.currency.code().to_ascii_uppercase()) } }
                    " per " (step.name())
                }
                div.tools {
                    ul.legend { li { span.key.abandoned {} "Abandoned" } li { span.key.recovered {} "Recovered" } }
                    (drawn.choice())
                }
            }
            (PreEscaped(chart::draw(&shown, Size::WIDE, &label, &written)))
            (PreEscaped(chart::draw(&shown, Size::NARROW, &label, &written)))
            (drawn.numbers(&bars, step))
        }
    }
}

impl Drawn<'_> {
    /// Carts or their value.
    fn choice(&self) -> Markup {
        let kept = ["period", "startDate", "endDate", "currency"].map(|name| (name, self.parameters.get(name)));
        html! {
            nav aria-label="What the chart shows" { ul.choice {
                @for (unit, value, name) in [(Unit::Carts, None, "Carts"), (Unit::Value, Some("value"), "Value")] {
                    li { a href={ (at("/")) (format::query(&[&kept[..], &[("chart", value)]].concat())) }
                        aria-current=[(unit == self.unit).then_some("true")] { (name) } }
                }
            } }
        }
    }

    fn bar(&self, bar: &Bar, long: bool) -> chart::Bar {
        let says = match self.unit {
            Unit::Carts => {
                format!("{} abandoned, {} recovered", format::count(bar.abandoned), format::count(bar.recovered))
            }
            Unit::Value => {
                let money = |minor| self.currency.format(self.currency.amount(minor));
                format!("{} abandoned, {} recovered", money(bar.abandoned_minor), money(bar.recovered_minor))
            }
        };
        let (back, front) = match self.unit {
            Unit::Carts => (bar.abandoned, bar.recovered),
            Unit::Value => (bar.abandoned_minor, bar.recovered_minor),
        };
        chart::Bar {
            label: bar.first.format(if long { "%b %Y" } else { "%-d %b" }).to_string(),
            back,
            front,
            tooltip: format!("{}: {says}", dates(bar)),
            link: self.carts("abandoned", bar.first, bar.last),
        }
    }

    /// A value at the axis: `1.5k`.
    fn written(&self, value: i64) -> String {
        let unit = match self.unit {
            Unit::Carts => 1,
            Unit::Value => 10_i64.pow(self.currency.decimals()),
        };
        if value % unit == 0 { chart::short(value / unit) } else { self.currency.amount(value).to_string() }
    }

    /// The list of the carts of some days, by one of their dates.
    fn carts(&self, date: &str, first: NaiveDate, last: NaiveDate) -> String {
        let (first, last) = (first.to_string(), last.to_string());
        let currency = (!self.only_currency).then(|| self.currency.code());
        let query = [("date", Some(date)), ("from", Some(&*first)), ("to", Some(&*last)), ("currency", currency)];
        format!("{}{}", at("/carts"), format::query(&query))
    }

    fn numbers(&self, bars: &[Bar], step: Step) -> Markup {
        let linked = |count: i64, date: &str, bar: &Bar| {
            html! {
                @if count > 0 { a href=(self.carts(date, bar.first, bar.last)) { (format::count(count)) } } @else { "0" }
            }
        };
        let rate = |part: i64, whole: i64| grouped(&Rate::percent(part, whole).to_string());
        let value = |minor: i64| format::amount(self.currency.amount(minor));
        html! {
            details #numbers {
                summary { "Show as table" }
                div.scroll tabindex="0" role="region" aria-label="Carts, newest first" { table {
                    caption.visually-hidden { "Abandoned and recovered carts per " (step.name()) ", newest first" }
                    thead { tr {
                        th scope="col" { @if step == Step::Day { "Day" } @else { "Days" } }
                        th.number scope="col" { "Abandoned" } th.number scope="col" { "Abandoned value" }
                        th.number scope="col" { "Recovered" } th.number scope="col" { "Recovered value" } th.number scope="col" { "Rate" }
                        th.number scope="col" { "Recovered since" }
                    } }
                    tbody { @for bar in bars.iter().rev() { tr {
                        th scope="row" { (dates(bar)) }
                        td.number { (linked(bar.abandoned, "abandoned", bar)) } td.number { (value(bar.abandoned_minor)) }
                        td.number { (linked(bar.recovered, "recovered", bar)) } td.number { (value(bar.recovered_minor)) }
                        td.number { (rate(bar.recovered, bar.abandoned)) "%" }
                        td.number { (rate(bar.cohort_recovered, bar.abandoned)) "%" }
                    } } }
                } }
                p.muted.small { "Rate: recovered ÷ abandoned. Recovered since: the share of the carts abandoned then that are recovered now." }
            }
        }
    }
}

/// `24 Nov 2026`, `1 Nov 2026 – 7 Nov 2026`
fn dates(bar: &Bar) -> String {
    if bar.first == bar.last {
        return format::day(bar.first);
    }
    format!("{} – {}", format::day(bar.first), format::day(bar.last))
}
