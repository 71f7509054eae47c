//! Formats numbers, money and times for people.

use crate::http::{base_path::at, pagination::Page};
use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use common::{
    carts::CartStatus,
    money::{Amount, Currency, grouped},
    operations::JobState,
};
use maud::{Markup, html};

/// `1,234,567`
pub(crate) fn count(number: i64) -> String {
    grouped(&number.to_string())
}

/// `1 cart`, `1,234 carts`
pub(crate) fn counted(number: impl std::fmt::Display, one: &str, many: &str) -> String {
    let number = number.to_string();
    format!("{} {}", grouped(&number), if number == "1" { one } else { many })
}

/// `1,234.50`
pub(crate) fn amount(amount: Amount) -> String {
    grouped(&amount.to_string())
}

/// `$1,234.50`, with the code as its title; see [`Currency::format`].
pub(crate) fn money(value: Amount, currency: Currency) -> Markup {
    html! { span.money title=(currency.code().to_ascii_uppercase()) { (currency.format(value)) } }
}

/// `+$4.90`, `−$10.00`: money that is added or taken off.
pub(crate) fn signed_money(value: Amount, currency: Currency) -> Markup {
    html! { @if value.minor() > 0 { "+" } (money(value, currency)) }
}

/// Text of others for plain text such as a title, between U+2068 and U+2069, so that it does not
/// change the direction of what stands beside it. Elements have `bdi` for this.
pub(crate) fn isolated(text: &str) -> String {
    format!("\u{2068}{text}\u{2069}")
}

/// The `mailto:` link of an address, whose local part may have any character.
pub(crate) fn mailto(address: &str) -> String {
    let escaped = |letter: char| match letter {
        '"' | '#' | '%' | '&' | '/' | '?' | '\\' | ' ' => format!("%{:02X}", u32::from(letter)),
        letter => letter.to_string(),
    };
    format!("mailto:{}", address.chars().map(escaped).collect::<String>())
}

/// A `mailto:` link with a subject and a body.
pub(crate) fn mailto_with(address: &str, subject: &str, body: &str) -> String {
    format!("{}?subject={}&body={}", mailto(address), percent_encoded(subject), percent_encoded(body))
}

/// Every byte escaped that RFC 3986 does not list as unreserved.
fn percent_encoded(text: &str) -> String {
    let escaped = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escaped).collect()
}

/// `24 Nov 2026, 09:12`, in `zone`; the title has the seconds and the offset from UTC.
pub(crate) fn instant(at: DateTime<Utc>, zone: Tz) -> Markup {
    let local = at.with_timezone(&zone);
    html! {
        time datetime=(at.to_rfc3339()) title=(local.format("%-d %B %Y, %H:%M:%S %:z")) { (minute(at, zone)) }
    }
}

/// `24 Nov 2026, 09:12`, in `zone`.
pub(crate) fn minute(at: DateTime<Utc>, zone: Tz) -> String {
    at.with_timezone(&zone).format("%-d %b %Y, %H:%M").to_string()
}

/// `24 Nov 2026, 09:12:05`, in `zone`: where the order matters.
pub(crate) fn moment(at: DateTime<Utc>, zone: Tz) -> Markup {
    let local = at.with_timezone(&zone);
    html! {
        time datetime=(at.to_rfc3339()) title=(local.format("%-d %B %Y, %H:%M:%S %:z")) { (local.format("%-d %b %Y, %H:%M:%S")) }
    }
}

/// `2 min ago`, `in 40 s`. The title has the time; the script keeps the text true.
pub(crate) fn relative(at: DateTime<Utc>, now: DateTime<Utc>, zone: Tz) -> Markup {
    let title = at.with_timezone(&zone).format("%-d %B %Y, %H:%M:%S %:z");
    let away = (at - now).num_seconds();
    html! {
        time datetime=(at.to_rfc3339()) title=(title) data-relative {
            @if away > 0 { "in " (seconds(away)) } @else { (seconds(-away)) " ago" }
        }
    }
}

