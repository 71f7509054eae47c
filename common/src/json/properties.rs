//! Every accepted text is JSON, keeps its text, and is read without special keys.

use proptest::prelude::*;

use super::*;

const CORPUS: fuzz::Corpus = fuzz::corpus!("json");

fn hold(text: &str) -> Result<(), TestCaseError> {
    let Ok(value) = parse(text.as_bytes()) else { return Ok(()) };
    prop_assert_eq!(value.get(), text.trim_matches([' ', '\t', '\r', '\n']));
    let spaced = format!(" {text}\n");
    let again = parse(spaced.as_bytes()).expect("white space around it changes nothing");
    prop_assert_eq!(canonical(&again), canonical(&value));
    let kinds = [
        Fields::of(&value).is_some(),
        list(&value).is_some(),
        super::text(&value).is_some(),
        boolean(&value).is_some(),
    ];
    prop_assert!(kinds.iter().filter(|is| **is).count() <= 1, "{kinds:?}");
    prop_assert!(number(&value).is_none() || !kinds.contains(&true));
    if let Some(fields) = Fields::of(&value) {
        for (name, _) in &fields.0 {
            let _ = fields.get(name);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_body_is_refused_or_means_one_thing(text in CORPUS.near()) {
        hold(&text)?;
    }
}

#[test]
fn the_corpus_holds() {
    CORPUS.replay(hold);
}
