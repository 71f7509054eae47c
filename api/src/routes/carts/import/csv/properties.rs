//! Exported CSV imports as the same carts, cell by cell, and CSV of other programs is read as well.

use chrono::{DateTime, Utc};
use common::{
    carts::{Cart, RecoveredBy, import},
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
        assert_eq!(line.errors, []);
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

/// The fields of a cart that shoppers and shops write.
#[derive(Debug)]
struct Written {
    name: Option<String>,
    external_id: Option<String>,
    locale: Option<String>,
    accepts_marketing: Option<bool>,
    items: Value,
    adjustments: Value,
    metadata: Value,
}

fn written() -> impl Strategy<Value = Written> {
    use proptest::option::of;

    let ids = (of(names()), of("[ -~]{1,20}"), of("[a-z]{2}(-[A-Z]{2})?"), of(any::<bool>()));
    (ids, names(), vec((names(), -99_i64..99), 0..3), vec((names(), names()), 0..3)).prop_map(
        |((name, external_id, locale, accepts_marketing), item, adjustments, metadata)| Written {
            name,
            external_id,
            locale,
            accepts_marketing,
            items: json!([{"name": item, "quantity": 1, "price": 0.01, "sku": item}]),
            adjustments: adjustments
                .into_iter()
                .map(|(name, amount)| json!({"name": name, "amount": amount}))
                .collect(),
            metadata: Value::Object(metadata.into_iter().map(|(key, text)| (key, json!(text))).collect()),
        },
    )
}

fn exported(written: &Written) -> Cart {
    const AT: &str = "2026-03-01T12:00:00.123456Z";
    let raw = |value: &Value| RawValue::from_string(value.to_string()).expect("it is JSON");
    let line = raw(&json!({
        "customerEmail": "ada@example.com", "items": [{"name": "Teapot", "quantity": 1, "price": 0}], "status": "recovered",
        "abandonedAt": AT, "recoveredAt": AT,
    }));
    let now: DateTime<Utc> = AT.parse().expect("an instant");
    Cart {
        external_id: written.external_id.clone(),
        customer_name: written.name.clone(),
        items: raw(&written.items),
        adjustments: raw(&written.adjustments),
        total_value: Currency::USD.amount(1),
        recovered_by: Some(RecoveredBy::Import),
        paid_value: Some(Currency::USD.amount(1)),
        locale: written.locale.clone(),
        accepts_marketing: written.accepts_marketing,
        metadata: raw(&written.metadata),
        ..import::parse(&line, Currency::USD, now).expect("a good line")
    }
}

proptest! {
    #[test]
    fn an_export_is_imported_unchanged(carts in vec(written(), 1..6)) {
        let mut file = header();
        file.extend(records(&carts.iter().map(exported).collect::<Vec<_>>()));
        let read = lines(&file);
        prop_assert_eq!(read.len(), carts.len());
        for (cart, (_, line)) in carts.iter().zip(read) {
            let mut expected = json!({
                "customerEmail": "ada@example.com", "items": cart.items, "adjustments": cart.adjustments,
                "totalValue": serde_json::from_str::<Value>("0.01").expect("JSON"), "currency": "usd", "status": "recovered",
                "metadata": cart.metadata, "abandonedAt": "2026-03-01T12:00:00.123456Z",
                "recoveredAt": "2026-03-01T12:00:00.123456Z",
            });
            for (field, text) in [("customerName", &cart.name), ("externalId", &cart.external_id), ("locale", &cart.locale)] {
                text.iter().for_each(|text| expected[field] = json!(text));
            }
            cart.accepts_marketing.iter().for_each(|accepts| expected["acceptsMarketing"] = json!(accepts));
            prop_assert_eq!(line.map_err(TestCaseError::fail)?, expected);
        }
    }

    /// No cell with a shopper's text begins like a formula, whatever separates the cells.
    #[test]
    fn no_cell_is_a_formula(cart in written()) {
        let written = String::from_utf8(records(&[exported(&cart)])).expect("UTF-8");
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
