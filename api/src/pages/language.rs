//! The language of a page: the cart's, or what the browser accepts.

use axum::http::{HeaderMap, header};

/// A language of the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    English,
    German,
    French,
    Spanish,
    Italian,
    Dutch,
    Portuguese,
    Polish,
    Japanese,
    Chinese,
    Arabic,
}

impl Language {
    pub(crate) const ALL: [Self; 11] = [
        Self::English,
        Self::German,
        Self::French,
        Self::Spanish,
        Self::Italian,
        Self::Dutch,
        Self::Portuguese,
        Self::Polish,
        Self::Japanese,
        Self::Chinese,
        Self::Arabic,
    ];

    /// The BCP 47 tag.
    pub(crate) fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::German => "de",
            Self::French => "fr",
            Self::Spanish => "es",
            Self::Italian => "it",
            Self::Dutch => "nl",
            Self::Portuguese => "pt",
            Self::Polish => "pl",
            Self::Japanese => "ja",
            Self::Chinese => "zh",
            Self::Arabic => "ar",
        }
    }

    /// The direction of the text, as the attribute `dir` takes it.
    pub(crate) fn direction(self) -> &'static str {
        if self == Self::Arabic { "rtl" } else { "ltr" }
    }

    /// The language of a tag such as `pt-BR`, whatever the region and the script; `None` if the pages
    /// are not in that language.
    pub(crate) fn of_tag(tag: &str) -> Option<Self> {
        let language = tag.split(['-', '_']).next().unwrap_or_default();
        Self::ALL.into_iter().find(|known| known.tag().eq_ignore_ascii_case(language))
    }

    /// The best of `Accept-Language` (RFC 9110, 12.5.4); `None` if it names none of the pages'.
    pub(crate) fn accepted(headers: &HeaderMap) -> Option<Self> {
        let lines = headers.get_all(header::ACCEPT_LANGUAGE).iter().filter_map(|line| line.to_str().ok());
        let mut ranges: Vec<(u16, &str)> = lines.flat_map(|line| line.split(',')).filter_map(range).collect();
        ranges.sort_by_key(|(quality, _)| std::cmp::Reverse(*quality)); // stable
        let refused =
            |language| ranges.iter().any(|(quality, tag)| *quality == 0 && Self::of_tag(tag) == Some(language));
        ranges.iter().filter(|(quality, _)| *quality > 0).find_map(|(_, tag)| match *tag {
            "*" => Self::ALL.into_iter().find(|language| !refused(*language)),
            tag => Self::of_tag(tag),
        })
    }
}

/// A range with its quality in thousandths; `None` if the quality is malformed.
fn range(text: &str) -> Option<(u16, &str)> {
    let mut parts = text.split(';').map(str::trim);
    let tag = parts.next().filter(|tag| !tag.is_empty())?;
    let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    Some((quality.map_or(Some(1000), thousandths)?, tag))
}

/// `0.8` is 800.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    match whole {
        "1" => Some(1000),
        "0" => format!("{decimals:0<3}").get(..3)?.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(lines: &[&str]) -> Option<&'static str> {
        let headers = lines.iter().map(|line| (header::ACCEPT_LANGUAGE, line.parse().unwrap())).collect();
        Language::accepted(&headers).map(Language::tag)
    }

    #[test]
    fn the_best_accepted_language_is_chosen() {
        for (line, tag) in [
            ("de", "de"),
            ("de-AT,de;q=0.9,en;q=0.8", "de"),
            ("pt-BR", "pt"),
            ("zh-Hant-TW, en;q=0.1", "zh"),
            ("ES_mx", "es"),
            ("en;q=0.8, fr;q=0.9", "fr"),
            ("sv, fi;q=0.9, it;q=0.3, nl;q=0.2", "it"),
            ("pl;q=0.85714,ja;q=0.857", "pl"),
            ("ja;q=1.000 , pl;q=0.999", "ja"),
            ("ar; q=0.5", "ar"),
            ("nl;q=0, *;q=0.5", "en"),
            ("en;q=0, *", "de"),
            ("sv, *", "en"),
            ("fr;q=high, de;q=0.1", "de"),
            (",, fr", "fr"),
        ] {
            assert_eq!(accepted(&[line]), Some(tag), "{line}");
        }
        assert_eq!(accepted(&["sv", "it"]), Some("it"), "several lines are one list");
    }

    #[test]
    fn other_languages_are_none() {
        for line in ["", "sv", "de;q=0", "*;q=0", "q=1", ";", "deutsch", "en-US;q=2", "e"] {
            assert_eq!(accepted(&[line]), None, "{line}");
        }
        assert_eq!(accepted(&[]), None);
    }
}
