//! The `Prefer` header (RFC 7240).

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue},
    response::Response,
};

pub(crate) const PREFER: HeaderName = HeaderName::from_static("prefer");
pub(crate) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// Asks to refuse unknown fields instead of ignoring them.
pub(crate) const STRICT: &str = "handling=strict";

/// The preferences of a request: names in lower case with their values, without parameters.
#[derive(Debug)]
pub(crate) struct Preferences(Vec<(String, String)>);

impl Preferences {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut preferences = Vec::new();
        for header in headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok()) {
            for preference in header.split(unquoted(',')) {
                let without_parameters = preference.split(unquoted(';')).next().unwrap_or_default();
                let (name, value) = without_parameters.split_once('=').unwrap_or((without_parameters, ""));
                preferences.push((name.trim().to_ascii_lowercase(), value.trim().trim_matches('"').to_owned()));
            }
        }
        Self(preferences)
    }

    /// The value of a preference, empty if it has none. The first one of several counts.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// Whether unknown fields of the body are to be refused.
    pub(crate) fn is_strict(&self) -> bool {
        self.get("handling").is_some_and(|handling| handling.eq_ignore_ascii_case("strict"))
    }
}

/// Finds `separator` outside of quotes.
fn unquoted(separator: char) -> impl FnMut(char) -> bool {
    let mut is_quoted = false;
    move |c| {
        is_quoted ^= c == '"';
        c == separator && !is_quoted
    }
}

/// Adds a preference to those that `Preference-Applied` lists.
pub(crate) fn applied(response: &mut Response, preference: &str) {
    let headers = response.headers_mut();
    let all = match headers.get(PREFERENCE_APPLIED).and_then(|value| value.to_str().ok()) {
        Some(others) => format!("{others}, {preference}"),
        None => preference.to_owned(),
    };
    if let Ok(all) = HeaderValue::from_str(&all) {
        headers.insert(PREFERENCE_APPLIED, all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&'static str]) -> Preferences {
        Preferences::of(&values.iter().map(|value| (PREFER, HeaderValue::from_static(value))).collect())
    }

    #[test]
    fn preferences_are_read_by_rfc_7240() {
        let preferences = of(&["Respond-Async, wait=\"3\"; a=1 , wait=5", "foo; bar=\"x, handling=strict\"", ",;="]);
        assert_eq!(preferences.get("respond-async"), Some(""));
        assert_eq!((preferences.get("wait"), preferences.get("foo")), (Some("3"), Some("")));
        assert!(!preferences.is_strict(), "it is within quotes");
        for strict in ["handling=strict", "a, HANDLING = \"Strict\"", "handling=strict;x"] {
            assert!(of(&[strict]).is_strict(), "{strict}");
        }
        assert!(!of(&["handling=lenient, handling=strict"]).is_strict(), "the first one counts");
        assert!(!of(&["handling", "strict"]).is_strict());
    }

    #[test]
    fn applied_preferences_are_listed() {
        let mut response = Response::default();
        applied(&mut response, "return=minimal");
        applied(&mut response, STRICT);
        assert_eq!(response.headers()[PREFERENCE_APPLIED], "return=minimal, handling=strict");
    }
}
