//! Text to find in carts: case and accents do not count, nor the form of a domain.

use std::{collections::BTreeSet, str::FromStr};

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

use crate::email;

/// The minimum number of characters to search for. One letter would find nearly every cart.
pub const MIN_CHARACTERS: usize = 2;
/// The maximum number of characters to search for.
pub const MAX_CHARACTERS: usize = 254;

/// Text to search for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TextToFind {
    given: String,
    folded: String,
}

/// The text can't be searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must have 2 to 254 characters")]
pub struct NoText;

impl FromStr for TextToFind {
    type Err = NoText;

    fn from_str(text: &str) -> Result<Self, NoText> {
        let given = text.trim();
        let folded = fold(given);
        let long_enough = folded.chars().count() >= MIN_CHARACTERS && given.chars().count() <= MAX_CHARACTERS;
        long_enough.then(|| Self { given: given.to_owned(), folded }).ok_or(NoText)
    }
}

impl TextToFind {
    /// The text as it was sent, trimmed.
    pub fn as_str(&self) -> &str {
        &self.given
    }

    pub(crate) fn folded(&self) -> &str {
        &self.folded
    }

    /// What every folded text has that contains this one.
    pub(crate) fn grams(&self) -> Vec<i32> {
        grams(&self.folded)
    }

    /// Whether the cart with these values is found.
    pub(crate) fn is_in(&self, folded: &str) -> bool {
        folded.contains(&self.folded)
    }
}

/// The text by which a cart is found: its name, the shop's id, and the address as it is stored and in its other forms.
pub(super) fn of_cart(name: Option<&str>, email: &str, external_id: Option<&str>) -> String {
    let canonical = email::canonical(email);
    let readable = match canonical.rsplit_once('@') {
        Some((local, domain)) => format!("{local}@{}", idna::domain_to_unicode(domain).0),
        None => canonical.clone(),
    };
    let mut parts: Vec<String> = Vec::new();
    for part in [name, external_id, Some(email), Some(&canonical), Some(&readable)].into_iter().flatten().map(fold) {
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    parts.join("\n") // no folded text has a line break
}

/// Folds text: lower case, without marks and accents, compatible characters as one (full width, ligatures), white space
/// as one blank.
fn fold(text: &str) -> String {
    let plain: String = text.nfkd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase).nfkc().collect();
    // Letters whose upper case is that of others: ΣΊΣΥΦΟΣ and Σίσυφος, STRASSE and Straße, IŞIK and Işık.
    let plain = plain.replace('ς', "σ").replace('ß', "ss").replace('ı', "i");
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A number for each two consecutive characters, in order, without repetitions. Different pairs may share one,
/// so a match is confirmed by the text.
pub(super) fn grams(folded: &str) -> Vec<i32> {
    let pairs = folded.chars().zip(folded.chars().skip(1));
    let grams: BTreeSet<i32> = pairs
        .filter(|(one, other)| *one != '\n' && *other != '\n')
        .map(|(one, other)| u32::from(one).wrapping_mul(0x9e37_79b1).wrapping_add(u32::from(other)).cast_signed())
        .collect();
    grams.into_iter().collect()
}

/// A gram for the currency, stored beside those of the text so that the index finds rare currencies. It may equal a gram
/// of a text, so a match is confirmed by the column.
pub(crate) fn currency_gram(code: &str) -> i32 {
    code.bytes().fold(-1, |gram, byte| (gram << 8) | i32::from(byte))
}

/// The gram of recovered carts; confirmed by the column, too.
pub(crate) const RECOVERED: i32 = -2;
/// The gram of carts whose payment link failed; confirmed by the column, too.
pub(crate) const LINK_FAILED: i32 = -3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_accents_and_forms_do_not_count() {
        let cart = of_cart(Some("Zoë  MÜLLER"), "Zoe@xn--mnchen-3ya.example", Some("Order #1001"));
        for text in
            ["zoe", "ZOË M", "müller", "muller", "ｍｕｌｌｅｒ", "oe@mün", "@MÜNCHEN.example", "#1001", "er #10"]
        {
            assert!(text.parse::<TextToFind>().unwrap().is_in(&cart), "{text} in {cart}");
        }
        let other = of_cart(Some("Γιώργος Işık"), "a@example.com", Some("Große Straße"));
        for text in ["ΓΙΏΡΓΟΣ", "γιωργος", "IŞIK", "isik", "ışık", "STRASSE", "straße", "ẞE"] {
            assert!(text.parse::<TextToFind>().unwrap().is_in(&other), "{text} in {other}");
        }
        for text in ["miller", "r zoe", "1002"] {
            assert!(!text.parse::<TextToFind>().unwrap().is_in(&cart), "{text} in {cart}");
        }
    }

    #[test]
    fn two_characters_are_enough() {
        assert_eq!("a".parse::<TextToFind>(), Err(NoText));
        assert_eq!(" \u{301}\u{301} ".parse::<TextToFind>(), Err(NoText));
        assert!("芳王".parse::<TextToFind>().is_ok());
        assert_eq!("x".repeat(255).parse::<TextToFind>(), Err(NoText));
    }

    #[test]
    fn a_cart_has_the_grams_of_each_part_of_its_text() {
        let cart = of_cart(Some("王芳 Lee"), "fang@example.com", None);
        let has = grams(&cart);
        for text in ["王芳", "芳 l", "ng@ex", "example.com"] {
            assert!(text.parse::<TextToFind>().unwrap().grams().iter().all(|gram| has.contains(gram)), "{text}");
        }
    }
}
