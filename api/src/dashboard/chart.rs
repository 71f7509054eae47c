//! Draws charts of bars as SVG without inline styles, which the pages' content security policy
//! forbids. In dark mode, `dashboard.css` replaces the colours.

use maud::html;
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

/// `dashboard.css` selects elements by these colours.
const BACK: RGBColor = RGBColor(0xA9, 0xB4, 0xC6);
const FRONT: RGBColor = RGBColor(0x4F, 0x46, 0xE5);
const GRID: RGBColor = RGBColor(0xE3, 0xE8, 0xEE);
const TEXT: RGBColor = RGBColor(0x5B, 0x64, 0x78);

/// Two values at one place of a chart.
#[derive(Debug, Clone)]
pub(crate) struct Bar {
    /// Below the axis, where there is room.
    pub(crate) label: String,
    pub(crate) back: i64,
    /// Drawn narrower, in front of `back`.
    pub(crate) front: i64,
    /// What the bar shows, in words.
    pub(crate) tooltip: String,
    /// Where it leads: a path with a query.
    pub(crate) link: String,
}

/// Size of a chart. Its units are at most half a pixel on the page, so that bars can be placed at
/// whole units.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    width: i32,
    height: i32,
    font: i32,
    /// CSS class.
    class: &'static str,
}

impl Size {
    pub(crate) const WIDE: Self = Self { width: 2_000, height: 520, font: 26, class: "chart wide" };
    pub(crate) const NARROW: Self = Self { width: 760, height: 480, font: 26, class: "chart slim" };

    fn left(self) -> i32 {
        self.font * 3
    }

    fn bottom(self) -> i32 {
        self.height - self.font * 2
    }

