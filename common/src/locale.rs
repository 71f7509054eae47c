//! Language tags, as shops send them with a cart.

use std::{fmt, str::FromStr};

/// Maximum characters of a tag (RFC 5646, section 4.4.1).
pub const MAX_CHARACTERS: usize = 35;

/// A well-formed BCP 47 language tag, such as `de-AT`, in the case that RFC 5646 recommends.
///
/// Parses either case, and `_` instead of `-`, as WordPress writes `pt_BR`. Does not check that the
/// subtags are registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locale(icu_locale_core::Locale);

/// The text is not a language tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a BCP 47 language tag of at most {MAX_CHARACTERS} characters, such as de-AT")]
pub struct MalformedLocale;

impl Locale {
    /// The language, two or three letters in lower case; `und` if it is unknown.
    pub fn language(&self) -> &str {
        self.0.id.language.as_str()
    }

    /// The script, such as `Hant`.
    pub fn script(&self) -> Option<&str> {
        self.0.id.script.as_ref().map(|script| script.as_str())
    }

    /// The region: two letters in upper case, or three digits.
    pub fn region(&self) -> Option<&str> {
        self.0.id.region.as_ref().map(|region| region.as_str())
    }
}

impl FromStr for Locale {
    type Err = MalformedLocale;

    fn from_str(text: &str) -> Result<Self, MalformedLocale> {
        let tag = text.trim().replace('_', "-");
        let short = tag.len() <= MAX_CHARACTERS;
        let locale = short.then(|| icu_locale_core::Locale::try_from_str(&tag).ok()).flatten();
        locale.map(Self).ok_or(MalformedLocale)
    }
}

impl fmt::Display for Locale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> Option<String> {
        text.parse().ok().map(|locale: Locale| locale.to_string())
    }

    #[test]
    fn tags_are_canonical() {
        for (text, tag) in [
            ("de-AT", "de-AT"),
            ("DE-at", "de-AT"),
            ("pt_BR", "pt-BR"),
            ("de_DE_formal", "de-DE-formal"),
            ("zh-hans-cn", "zh-Hans-CN"),
            ("es-419", "es-419"),
            (" fil ", "fil"),
            ("und", "und"),
            ("sl-rozaj-biske", "sl-biske-rozaj"),
            ("en-US-u-ca-buddhist", "en-US-u-ca-buddhist"),
            ("de-x-formal", "de-x-formal"),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(tag), "{text}");
        }
        let locale: Locale = "zh-Hant-HK".parse().unwrap();
        assert_eq!((locale.language(), locale.script(), locale.region()), ("zh", Some("Hant"), Some("HK")));
    }

    #[test]
    fn other_texts_are_refused() {
        let long = format!("en-{}", "x-abcdefgh-".repeat(3) + "abc");
        for text in
            ["", "d", "de-", "-de", "de--AT", "german", "de AT", "de-AT\0", "dé", "C", "en_US.UTF-8", "*", &long]
        {
            assert_eq!(text.parse::<Locale>(), Err(MalformedLocale), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_tag_is_stored_unchanged(text in "[a-zA-Z]{2,3}([-_][a-zA-Z]{4})?([-_]([a-zA-Z]{2}|[0-9]{3}))?([-_][a-z0-9]{5,8}){0,2}|\\PC{0,40}") {
            if let Some(tag) = canonical(&text) {
                prop_assert!(tag.is_ascii() && tag.len() <= MAX_CHARACTERS, "{}", tag);
                prop_assert_eq!(canonical(&tag), Some(tag));
            }
        }
    }
}
