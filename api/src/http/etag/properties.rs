//! A list matches only if it contains the tag.

use proptest::{collection::vec, prelude::*};

use super::*;

const CORPUS: fuzz::Corpus = fuzz::corpus!("tags");

fn own() -> ETag {
    ETag::of(b"a cart")
}

fn known(list: &str) -> Option<HeaderValue> {
    let value = HeaderValue::from_str(list).ok()?;
    IfNoneMatch(Lists(vec![value])).known(&own())
}

fn hold(list: &str) -> Result<(), TestCaseError> {
    let own = own();
    let list = list.replace("OWN", &own.0);
    if let Some(known) = known(&list) {
        let any = list.trim_matches([' ', '\t']) == "*";
        prop_assert!(any || list.contains(&own.0), "{list:?}");
        let text = known.to_str().map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert!(text.starts_with(&format!("\"{}", own.0)) && text.ends_with('"'), "{text}");
    }
    // `If-Match` needs a strong tag, so every list that passes it also matches `If-None-Match`.
    if let Ok(value) = HeaderValue::from_str(&list)
        && IfMatch(Lists(vec![value])).check(b"a cart").is_ok()
    {
        prop_assert!(known(&list).is_some());
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_list_is_understood_or_of_no_use(list in CORPUS.near()) {
        hold(&list)?;
    }

    #[test]
    fn the_tag_is_found_among_others(before in vec("(W/)?\"[!#-+.-~]{0,20}\"", 0..4), after in vec("\"[!#-+.-~]{0,20}\"", 0..4), weak: bool) {
        let own = format!("{}\"{}\"", if weak { "W/" } else { "" }, own().0);
        let list = before.iter().chain([&own]).chain(&after).cloned().collect::<Vec<_>>().join(", ");
        prop_assert!(known(&list).is_some(), "{list}");
        let others = before.iter().chain(&after).cloned().collect::<Vec<_>>().join(", ");
        prop_assert!(known(&others).is_none(), "{others}");
    }
}

#[test]
fn the_corpus_holds() {
    CORPUS.replay(hold);
    hold(&"\"OWN,".repeat(3_000)).unwrap();
}