    fn top(self) -> i32 {
        self.font
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// Draws bars. `label` describes the picture in words, `axis_label` is the text of a value at the axis.
pub(crate) fn draw(bars: &[Bar], size: Size, label: &str, axis_label: &dyn Fn(i64) -> String) -> String {
    let mut svg = String::new();
    if let Err(error) = paint(&mut svg, bars, size, axis_label) {
        tracing::error!(%error, "a chart could not be drawn"); // writing into a String can't fail
        return String::new();
    }
    // A group, not a picture: the parts of a picture can't be links.
    let head = html! { (label) }.0;
    let svg = svg.replacen("<svg ", &format!(r#"<svg class="{}" role="group" aria-label="{head}" "#, size.class), 1);
    match svg.rsplit_once("</svg>") {
        Some((drawn, _)) => format!("{drawn}{}</svg>", links(bars, size)),
        None => svg,
    }
}

/// A link with a tooltip over each bar. The keyboard has the links of the table instead.
fn links(bars: &[Bar], size: Size) -> String {
    let x = places(bars.len(), size);
    html! {
        @for (place, bar) in (0..).zip(bars) {
            a href=(bar.link) aria-label=(bar.tooltip) tabindex="-1" {
                title { (bar.tooltip) }
                rect.hit x=(x(place)) y=(size.top()) width=(x(place + 1) - x(place)) height=(size.bottom() - size.top()) fill="none" {}
            }
        }
    }
    .0
}

/// The left ends of `count` bars.
fn places(count: usize, size: Size) -> impl Fn(i64) -> i32 {
    let count = i64::try_from(count).unwrap_or(i64::MAX).max(1);
    move |place| size.left() + scaled(place, count, size.width - size.left())
}

fn paint(svg: &mut String, bars: &[Bar], size: Size, axis_label: &dyn Fn(i64) -> String) -> Drawn {
    let area =
        SVGBackend::with_string(svg, (size.width.unsigned_abs(), size.height.unsigned_abs())).into_drawing_area();
    let most = bars.iter().map(|bar| bar.back.max(bar.front)).max().unwrap_or(0);
    let step = tick_step(most);
    let top = step * most.unsigned_abs().div_ceil(step.unsigned_abs()).max(1).cast_signed();
    let y = |value: i64| size.bottom() - scaled(value, top, size.bottom() - size.top());
    let mut tick = 0;
    while tick <= top {
        area.draw(&PathElement::new(vec![(size.left(), y(tick)), (size.width, y(tick))], GRID.stroke_width(2)))?;
        text(&area, size, &axis_label(tick), (size.left() - size.font / 2, y(tick)), HPos::Right, VPos::Center)?;
        tick += step;
    }
    let x = places(bars.len(), size);
    for (place, bar) in (0..).zip(bars) {
        let (from, to) = (x(place), x(place + 1));
        let gap = ((to - from) / 6).max(1);
        for (value, color, inset) in [(bar.back, BACK, gap), (bar.front, FRONT, gap + (to - from) / 8)] {
            if value > 0 {
                let corners = [
                    (from + inset, y(value).min(size.bottom() - 2)),
                    ((to - inset).max(from + inset + 2), size.bottom()),
                ];
                area.draw(&Rectangle::new(corners, color.filled()))?;
            }
        }
    }
    for (place, label) in labels(bars, size) {
        let middle = i32::midpoint(x(place), x(place + 1));
        text(&area, size, label, (middle, size.bottom() + size.font / 2), HPos::Center, VPos::Top)?;
    }
    area.present()
}

fn text(area: &Area<'_>, size: Size, text: &str, at: (i32, i32), h: HPos, v: VPos) -> Drawn {
    let style = TextStyle::from(("sans-serif", size.font).into_font()).color(&TEXT).pos(Pos::new(h, v));
    area.draw(&Text::new(text.to_owned(), at, style))
}

/// As many labels as fit, evenly spaced, each with the index of its bar.
fn labels(bars: &[Bar], size: Size) -> impl Iterator<Item = (i64, &str)> {
    let fit = usize::try_from((size.width - size.left()) / (size.font * 6)).unwrap_or(1).max(1);
    let every = bars.len().div_ceil(fit).max(1);
    (0..).zip(bars).skip(every / 2).step_by(every).map(|(place, bar)| (place, bar.label.as_str()))
}

/// Distance of the grid lines: 1, 2 or 5 times a power of ten, so that at most five lines are
/// drawn.
fn tick_step(most: i64) -> i64 {
    let mut decade: i64 = 1;
    loop {
        for step in [1, 2, 5].map(|factor| decade.saturating_mul(factor)) {
            if step.saturating_mul(4) >= most {
                return step;
            }
        }
        decade = decade.saturating_mul(10);
    }
}

/// `length * value / whole`, computed in wider integers so that nothing overflows.
fn scaled(value: i64, whole: i64, length: i32) -> i32 {
    let scaled = i128::from(value.max(0)) * i128::from(length) / i128::from(whole.max(1));
    i32::try_from(scaled).unwrap_or(length)
}

/// Formats `1500` as `1.5k`.
pub(crate) fn short(value: i64) -> String {
    match value {
        0..1_000 => value.to_string(),
        1_000..1_000_000 => tenths(value, 1_000, "k"),
        1_000_000..1_000_000_000 => tenths(value, 1_000_000, "M"),
        1_000_000_000..1_000_000_000_000 => tenths(value, 1_000_000_000, "B"),
        _ => tenths(value, 1_000_000_000_000, "T"),
    }
}

fn tenths(value: i64, unit: i64, name: &str) -> String {
    match (value / unit, value % unit * 10 / unit) {
        (whole, 0) => format!("{whole}{name}"),
        (whole, tenth) => format!("{whole}.{tenth}{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_at_round_numbers() {
        assert_eq!([0, 3, 4, 5, 9, 37, 400, 401].map(tick_step), [1, 1, 1, 2, 5, 10, 100, 200]);
        assert_eq!([0, 950, 1_000, 1_500, 2_000_000].map(short).join(" "), "0 950 1k 1.5k 2M");
        assert_eq!([200_000_000_000, 3_000_000_000_000].map(short).join(" "), "200B 3T");
    }

    #[test]
    fn a_chart_has_no_inline_style_and_has_a_description() {
        let bar =
            Bar { label: "24 Nov".into(), back: 4, front: 2, tooltip: "4 > 2".into(), link: "/carts?a=1&b=2".into() };
        let svg = draw(&[bar], Size::WIDE, "2 < 4", &short);
        assert!(svg.starts_with(r#"<svg class="chart wide" role="group" aria-label="2 &lt; 4""#), "{svg}");
        assert!(svg.contains(r#"href="/carts?a=1&amp;b=2""#) && svg.contains("<title>4 &gt; 2</title>"), "{svg}");
        assert!(!svg.contains("style="), "{svg}");
        assert!(svg.contains("#4F46E5") && svg.contains("24 Nov"), "{svg}");
        assert!(!draw(&[], Size::NARROW, "nothing", &short).is_empty());
    }
}
