//! Only an exact copy of an issued cookie opens a session.

use proptest::prelude::*;
use secrecy::SecretString;

use super::*;

const CORPUS: fuzz::Corpus = fuzz::corpus!("cookies");

fn now() -> DateTime<Utc> {
    "2026-11-24T09:00:00Z".parse().expect("an instant")
}

fn sessions() -> Sessions {
    Sessions::new(&["new", "old"].map(|key| BootstrapKey::new(&SecretString::from(key))))
}

/// Knows no stored key.
fn none(_: Uuid) -> Option<KeyHash> {
    None
}

/// `name=value` of an issued cookie.
fn opened() -> String {
    let cookie = sessions().open(Key::Bootstrap(1), None, true, now()).expect("there is such a key");
    cookie.split(';').next().unwrap_or_default().to_owned()
}

/// Any session that is found is the one that was opened.
fn hold(header: &str, opened: &str) -> Result<(), TestCaseError> {
    let header = header.replace("OPENED", opened).replace("VALUE", opened.split_once('=').map_or("", |pair| pair.1));
    let begun = std::time::Instant::now();
    if let Some(found) = sessions().find(&header, now(), none) {
        let issued = sessions().find(opened, now(), none).expect("it was opened");
        prop_assert_eq!((found.ends_at, &found.form_token), (issued.ends_at, &issued.form_token), "{}", header);
        let value = opened.split_once('=').map_or("", |pair| pair.1);
        prop_assert!(header.contains(value), "{header:?} is not {opened:?}");
    }
    prop_assert!(begun.elapsed().as_secs() < 60);
    Ok(())
}

proptest! {
    #[test]
    fn no_cookie_but_its_own_opens_a_session(header in CORPUS.near()) {
        hold(&header, &opened())?;
    }

    #[test]
    fn a_letter_more_less_or_other_is_another_cookie(at: prop::sample::Index, letter in "[!-~]", change in 0..3) {
        let opened = opened();
        let mut letters: Vec<char> = opened.chars().collect();
        let at = at.index(letters.len());
        let letter = letter.chars().next().expect("one");
        match change {
            0 => { letters.remove(at); }
            1 => letters.insert(at, letter),
            _ => letters[at] = letter,
        }
        hold(&letters.into_iter().collect::<String>(), &opened)?;
    }
}

#[test]
fn the_corpus_holds() {
    let opened = opened();
    CORPUS.replay(|header| hold(header, &opened));
    for header in [opened.clone(), format!("a=b; {opened}; c"), format!("{opened};{opened}")] {
        assert!(sessions().find(&header, now(), none).is_some(), "{header}");
    }
    hold(&"a=b;".repeat(16_000), &opened).unwrap();
    hold(&"=".repeat(64_000), &opened).unwrap();
}
