//! Draws the table as SVG pictures.

use anyhow::{Result, anyhow};
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::{
    results::{Outcome, Results},
    rows::{Compare, Row, Unit},
};

const WIDTH: i32 = 900;
/// The height of a row.
const HEIGHT: i32 = 30;
const TOP: i32 = 58;
const BOTTOM: i32 = 30;
/// The left and right end of the bars.
const LEFT: i32 = 150;
const RIGHT: i32 = WIDTH - 130;
const OURS: RGBColor = RGBColor(31, 119, 180);
const THEIRS: RGBColor = RGBColor(170, 170, 170);
const MISSED: RGBColor = RGBColor(214, 90, 49);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws measured ÷ wanted for each row and round; at 1 the target is met.
pub(crate) fn reached(rows: &[&'static Row], results: &Results) -> Result<String> {
    let parts: Vec<(&Row, [f64; 3])> = rows.iter().filter_map(|row| Some((*row, of_wanted(row, results)?))).collect();
    let scale = Scale { from: 0.1, to: 10.0 };
    let title = "Reached ÷ wanted: the median of the rounds, and the least and the most";
    draw(title, parts.len(), |area| {
        grid(area, parts.len(), scale, &[0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0])?;
        line(area, scale.place(1.0), TOP - 8, scale.place(1.0), bottom(parts.len()), BLACK.stroke_width(2))?;
        for (place, (row, [middle, least, most])) in parts.iter().enumerate() {
            let y = TOP + HEIGHT * i32::try_from(place)?;
            let color = if *middle >= 1.0 { OURS } else { MISSED };
            label(area, row.name, LEFT - 8, y + HEIGHT / 2, HPos::Right)?;
            bar(area, scale.place(1.0), scale.place(*middle), y + 7, y + HEIGHT - 7, color)?;
            let middle_of_row = y + HEIGHT / 2;
            line(area, scale.place(*least), middle_of_row, scale.place(*most), middle_of_row, BLACK.stroke_width(1))?;
            for end in [least, most] {
                line(area, scale.place(*end), y + 11, scale.place(*end), y + HEIGHT - 11, BLACK.stroke_width(1))?;
            }
            label(area, &format!("{middle:.2}"), RIGHT + 10, middle_of_row, HPos::Left)?;
        }
        Ok(())
    })
}

/// Draws the medians of both sides for the rows with this unit.
pub(crate) fn sides(rows: &[&'static Row], results: &Results, unit: Unit) -> Result<String> {
    let fits = |row: &&&Row| row.unit == unit && row.compare != Compare::Alone;
    let parts: Vec<(&Row, &Outcome)> =
        rows.iter().filter(fits).filter_map(|row| Some((*row, there(row, results)?))).collect();
    let (scale, ticks, title): (Scale, &[f64], &str) = match unit {
        Unit::PerSecond => (
            Scale { from: 10.0, to: 1_000_000.0 },
            &[10.0, 100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0],
            "A second: the product (blue) and what it is compared with (grey)",
        ),
        _ => (
            Scale { from: 0.1, to: 1_000.0 },
            &[0.1, 1.0, 10.0, 100.0, 1_000.0],
            "Milliseconds: the product (blue) and what it is compared with (grey); less is better",
        ),
    };
    draw(title, parts.len(), |area| {
        grid(area, parts.len(), scale, ticks)?;
        for (place, (row, outcome)) in parts.iter().enumerate() {
            let y = TOP + HEIGHT * i32::try_from(place)?;
            label(area, row.name, LEFT - 8, y + HEIGHT / 2, HPos::Right)?;
            for (value, top, color) in [(outcome.ours(), y + 4, OURS), (outcome.theirs(), y + HEIGHT / 2, THEIRS)] {
                bar(area, LEFT, scale.place(value), top, top + HEIGHT / 2 - 4, color)?;
                label(area, &short(value), scale.place(value) + 6, top + HEIGHT / 4 - 2, HPos::Left)?;
            }
        }
        Ok(())
    })
}

/// The row's results, if there are any.
fn there<'a>(row: &Row, results: &'a Results) -> Option<&'a Outcome> {
    results.get(row.name).filter(|outcome| outcome.trouble.is_none() && !outcome.samples.is_empty())
}

