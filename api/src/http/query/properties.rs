//! A query string is either understood, or rejected with the name of the invalid parameter.

use axum::{
    extract::FromRequestParts,
    http::{Request, Uri},
};
use chrono::{DateTime, NaiveDate};
use chrono_tz::Tz;
use common::{
    carts::{self, CartStatus},
    timeline,
};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    http::{error::ErrorCode, pagination::Page},
    routes::analytics,
};

const CORPUS: fuzz::Corpus = fuzz::corpus!("queries");

fn parameters(query: &str) -> Option<Result<Parameters, ApiError>> {
    let uri: Uri = format!("/api/carts?{query}").parse().ok()?; // hyper refuses the others
    let (mut parts, ()) = Request::builder().uri(uri).body(()).ok()?.into_parts();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    Some(runtime.block_on(Parameters::from_request_parts(&mut parts, &())))
}

/// Expects 400 with one of the names in its message.
fn parsed_or_named<T>(read: Result<T, ApiError>, names: &[&str]) -> Result<Option<T>, TestCaseError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) => {
            let body = error.body();
            prop_assert_eq!(body.code, ErrorCode::BadRequest);
            prop_assert!(names.iter().any(|name| body.message.contains(name)), "{}", body.message);
            Ok(None)
        }
    }
}

fn hold(query: &str) -> Result<(), TestCaseError> {
    let Some(Ok(parameters)) = parameters(query) else { return Ok(()) };
    if let Some(page) = parsed_or_named(Page::of(&parameters), &["page", "limit"])? {
        prop_assert!(page.number >= 1 && (1..=100).contains(&page.limit) && page.offset() >= 0);
    }
    let status = parameters.parse("status", "a status", |text| text.parse::<CartStatus>().ok());
    parsed_or_named(status, &["status"])?;
    parsed_or_named(
        parameters.parse("cursor", "a cursor", |text| text.parse::<carts::list::Cursor>().ok()),
        &["cursor"],
    )?;
    parsed_or_named(parameters.parse("cursor", "a cursor", |text| text.parse::<timeline::Cursor>().ok()), &["cursor"])?;
    let names = ["period", "startDate", "endDate", "The range"];
    for zone in [Tz::UTC, Tz::Pacific__Apia, Tz::America__New_York] {
        let Some((first, last)) = parsed_or_named(analytics::range(&parameters, DateTime::UNIX_EPOCH, zone), &names)?
        else {
            continue;
        };
        prop_assert!(first <= last && (last - first).num_days() < 3_660, "{first} to {last}");
    }
    parsed_or_named(analytics::currency(&parameters), &["currency"])?;
    for name in ["from", "to"] {
        parsed_or_named(parameters.parse(name, "an instant", date_or_instant), &[name])?;
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_query_is_parsed_or_its_fields_are_named(query in CORPUS.near()) {
        hold(&query)?;
    }

    #[test]
    fn values_come_through_whatever_is_in_them(pairs in vec(("[a-c]{1,2}", any::<String>()), 0..8)) {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
        let parameters = parameters(&query).expect("it is escaped").expect("it can be read");
        for (name, _) in &pairs {
            let last = pairs.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
            prop_assert_eq!(parameters.get(name), last.filter(|value| !value.is_empty()));
        }
    }

    #[test]
    fn days_and_instants_are_parsed_exactly(day in 0..3_000_000_i32, second in 0..86_400_u32, offset in -14..=14_i32) {
        let Some(day) = NaiveDate::from_num_days_from_ce_opt(day) else { return Ok(()) };
        let offset = chrono::FixedOffset::east_opt(offset * 3600).expect("an offset");
        let time = chrono::NaiveTime::from_num_seconds_from_midnight_opt(second, 0).expect("a time");
        let instant = day.and_time(time).and_local_timezone(offset).single().expect("fixed offsets are never ambiguous");
        let written = instant.to_rfc3339();
        // A client that does not escape its plus sends a space.
        for text in [written.clone(), written.replace('+', " ")] {
            let read = date_or_instant(&text);
            let utc = instant.with_timezone(&chrono::Utc);
            let possible = (1..=9999).contains(&chrono::Datelike::year(&utc)) && (0..=9999).contains(&chrono::Datelike::year(&day));
            prop_assert_eq!(read, possible.then_some(utc), "{}", text);
        }
    }
}

#[test]
fn the_corpus_holds() {
    CORPUS.replay(hold);
    // As many as fit into a request line.
    hold(&"page=1&".repeat(8_000)).unwrap();
}
