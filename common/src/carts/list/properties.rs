//! Cursors and ids: issued ones survive a round trip, and no other text does harm.

use proptest::prelude::*;

use super::{Cursor, SortValue};
use crate::{carts::CartId, timeline};

/// Every text that is accepted can be sent to Postgres.
fn hold(text: &str) -> Result<(), TestCaseError> {
    if let Ok(cursor) = text.parse::<Cursor>() {
        prop_assert_eq!(cursor.to_string().parse(), Ok(cursor.clone()));
        let (value, id) = cursor.into_parts();
        prop_assert!(!id.is_empty() && !id.contains('\0'));
        if let SortValue::Created(at) | SortValue::Abandoned(at) | SortValue::Recovered(Some(at)) = value {
            prop_assert!((1..=9999).contains(&chrono::Datelike::year(&at)));
        }
    }
    if let Ok(cursor) = text.parse::<timeline::Cursor>() {
        prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
    }
    if let Ok(id) = text.parse::<CartId>() {
        prop_assert_eq!(id.as_str(), text);
        prop_assert!(text.is_ascii() && text.len() <= 105 && !text.contains(['/', '.', '%', '\0', ' ']));
    }
    Ok(())
}

proptest! {
    #[test]
    fn accepted_cursors_survive_a_round_trip(text in fuzz::corpus!("cursors").near()) {
        hold(&text)?;
    }

    #[test]
    fn returned_cursors_are_accepted(micros in -62_135_596_800_000_000..253_402_300_800_000_000_i64, id in "cart_[a-z0-9_-]{1,100}", place: i64) {
        let cursor: Cursor = format!("{micros}-{id}").parse().expect("a cursor of the list");
        prop_assert_eq!(cursor.to_string(), format!("{micros}-{id}"));
        for text in [format!("a{micros}-{id}"), format!("r{micros}-{id}"), format!("v{place}-{id}"), format!("n-{id}")] {
            let cursor: Cursor = text.parse().expect("a cursor of another order");
            prop_assert_eq!(cursor.to_string(), text);
        }
        let place = place.saturating_abs();
        let cursor: timeline::Cursor = format!("{micros}-{place}").parse().expect("a cursor of a timeline");
        prop_assert_eq!(cursor.to_string(), format!("{micros}-{place}"));
        prop_assert!(id.parse::<CartId>().is_ok());
    }
}

#[test]
fn the_corpus_holds() {
    fuzz::corpus!("cursors").replay(hold);
    let generated = CartId::generate();
    assert_eq!(generated.as_str().parse(), Ok(generated.clone()));
}
