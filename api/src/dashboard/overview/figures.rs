//! The figures of a period, compared with the period before.

use chrono::Datelike;
use common::{
    analytics::{Rate, Summary},
    money::{Currency, grouped},
};
use maud::{Markup, html};

use crate::dashboard::{format, period::Period};

pub(super) fn show(now: &Summary, before: Option<&Summary>, currency: Currency, period: Period) -> Markup {
    html! {
        section aria-label="Figures" {
            dl.figures { @for figure in figures(now, before, currency) { (figure.show()) } }
            p.muted.small {
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

fn figures(now: &Summary, before: Option<&Summary>, currency: Currency) -> [Figure; 6] {
    let share = |now: i64, was: i64| (was != 0 || now == 0).then(|| Rate::percent(now - was, was));
    let change = |of: fn(&Summary) -> i64| before.and_then(|before| share(of(now), of(before)));
    let was = |of: &dyn Fn(&Summary) -> Markup| before.map(of);
    let time = |of: &Summary| of.average_recovery_seconds.map_or_else(|| "–".to_owned(), format::seconds);
    let times = now.average_recovery_seconds.zip(before.and_then(|before| before.average_recovery_seconds));
    let average = (now.total_abandoned > 0).then(|| now.total_abandoned_value.minor() / now.total_abandoned);
    [
        Figure {
            name: "Abandoned",
            value: html! { (format::count(now.total_abandoned)) },
            change: delta(change(|s| s.total_abandoned), "%", false),
            before: was(&|s| html! { (format::count(s.total_abandoned)) }),
            note: Some(
                html! { (format::count(now.cohort_recovered)) " recovered so far (" (now.cohort_recovery_rate) "%)" },
            ),
        },
        Figure {
            name: "Recovered",
            value: html! { (format::count(now.total_recovered)) },
            change: delta(change(|s| s.total_recovered), "%", true),
            before: was(&|s| html! { (format::count(s.total_recovered)) }),
            note: Some(html! { "whenever they were abandoned" }),
        },
        Figure {
            name: "Recovery rate",
            value: html! { (now.recovery_rate) span.unit { "%" } },
            change: delta(before.map(|before| now.recovery_rate - before.recovery_rate), " pp", true),
            before: was(&|s| html! { (s.recovery_rate) "%" }),
            note: Some(html! { "recovered ÷ abandoned" }),
        },
        Figure {
            name: "Abandoned value",
            value: format::money(now.total_abandoned_value, currency),
            change: delta(change(|s| s.total_abandoned_value.minor()), "%", false),
            before: was(&|s| html! { (format::amount(s.total_abandoned_value)) }),
            note: average.map(|average| html! { (format::money(currency.amount(average), currency)) " per cart" }),
        },
        Figure {
            name: "Recovered revenue",
            value: format::money(now.total_recovered_value, currency),
            change: delta(change(|s| s.total_recovered_value.minor()), "%", true),
            before: was(&|s| html! { (format::amount(s.total_recovered_value)) }),
            note: None,
        },
        Figure {
            name: "Time to recovery",
            value: html! { (time(now)) },
            change: times.map_or_else(|| html! {}, |(now, was)| delta(share(now, was), "%", false)),
            before: was(&|s| html! { (time(s)) }),
            note: Some(html! { "average of the recovered carts" }),
        },
    ]
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

/// One figure, and how it was in the period before.
struct Figure {
    name: &'static str,
    value: Markup,
    change: Markup,
    before: Option<Markup>,
    /// A remark below the value.
    note: Option<Markup>,
}

impl Figure {
    fn show(&self) -> Markup {
        html! {
            div.card.figure {
                dt { (self.name) }
                dd.value data-announce=(self.name) { (self.value) }
                dd.change { (self.change) @if let Some(before) = &self.before { span.muted { "previously " (before) } } }
                @if let Some(note) = &self.note { dd.muted.small { (note) } }
            }
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
