//! Any spelling of a stored address has the canonical form of the stored one.

use proptest::{prelude::*, sample::select};

use super::*;

const CORPUS: fuzz::Corpus = fuzz::corpus!("emails");

fn hold(text: &str) -> Result<(), TestCaseError> {
    let form = canonical(text);
    prop_assert_eq!(&canonical(&form), &form, "applied twice");
    prop_assert_eq!(&canonical(&format!(" {text}\t")), &form, "white space");
    prop_assert_eq!(&canonical(&text.nfd().collect::<String>()), &form, "NFD");
    prop_assert_eq!(&canonical(&text.nfc().collect::<String>()), &form, "NFC");
    prop_assert_eq!(&canonical(&text.to_ascii_uppercase()), &form, "capitals");
    if let Some(address) = EmailAddress::parse(text) {
        let stored = address.as_str();
        prop_assert_eq!(EmailAddress::parse(stored), Some(address.clone()), "stored unchanged");
        let (local, domain) = stored.rsplit_once('@').expect("an address has a domain");
        prop_assert!(stored.len() <= MAX_OCTETS && local.len() <= MAX_LOCAL_OCTETS, "{}", stored);
        prop_assert!(!stored.chars().any(char::is_control) && stored.trim() == stored, "{:?}", stored);
        let ascii = idna::domain_to_ascii(domain).expect("a valid domain has an ASCII form");
        let (unicode, _) = idna::domain_to_unicode(domain);
        let spellings = [
            stored.to_owned(),
            stored.nfd().collect(),
            stored.chars().map(upper_case).collect(),
            format!("{local}@{ascii}"),
            format!("{local}@{unicode}"),
            format!("{local}@{}", ascii.to_ascii_uppercase()),
        ];
        for spelling in spellings {
            prop_assert_eq!(&canonical(&spelling), &form, "{}", spelling);
        }
    }
    Ok(())
}

/// The letter in upper case if that can be undone.
fn upper_case(letter: char) -> char {
    let single = |mut letters: Box<dyn Iterator<Item = char>>| letters.next().filter(|_| letters.next().is_none());
    let upper = single(Box::new(letter.to_uppercase()));
    upper.filter(|upper| single(Box::new(upper.to_lowercase())) == Some(letter)).unwrap_or(letter)
}

/// Texts that look like addresses.
fn address_like() -> impl Strategy<Value = String> {
    let letters =
        select("aAzZ09.-_+ßẞıİIiéÉe\u{301}σςΣüÜ中\u{212a}ﬁक\u{94d}\u{200d}\u{fe0f}😀".chars().collect::<Vec<char>>());
    let word = proptest::collection::vec(letters, 1..12).prop_map(String::from_iter);
    (any::<bool>(), word.clone(), word.clone(), word).prop_map(|(quoted, local, domain, tld)| {
        if quoted { format!("\"{local} \\\"x\"@{domain}.{tld}") } else { format!("{local}@{domain}.{tld}") }
    })
}

#[test]
fn the_corpus_holds() {
    CORPUS.replay(hold);
}

proptest! {
    #[test]
    fn whatever_looks_like_an_address_has_one_form(text in address_like()) {
        hold(&text)?;
    }

    #[test]
    fn so_has_any_text(text in CORPUS.near()) {
        hold(&text)?;
    }
}
