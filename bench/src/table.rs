//! The table in Markdown.

use std::fmt::Write;

use crate::{
    results::{Outcome, Results, Trouble},
    rows::{Compare, Row, Unit},
};

/// The table with one line per row.
pub(crate) fn markdown(rows: &[&'static Row], results: &Results) -> String {
    let mut table = String::from(
        "| row | what | against | ours | theirs | ratio | least – most | wanted | |\n|---|---|---|--:|--:|--:|--:|--:|---|\n",
    );
    for row in rows {
        let line = match results.get(row.name) {
            Some(Outcome { trouble: Some(Trouble::NotThereYet), .. }) | None => {
                format!("| | | | | {} | not there yet |", wanted(row))
            }
            Some(Outcome { trouble: Some(Trouble::Failed(_)), .. }) => {
                format!("| | | | | {} | **FAILED** |", wanted(row))
            }
            Some(outcome) => figures(row, outcome),
        };
        let _ = writeln!(table, "| {} | {} | {} {line}", row.name, row.what, row.against);
    }
    table
}

fn figures(row: &Row, outcome: &Outcome) -> String {
    let theirs = if row.compare == Compare::Alone { String::new() } else { figure(outcome.theirs(), row.unit) };
    let (middle, least, most) = outcome.spread(row.compare);
    let verdict = match outcome.is_met(row) {
        Some(true) => "met",
        Some(false) => "**MISSED**",
        None => "",
    };
    format!(
        "| {} | {theirs} | {} | {} – {} | {} | {verdict} |",
        figure(outcome.ours(), row.unit),
        compared(middle, row),
        compared(least, row),
        compared(most, row),
        wanted(row),
    )
}

fn compared(value: f64, row: &Row) -> String {
    match row.compare {
        Compare::Rates | Compare::Waits => ratio(value),
        Compare::Alone => figure(value, row.unit),
    }
}

fn ratio(value: f64) -> String {
    if value < 0.1 { format!("{value:.3}") } else { format!("{value:.2}") }
}

fn wanted(row: &Row) -> String {
    match row.wanted {
        Some(least) if row.compare.is_ratio() => format!("≥ {}", ratio(least)),
        Some(most) => format!("≤ {most:.0} {}", unit(row.unit)),
        None => String::new(),
    }
}

fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::PerSecond => "/s",
        Unit::Milliseconds => "ms",
        Unit::Mebibytes => "MiB",
    }
}

/// Formats a value with a sensible number of digits and its unit.
fn figure(value: f64, of: Unit) -> String {
    match of {
        Unit::PerSecond => format!("{}/s", grouped(value)),
        Unit::Milliseconds => format!("{value:.2} ms"),
        Unit::Mebibytes => format!("{value:.1} MiB"),
    }
}

/// Groups thousands: 12,900.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        assert_eq!(
            ["0", "999", "1,000", "1,234,567"],
            [0.0, 999.4, 999.6, 1_234_567.0].map(grouped).each_ref().map(String::as_str)
        );
    }
}
