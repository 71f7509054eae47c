//! Exported CSV imports as the same carts, cell by cell, and CSV of other programs is read as well.

use chrono::{DateTime, Utc};
use common::{
    carts::{Cart, CartStatus, RecoveredBy},
    money::Currency,
};
use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json, value::RawValue};

use super::*;
use crate::routes::carts::import::lines::{Format, Lines};

fn lines(body: &[u8]) -> Vec<(u64, Result<Value, String>)> {
    let mut lines = Lines::new(Format::Csv);
    lines.feed(body);
    let mut read = Vec::new();
    while let Some(line) = lines.next(true).expect("a good header") {
        let content = line.content.map(|json| serde_json::from_str(json.get()).expect("it is JSON"));
        read.push((line.number, content.map_err(|error| error.body().message.to_owned())));
    }
    read
}

/// Names as people choose them, including malicious ones.
fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => "[!-~]([ -~]{0,20}[!-~])?",
        1 => "'{0,3}[=+@-][ -~]{0,10}",
        1 => "[^\\x00]{1,20}",
        2 => "[\",;|\t\r\n'=+＝x]{1,10}",
    ]
}

fn exported(name: &str, external_id: Option<&str>, items: Value) -> Cart {
    let at: DateTime<Utc> = "2026-03-01T12:00:00.123456Z".parse().expect("an instant");
    Cart {
        id: "cart_1".to_owned(),
        external_id: external_id.map(str::to_owned),
        customer_email: "ada@example.com".to_owned(),
        customer_name: Some(name.to_owned()),
        items: RawValue::from_string(items.to_string()).expect("it is JSON"),
        adjustments: RawValue::from_string("[]".to_owned()).expect("it is JSON"),
        total_value: Currency::USD.amount(1),
        currency: Currency::USD,
        status: CartStatus::Recovered,
        recovered_by: Some(RecoveredBy::Import),
        paid_value: None,
        refunded_value: None,
        locale: None,
        accepts_marketing: None,
        metadata: RawValue::from_string("{}".to_owned()).expect("it is JSON"),
        abandoned_at: at,
        recovered_at: Some(at),
        expired_at: None,
        payment_link: None,
        payment_link_expires_at: None,
        created_at: at,
        updated_at: at,
    }
}

proptest! {
    #[test]
    fn an_export_is_imported_unchanged(carts in vec((names(), proptest::option::of("[ -~]{1,20}")), 1..6), word in names()) {
        let items = json!([{"name": word, "quantity": 1, "price": 0.01}]);
        let export = |(name, id): &(String, Option<String>)| exported(name, id.as_deref(), items.clone());
        let mut file = header();
        file.extend(records(&carts.iter().map(export).collect::<Vec<_>>()));
        let read = lines(&file);
        prop_assert_eq!(read.len(), carts.len());
        for ((name, external_id), (_, line)) in carts.iter().zip(read) {
            let line = line.map_err(TestCaseError::fail)?;
            prop_assert_eq!(line["customerName"].as_str(), Some(name.as_str()));
            prop_assert_eq!(line.get("externalId").and_then(Value::as_str), external_id.as_deref());
            prop_assert_eq!(&line["items"], &items);
            prop_assert_eq!(&line["status"], "recovered");
            prop_assert_eq!(&line["abandonedAt"], "2026-03-01T12:00:00.123456Z");
        }
    }

    /// No cell with a shopper's text begins like a formula, whatever separates the cells.
    #[test]
    fn no_cell_is_a_formula(name in names(), item in names()) {
        let items = json!([{"name": item, "quantity": 1, "price": 1}]);
        let out = records(&[exported(&name, Some(&name), items)]);
        let written = String::from_utf8(out).expect("UTF-8");
        for separator in [';', '\t', '|', '\n'] {
            for cell in written.split([separator, '\r', '\n']) {
                let cell = cell.trim_start_matches('"');
                prop_assert!(!cell.starts_with(formulas::BEGINS_FORMULA), "{cell} of {written}");
            }
        }
    }

    /// Files of other programs: any quoting, separator and line ending, columns in any order.
    #[test]
    fn other_csv_dialects_are_read_correctly(
        rows in vec((names(), names()), 1..6),
        quoting in proptest::sample::select(vec![csv::QuoteStyle::Always, csv::QuoteStyle::Necessary, csv::QuoteStyle::NonNumeric]),
        separator in proptest::sample::select(vec![b',', b';', b'\t']),
        windows: bool,
        columns in Just(vec!["customerEmail", "customerName", "items", "unknownFieldOfATest"]).prop_shuffle(),
    ) {
        let end = if windows { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') };
        let mut writer = csv::WriterBuilder::new()
            .delimiter(separator)
            .quote_style(quoting)
            .terminator(end)
            .from_writer(Vec::new());
        writer.write_record(&columns).expect("memory takes it");
        for (name, other) in &rows {
            let cell = |column: &&str| match *column {
                "customerEmail" => "ada@example.com",
                "customerName" => name,
                "items" => "[]",
                _ => other,
            };
            writer.write_record(columns.iter().map(cell)).expect("memory takes it");
        }
        let read = lines(&writer.into_inner().expect("memory takes it"));
        prop_assert_eq!(read.len(), rows.len());
        for ((name, _), (_, line)) in rows.iter().zip(read) {
            let line = line.map_err(TestCaseError::fail)?;
            prop_assert_eq!(line["customerName"].as_str(), Some(&*formulas::restored(name)));
        }
    }
}
