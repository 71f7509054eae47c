//! `Accept` selects the format; CSV only if it is named.

use proptest::prelude::*;

use super::*;

fn format(accept: &str) -> Format {
    accepted(&HeaderMap::from_iter([(header::ACCEPT, accept.parse().expect("a good header"))]))
}

fn hold(accept: &str) -> Result<(), TestCaseError> {
    let chosen = format(accept);
    if chosen == Format::Csv {
        prop_assert!(accept.to_ascii_lowercase().replace('-', "").contains("csv"), "{accept:?}");
        prop_assert_eq!(format(&format!("{accept}, application/x-ndjson")), Format::Csv, "{:?}", accept);
    }
    // A supported type before the others decides; parameters, case and white space do not.
    prop_assert_eq!(format(&format!("text/csv, {accept}")), Format::Csv, "{:?}", accept);
    prop_assert_eq!(format(&format!("application/x-ndjson;q=0.1,{accept}")), Format::Ndjson, "{:?}", accept);
    prop_assert_eq!(format(&format!(" image/png , {}", accept.to_ascii_uppercase())), chosen, "{:?}", accept);
    Ok(())
}

proptest! {
    #[test]
    fn csv_is_sent_only_on_request(accept in fuzz::corpus!("media_types").near_header()) {
        hold(&accept)?;
    }

    #[test]
    fn the_first_that_there_is(
        unknown in "([a-z]{1,8}/[a-z]{1,2}, ?){0,4}", csv_first: bool, parameters in "(;q=0\\.[1-9])?", rest in "(, ?[a-z]{1,5}/[a-z]{1,2}){0,3}",
    ) {
        let both = if csv_first { ["text/csv", "application/x-ndjson"] } else { ["application/jsonl", "text/csv"] };
        let accept = format!("{unknown}{}{parameters}, {}{rest}", both[0], both[1]);
        prop_assert_eq!(format(&accept) == Format::Csv, csv_first, "{}", accept);
    }
}

#[test]
fn the_corpus_holds() {
    fuzz::corpus!("media_types").replay(hold);
    hold(&"text/csv,".repeat(6_000)).unwrap();
    hold(&"a/b;c,".repeat(6_000)).unwrap();
}
