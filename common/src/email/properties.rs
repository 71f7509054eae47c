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
        prop_assert_eq!(&address.canonical(), &form);
        prop_assert!(address.as_str().trim() == address.as_str());
        let domain = form.rsplit_once('@').map(|(_, domain)| domain).unwrap_or_default();
        // A domain that UTS 46 rejects stays as it is written.
        let (unicode, valid) = idna::domain_to_unicode(domain);
        if valid.is_ok() && domain.is_ascii() {
            let other = form.replace(domain, &unicode);
            prop_assert_eq!(&canonical(&other), &form, "Unicode domain");
        }
    }
    Ok(())
}

/// Texts that look like addresses.
fn address_like() -> impl Strategy<Value = String> {
    let letters = select("aAzZ09.-_+ßẞıİIiéÉe\u{301}σςΣüÜ中\u{212a}ﬁ".chars().collect::<Vec<char>>());
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
