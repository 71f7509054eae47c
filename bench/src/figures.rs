//! Medians, quantiles, and their formats.

use std::time::Duration;

/// The median; of an even number of values, the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let reversed: Vec<f64> = values.iter().map(|value| -value).collect();
    f64::midpoint(quantile(values, 50), -quantile(&reversed, 50))
}

/// The value below which `percent` of the values are.
pub(crate) fn quantile(values: &[f64], percent: usize) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0.0)
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Prints a row of a table: every round, the median, the minimum and the maximum.
pub(crate) fn print_row(what: &str, rounds: &[f64]) {
    let each: Vec<String> = rounds.iter().map(|value| format!("{value:.2}")).collect();
    let (least, most) = (quantile(rounds, 0), quantile(rounds, 100));
    println!("| {what} | {} | {:.2} | {least:.2} – {most:.2} |", each.join(", "), median(rounds));
}

/// Divides the values of each round.
pub(crate) fn ratios(of: &[f64], to: &[f64]) -> Vec<f64> {
    of.iter().zip(to).map(|(of, to)| of / to).collect()
}
