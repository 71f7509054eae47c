//! Value parsers of environment variables. Their error is what a message shows as the value.

use std::{str::FromStr, time::Duration};

use url::Url;

/// The accepted durations, for messages; see [`parse_duration`].
pub const DURATION: &str = "a duration such as 30s, 10m or 7d, from 1ms to 100 years";
/// The shortest duration; a shorter one would round to zero.
const SHORTEST: Duration = Duration::from_millis(1);
/// The longest duration, a hundred years: sums of times stay within the range of Postgres and
/// chrono.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A value for which `parse` returns something.
pub fn value<T>(parse: impl Fn(&str) -> Option<T> + Clone) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| parse(text).ok_or_else(|| shown(text))
}

/// A value of a type that reads itself.
pub fn parsed<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| shown(text))
}

/// A text that `fits`.
pub fn text(fits: impl Fn(&str) -> bool + Clone) -> impl Fn(&str) -> Result<String, String> + Clone {
    value(move |text| fits(text).then(|| text.to_owned()))
}

/// Values separated by commas, at least one. Only the default may be empty.
pub fn list<T>(parse: impl Fn(&str) -> Option<T> + Clone) -> impl Fn(&str) -> Result<Vec<T>, String> + Clone {
    move |text| {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let values: Vec<T> = parts.map(|part| parse(part).ok_or_else(|| shown(part))).collect::<Result<_, _>>()?;
        if values.is_empty() && !text.is_empty() { Err(shown(text)) } else { Ok(values) }
    }
}

/// A secret, which no message repeats.
pub fn redacted<T>(parse: impl Fn(&str) -> Result<T, String> + Clone) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| parse(text).map_err(|_| "malformed".to_owned())
}

/// Parses a duration such as `30s`, `10m` or `7d`. `None` unless it is from 1 ms to 100 years.
pub fn parse_duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok().filter(|duration| (SHORTEST..=LONGEST).contains(duration))
}

/// An `http://` or `https://` address, returned without a trailing slash. `None` if it has a user, a
/// password, a query or a fragment.
pub fn web_address(text: &str) -> Option<String> {
    let after = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
    // The URL standard repairs these characters; other parsers may not.
    let repaired = |c: char| c.is_whitespace() || c.is_control() || "\\\"<>`{}|^\u{fffd}".contains(c);
    if after.starts_with('/') || after.contains(repaired) {
        return None;
    }
    let url = Url::parse(text).ok()?;
    let plain = url.username().is_empty() && url.password().is_none() && has_plain_host(&url);
    (plain && url.query().is_none() && url.fragment().is_none()).then(|| text.trim_end_matches('/').to_owned())
}

/// Whether `text` can be sent in a header: visible ASCII.
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether the host is an IP address or consists of valid DNS labels. The URL standard also allows
/// `https://shop..example` and `https://"`.
pub fn has_plain_host(url: &Url) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    url.domain().is_none_or(|domain| domain.split('.').all(|label| !label.is_empty() && label.bytes().all(plain)))
}

/// The value in quotes, at most 100 characters of it.
fn shown(value: &str) -> String {
    // The part of an address before an `@` may be a password.
    if value.contains('@') {
        return "malformed".to_owned();
    }
    let shown: String = value.chars().take(100).collect();
    let more = if shown.len() < value.len() { "…" } else { "" };
    format!("{shown:?}{more}")
}
