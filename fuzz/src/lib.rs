//! Inputs for parsers of untrusted input.
//!
//! Random text rarely gets past the first comma of a parser. So each parser has a corpus,
//! `fuzz/corpus/*.jsonl`: inputs that are valid, almost valid, or that once broke it, each line a
//! JSON string. Every run checks a property for all of them and for edited copies. This crate is
//! independent of the product; `CONTRIBUTING.md` has commands for longer runs.

#![allow(clippy::disallowed_types, reason = "it reads no untrusted input")]

mod edits;

use proptest::{
    prelude::*,
    test_runner::{TestCaseError, TestCaseResult},
};

/// The inputs of one parser.
#[derive(Debug, Clone, Copy)]
pub struct Corpus(&'static str);

/// The corpus in `fuzz/corpus/<name>.jsonl`.
#[macro_export]
macro_rules! corpus {
    ($name:literal) => {
        $crate::Corpus::of(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/", $name, ".jsonl")))
    };
}

impl Corpus {
    /// A corpus with the content of a file.
    pub const fn of(content: &'static str) -> Self {
        Self(content)
    }

    /// All inputs.
    ///
    /// # Panics
    /// If a line is not a JSON string, or the corpus is empty.
    pub fn seeds(self) -> Vec<String> {
        let lines = self.0.lines().filter(|line| !line.trim().is_empty());
        let seed = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let seeds: Vec<String> = lines.map(seed).collect();
        assert!(!seeds.is_empty(), "a corpus has inputs");
        seeds
    }

    /// Checks a property for all inputs.
    ///
    /// # Panics
    /// If the property fails.
    pub fn replay(self, property: impl Fn(&str) -> TestCaseResult) {
        for seed in self.seeds() {
            match property(&seed) {
                Ok(()) | Err(TestCaseError::Reject(_)) => {}
                Err(TestCaseError::Fail(why)) => panic!("{why}\nof {seed:?}"),
            }
        }
    }

    /// A strategy for edited inputs, and sometimes any text.
    pub fn near(self) -> impl Strategy<Value = String> {
        let seeds = self.seeds();
        prop_oneof![
            1 => any::<String>(),
            15 => edits::edited(seeds).prop_map(|characters| characters.into_iter().collect()),
        ]
    }

    /// A strategy for edited inputs that are valid values of an HTTP header.
    pub fn near_header(self) -> impl Strategy<Value = String> {
        self.near().prop_map(|text| text.chars().filter(|c| (' '..='~').contains(c)).collect())
    }

    /// A strategy for edited inputs as bytes, not always valid UTF-8.
    pub fn near_bytes(self) -> impl Strategy<Value = Vec<u8>> {
        let foreign = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
        let text = prop_oneof![1 => any::<String>().boxed(), 15 => self.near().boxed()];
        (text, foreign).prop_map(|(text, foreign)| {
            let mut bytes = text.into_bytes();
            for (place, byte) in foreign {
                let place = place.index(bytes.len() + 1);
                bytes.insert(place, byte);
            }
            bytes
        })
    }
}

/// Splits the bytes into pieces, like a network.
pub fn pieces<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect()
}

/// A strategy for the places to split.
pub fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    proptest::collection::vec(any::<prop::sample::Index>(), 0..12)
}

#[cfg(test)]
mod tests {
    use proptest::strategy::ValueTree;

    use super::*;

    #[test]
    fn pieces_are_the_whole() {
        proptest!(|(bytes: Vec<u8>, cuts in cuts())| {
            prop_assert_eq!(pieces(&bytes, &cuts).concat(), bytes);
        });
    }

    #[test]
    fn edited_inputs_mostly_differ_from_their_seed() {
        let corpus = Corpus::of("\"a=1&b=2\"\n\n\"x\"\n");
        assert_eq!(corpus.seeds(), ["a=1&b=2", "x"]);
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let near: Vec<String> =
            (0..500).map(|_| corpus.near().new_tree(&mut runner).expect("it makes one").current()).collect();
        let seeds = near.iter().filter(|text| corpus.seeds().contains(text)).count();
        assert!((20..400).contains(&seeds), "{seeds}");
        assert!(near.iter().any(|text| text.contains("=1") && text.len() > 7));
    }

    #[test]
    #[should_panic(expected = "of \"x\"")]
    fn a_failing_seed_is_reported() {
        Corpus::of("\"a\"\n\"x\"").replay(|text| {
            prop_assert!(text != "x");
            Ok(())
        });
    }
}
