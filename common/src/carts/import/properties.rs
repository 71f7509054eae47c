//! Every line of an import is either refused or a cart with a consistent history.

use proptest::prelude::*;

use super::*;
use crate::carts::new::{COMPUTED, EXTERNAL_ID_CHARACTERS};

const CORPUS: fuzz::Corpus = fuzz::corpus!("carts");

fn hold(text: &str) -> Result<(), TestCaseError> {
    let Ok(line) = json::parse(text.as_bytes()) else { return Ok(()) };
    let now: DateTime<Utc> = "2026-03-01T12:00:00Z".parse().expect("an instant");
    let of_cart = ParsedCart::parse(&line, Currency::USD, now);
    match parse(&line, Currency::USD, now) {
        Err(errors) => prop_assert!(!errors.is_empty() && errors.iter().all(|error| !error.message.is_empty())),
        Ok(import) => {
            let at = |status| (import.status == status).then_some(());
            prop_assert_eq!(import.recovered_at.map(|_| ()), at(CartStatus::Recovered));
            prop_assert_eq!(import.expired_at.map(|_| ()), at(CartStatus::Expired));
            for moment in [import.recovered_at, import.expired_at].into_iter().flatten() {
                prop_assert!((import.abandoned_at..=now).contains(&moment), "{moment}");
            }
            if let Some(id) = &import.external_id {
                prop_assert!((1..=EXTERNAL_ID_CHARACTERS).contains(&id.chars().count()) && !id.contains('\0'));
            }
            // `POST /api/carts` accepts the same line, unless it has fields that only an import sets.
            if !["status", "recoveredAt", "expiredAt"].iter().chain(&COMPUTED).any(|name| line_has(&line, name)) {
                let cart = of_cart.map_err(|errors| TestCaseError::fail(format!("{errors:?}")))?;
                prop_assert_eq!(cart.cart.items.get(), import.items.get());
            }
        }
    }
    Ok(())
}

fn line_has(line: &RawValue, name: &str) -> bool {
    Fields::of(line).is_some_and(|fields| fields.has(name))
}

proptest! {
    #[test]
    fn a_line_has_a_history_that_can_have_happened(text in CORPUS.near()) {
        hold(&text)?;
    }
}

#[test]
fn the_corpus_holds() {
    CORPUS.replay(hold);
}