/// A time with seconds, or a dash.
pub(crate) fn maybe_moment(at: Option<DateTime<Utc>>, zone: Tz) -> Markup {
    html! { @match at { Some(at) => (moment(at, zone)), None => span.muted { "–" } } }
}

/// `24 Nov 2026`
pub(crate) fn day(day: NaiveDate) -> String {
    day.format("%-d %b %Y").to_string()
}

/// A time without seconds, or a dash.
pub(crate) fn maybe_instant(at: Option<DateTime<Utc>>, zone: Tz) -> Markup {
    html! { @match at { Some(at) => (instant(at, zone)), None => span.muted { "–" } } }
}

/// A button that copies the text of the element `of`. The script shows it.
pub(crate) fn copy_button(of: &str, what: &str) -> Markup {
    html! { button.link.copy type="button" data-copy=(of) aria-label={ "Copy " (what) } hidden { "Copy" } }
}

/// A short text, such as an id, with a button that copies it.
pub(crate) fn copyable(id: &str, what: &str, text: &Markup) -> Markup {
    html! { span id=(id) { (text) } " " (copy_button(id, what)) }
}

/// A command or an address to copy.
pub(crate) fn command(id: &str, text: &str) -> Markup {
    html! { div.command { pre { code id=(id) { (text) } } (copy_button(id, "this")) } }
}