/// The median, minimum and maximum of measured ÷ wanted.
fn of_wanted(row: &Row, results: &Results) -> Option<[f64; 3]> {
    let (middle, least, most) = there(row, results)?.spread(row.compare);
    let wanted = row.wanted?;
    Some(if row.compare.is_ratio() {
        [middle / wanted, least / wanted, most / wanted]
    } else {
        // Less is better; values are clamped to one thousandth of the target.
        [middle, most, least].map(|value| wanted / value.max(wanted / 1_000.0))
    })
}

/// A logarithmic scale from left to right.
#[derive(Debug, Clone, Copy)]
struct Scale {
    from: f64,
    to: f64,
}

impl Scale {
    fn place(self, value: f64) -> i32 {
        let part = (value.clamp(self.from, self.to) / self.from).ln() / (self.to / self.from).ln();
        #[expect(clippy::cast_possible_truncation, reason = "a place in the picture")]
        let place = (f64::from(RIGHT - LEFT) * part).round() as i32;
        LEFT + place
    }
}

fn draw(title: &str, rows: usize, paint: impl Fn(&Area<'_>) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    {
        let height = bottom(rows) + BOTTOM;
        let area = SVGBackend::with_string(&mut svg, (WIDTH.unsigned_abs(), height.unsigned_abs())).into_drawing_area();
        area.fill(&WHITE).map_err(unpainted)?;
        let style = ("sans-serif", 16).into_font().color(&BLACK).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(title.to_owned(), (16, 20), style)).map_err(unpainted)?;
        paint(&area)?;
        area.present().map_err(unpainted)?;
    }
    Ok(svg)
}

fn bottom(rows: usize) -> i32 {
    TOP + HEIGHT * i32::try_from(rows).unwrap_or(0)
}

fn grid(area: &Area<'_>, rows: usize, scale: Scale, ticks: &[f64]) -> Result<()> {
    for tick in ticks {
        let x = scale.place(*tick);
        line(area, x, TOP - 8, x, bottom(rows), RGBColor(225, 225, 225).stroke_width(1))?;
        label(area, &short(*tick), x, bottom(rows) + 12, HPos::Center)?;
    }
    Ok(())
}

fn bar(area: &Area<'_>, from: i32, to: i32, top: i32, bottom: i32, color: RGBColor) -> Result<()> {
    area.draw(&Rectangle::new([(from.min(to), top), (from.max(to), bottom)], color.filled())).map_err(unpainted)
}

fn line(area: &Area<'_>, x: i32, y: i32, to_x: i32, to_y: i32, style: ShapeStyle) -> Result<()> {
    area.draw(&PathElement::new(vec![(x, y), (to_x, to_y)], style)).map_err(unpainted)
}

fn label(area: &Area<'_>, text: &str, x: i32, y: i32, beside: HPos) -> Result<()> {
    let style = ("sans-serif", 13).into_font().color(&BLACK).pos(Pos::new(beside, VPos::Center));
    area.draw(&Text::new(text.to_owned(), (x, y), style)).map_err(unpainted)
}

/// Formats a value with about three digits.
fn short(value: f64) -> String {
    match value {
        ..1.0 => format!("{value:.2}").trim_end_matches('0').to_owned(),
        ..10.0 => format!("{value:.1}").trim_end_matches(".0").to_owned(),
        ..10_000.0 => format!("{value:.0}"),
        ..1_000_000.0 => format!("{:.0} k", value / 1_000.0),
        _ => format!("{:.0} M", value / 1_000_000.0),
    }
}

fn unpainted(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("a picture can't be drawn: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{results::Sample, rows::ROWS};

    #[test]
    fn every_row_is_in_its_picture() {
        let rows: Vec<&Row> = ROWS.iter().collect();
        let samples = [(900.0, 1_000.0), (1_200.0, 1_000.0), (1_500.0, 1_000.0)];
        let outcome = || Outcome {
            samples: samples.map(|(ours, theirs)| Sample { ours, theirs }).to_vec(),
            ..Outcome::default()
        };
        let results: Results = rows.iter().map(|row| (row.name, outcome())).collect();
        let reached = reached(&rows, &results).expect("it can be drawn");
        let both =
            [Unit::PerSecond, Unit::Milliseconds].map(|unit| sides(&rows, &results, unit).expect("it can be drawn"));
        for row in rows {
            assert_eq!(reached.contains(row.name), row.wanted.is_some(), "{}", row.name);
            let compared = row.compare != Compare::Alone;
            assert_eq!(both.iter().any(|svg| svg.contains(row.name)), compared, "{}", row.name);
        }
    }
}