/// `12 s`, `3 min`, `2 h`, `5 d`: one unit is precise enough.
pub(crate) fn seconds(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// `3 ms`, `1.4 s`, `12 s`, `3 min`: for times that are mostly short.
pub(crate) fn short_time(time: f64) -> String {
    match time {
        ..0.9995 => format!("{:.0} ms", time.max(0.0) * 1_000.0),
        ..9.95 => format!("{time:.1} s"),
        #[expect(clippy::cast_possible_truncation, reason = "a cast of floats saturates, and fractions do not count")]
        time => seconds(time.round() as i64),
    }
}

/// A badge with a cart's status.
pub(crate) fn cart_status(status: CartStatus) -> Markup {
    html! { span class={ "badge " (status.as_str()) } { (capital(status.as_str())) } }
}

/// A badge with a job's state.
pub(crate) fn job_state(state: JobState) -> Markup {
    html! { span class={ "badge " (state.as_str()) } { (capital(state.as_str())) } }
}

/// `create_payment_link` → `Create payment link`
pub(crate) fn capital(name: &str) -> String {
    let words = name.replace('_', " ");
    let mut letters = words.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// Inputs that keep the pairs that have a value in a form.
pub(crate) fn kept(pairs: &[(&str, Option<&str>)]) -> Markup {
    html! {
        @for (name, value) in pairs {
            @if let Some(value) = value { input type="hidden" name=(name) value=(value); }
        }
    }
}

/// A query string of the pairs that have a value; empty if there are none.
pub(crate) fn query(pairs: &[(&str, Option<&str>)]) -> String {
    let mut text = form_urlencoded::Serializer::new(String::new());
    text.extend_pairs(pairs.iter().filter_map(|(name, value)| value.map(|value| (name, value))));
    let text = text.finish();
    if text.is_empty() { text } else { format!("?{text}") }
}

/// Links to the pages of the list of `total` entries at `path`, or of at least so many.
pub(crate) fn pages(path: &str, pairs: &[(&str, Option<&str>)], page: Page, total: i64) -> Markup {
    let (page, last) = (page.number, page.pages(total));
    let to = |page: i64| {
        let page = page.to_string();
        let pairs = [pairs, &[("page", Some(page.as_str()))]].concat();
        at(&format!("{path}{}", query(&pairs)))
    };
    html! {
        @if last > 1 {
            nav.pages aria-label="Pages of this list" {
                @if page > 1 { a.button rel="prev" href=(to((page - 1).min(last))) { "Previous" } }
                ul { @for shown in shown_pages(page, last) { li {
                    @match shown {
                        Some(shown) => { a href=(to(shown)) aria-label={ "Page " (shown) } aria-current=[(shown == page).then_some("page")] { (count(shown)) } }
                        None => { "…" }
                    }
                } } }
                @if page < last { a.button rel="next" href=(to(page + 1)) { "Next" } }
            }
        }
    }
}

/// The pages that are linked: the first and the last, and those around `page`. `None` is a gap.
fn shown_pages(page: i64, last: i64) -> Vec<Option<i64>> {
    let mut shown = Vec::new();
    let mut before = 0;
    for number in (1..=last.min(1))
        .chain((page - 2).max(2)..=page.saturating_add(2).min(last - 1))
        .chain((last > 1).then_some(last))
    {
        if number > before + 1 {
            shown.push(None);
        }
        shown.push(Some(number));
        before = number;
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_local_and_name_their_offset() {
        let at = "2026-11-01T05:30:09.5Z".parse().unwrap();
        assert_eq!(
            instant(at, Tz::America__New_York).0,
            r#"<time datetime="2026-11-01T05:30:09.500+00:00" title="1 November 2026, 01:30:09 -04:00">1 Nov 2026, 01:30</time>"#
        );
        assert!(instant(at, Tz::UTC).0.contains("05:30:09 +00:00"));
    }

    #[test]
    fn texts_of_others_are_isolated_and_escaped() {
        assert_eq!(isolated("a\u{202e}b"), "\u{2068}a\u{202e}b\u{2069}");
        assert_eq!(mailto("\"a b?\"@müller.example"), "mailto:%22a%20b%3F%22@müller.example");
        assert_eq!(mailto("50%@example.com"), "mailto:50%25@example.com");
        assert_eq!(
            mailto_with("a@example.com", "Tea & Co", "https://x/?a=b\r\nü"),
            "mailto:a@example.com?subject=Tea%20%26%20Co&body=https%3A%2F%2Fx%2F%3Fa%3Db%0D%0A%C3%BC"
        );
    }

    #[test]
    fn signed_money_has_a_sign() {
        let signed = |minor| signed_money(Currency::USD.amount(minor), Currency::USD).0;
        assert!(signed(490).starts_with("+<") && signed(490).contains(">$4.90<"));
        assert!(signed(-1_000).contains(">\u{2212}$10.00<") && signed(0).starts_with('<'));
    }

    #[test]
    fn relative_times_name_the_direction() {
        let now: DateTime<Utc> = "2026-11-01T05:30:09Z".parse().unwrap();
        let relative = |seconds| relative(now + chrono::TimeDelta::seconds(seconds), now, Tz::UTC).0;
        assert!(relative(40).contains(">in 40 s<") && relative(0).contains(">0 s ago<"));
        assert!(relative(-150).contains(">2 min ago<") && relative(-150).contains("05:27:39 +00:00"));
    }

    #[test]
    fn the_first_and_the_last_page_are_linked() {
        let shown = |page, last| {
            let pages = shown_pages(page, last).into_iter();
            pages.map(|page| page.map_or("…".to_owned(), |page| page.to_string())).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown(1, 2), "1 2");
        assert_eq!(shown(1, 9), "1 2 3 … 9");
        assert_eq!(shown(5, 9), "1 … 3 4 5 6 7 … 9");
        assert_eq!(shown(9, 9), "1 … 7 8 9");
        assert_eq!(shown(999, 9), "1 … 9");
    }

    #[test]
    fn ages_are_short() {
        assert_eq!([5, 119, 120, 7_200, 400_000].map(seconds).join(", "), "5 s, 119 s, 2 min, 2 h, 4 d");
    }

    #[test]
    fn short_times_have_two_digits() {
        assert_eq!([0.0, 0.0034, 0.9996, 9.96, 300.0].map(short_time).join(", "), "0 ms, 3 ms, 1.0 s, 10 s, 5 min");
    }

    #[test]
    fn queries_are_escaped() {
        assert_eq!(query(&[("q", Some("a&b=ü")), ("page", None)]), "?q=a%26b%3D%C3%BC");
        assert_eq!(query(&[("q", None)]), "");
    }
}
