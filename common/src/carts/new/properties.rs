//! A body is either a storable cart, or each invalid field is reported.

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};

use utoipa::{PartialSchema, openapi::RefOr};

use super::*;
use crate::carts::items::MAX_ITEMS;

/// The value as a client would send it.
fn sent(value: &Value) -> Box<RawValue> {
    json::parse(value.to_string().as_bytes()).expect("it is JSON")
}

const CORPUS: fuzz::Corpus = fuzz::corpus!("carts");

fn now() -> DateTime<Utc> {
    "2026-03-01T12:00:00Z".parse().expect("an instant")
}

/// Whether an error may name this field, for example `items[3].price`.
fn is_a_field(field: &str) -> bool {
    let root = ["", "abandonedAt", "totalValue", "status", "recoveredAt", "expiredAt"];
    if root.iter().chain(CONTENTS).chain(&COMPUTED).any(|name| *name == field) {
        return true;
    }
    let Some((list, (index, rest))) =
        field.split_once('[').and_then(|(list, rest)| Some((list, rest.split_once(']')?)))
    else {
        return false;
    };
    let parts: &[&str] = match list {
        "items" => &["", ".name", ".quantity", ".price", ".total", ".sku", ".url", ".imageUrl"],
        "adjustments" => &["", ".name", ".amount"],
        _ => return false,
    };
    index.parse::<usize>().is_ok_and(|index| index < MAX_ITEMS) && parts.contains(&rest)
}

/// Checks the invariants of an accepted cart.
fn is_good(cart: &Cart) -> Result<(), TestCaseError> {
    if let Some(name) = &cart.customer_name {
        prop_assert!((1..=200).contains(&name.chars().count()) && !name.contains('\0') && name.trim() == name);
    }
    let email = &cart.customer_email;
    prop_assert!(email.contains('@') && email.len() <= 254 && email.trim() == email, "{email:?}");
    // The address is used in mails, where a line break would start another header.
    prop_assert!(!email.chars().any(char::is_control), "{email:?}");
    prop_assert!(cart.abandoned_at <= now() && (0..=Currency::MAX_MINOR).contains(&cart.total_value.minor()));
    // The stored cart is accepted again and gives the same cart.
    let mut again: Value = serde_json::from_str(stored(cart).get()).expect("it is JSON");
    let fields = again.as_object_mut().expect("it is an object");
    fields.retain(|name, _| CONTENTS.contains(&name.as_str()) || name == "abandonedAt");
    let again = ParsedCart::parse(&sent(&again), Currency::USD, now())
        .map_err(|errors| TestCaseError::fail(format!("{errors:?}")))?;
    let again = Cart { id: cart.id.clone(), ..again.cart };
    prop_assert_eq!(format!("{again:?}"), format!("{cart:?}"));
    Ok(())
}

fn hold(text: &str) -> Result<(), TestCaseError> {
    let Ok(body) = json::parse(text.as_bytes()) else { return Ok(()) }; // refused before, as malformed JSON
    match ParsedCart::parse(&body, Currency::USD, now()) {
        Ok(parsed) => is_good(&parsed.cart),
        Err(errors) => {
            prop_assert!(!errors.is_empty());
            for error in &errors {
                prop_assert!(is_a_field(&error.field) && !error.message.is_empty(), "{error:?}");
            }
            Ok(())
        }
    }
}

#[derive(Debug, Clone)]
struct Line {
    name: String,
    quantity: i64,
    minor: i64,
}

fn lines() -> impl Strategy<Value = Vec<Line>> {
    let name = prop_oneof!["[!-~]{1,20}", "[^\\s\\x00]{1,50}", "[!-~]{500}"];
    let line = (name, 1..=1_000_i64, 0..=999_999_i64);
    vec(line.prop_map(|(name, quantity, minor)| Line { name, quantity, minor }), 1..=100)
}

fn body(email: &str, name: &str, lines: &[Line]) -> Value {
    let item = |line: &Line| {
        let price: Value = serde_json::from_str(&Currency::USD.amount(line.minor).to_string()).expect("a number");
        json!({"name": line.name, "quantity": line.quantity, "price": price})
    };
    json!({"customerEmail": email, "customerName": name, "items": lines.iter().map(item).collect::<Vec<_>>()})
}

/// Addresses as the HTML standard defines them, within the length limits of RFC 5321.
fn emails() -> impl Strategy<Value = String> {
    let atom = "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,30}(\\.[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,30})?";
    (atom, "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?(\\.[a-z0-9]{1,20}){0,2}\\.[a-z]{2,10}")
        .prop_map(|(local, domain)| format!("{local}@{domain}"))
}

proptest! {
    #[test]
    fn a_body_is_a_cart_or_its_fields_are_named(text in CORPUS.near()) {
        hold(&text)?;
    }

    #[test]
    fn a_good_cart_is_taken_and_its_total_is_exact(email in emails(), name in "[!-~]([ -~]{0,198}[!-~])?", lines in lines()) {
        let cart = ParsedCart::parse(&sent(&body(&email, &name, &lines)), Currency::USD, now());
        let cart = cart.map_err(|errors| TestCaseError::fail(format!("{errors:?}")))?.cart;
        let total: i128 = lines.iter().map(|line| i128::from(line.quantity) * i128::from(line.minor)).sum();
        prop_assert_eq!(i128::from(cart.total_value.minor()), total);
        prop_assert_eq!((&cart.customer_email, cart.customer_name.as_ref()), (&email, Some(&name)));
        is_good(&cart)?;
    }

    /// With one invalid field, exactly that field is reported.
    #[test]
    fn the_field_that_is_wrong_is_named(
        lines in lines(),
        at: prop::sample::Index,
        (field, value) in select(vec![
            ("customerEmail", json!("nobody")), ("customerEmail", json!(7)), ("customerEmail", json!("a\r\nBcc: b@example.com")),
            ("customerName", json!(7)), ("customerName", json!("x".repeat(201))), ("customerName", json!("a\u{0}")),
            ("externalId", json!("")), ("externalId", json!(7)), ("externalId", json!("a\nb")), ("externalId", json!("x".repeat(201))),
            ("currency", json!("dollars")), ("currency", json!("xau")), ("locale", json!("x".repeat(36))), ("acceptsMarketing", json!("yes")),
            ("metadata", json!([])), ("metadata", json!({"a": 1})), ("metadata", json!({"": "a"})), ("metadata", json!({"a": "x".repeat(501)})),
            ("adjustments", json!({})), ("adjustments", json!([{"name": "Discount", "amount": -999_999_999}])), ("totalValue", json!("1")),
            ("totalValue", json!(-1)), ("id", json!("cart_1")), ("status", json!("recovered")), ("recoveredAt", json!("2026-03-01T12:00:00Z")),
            ("expiredAt", json!("2026-03-01T12:00:00Z")), ("paidValue", json!(1)), ("createdAt", json!("2026-03-01T12:00:00Z")),
            ("abandonedAt", json!("yesterday")), ("abandonedAt", json!("2026-03-01T12:00:06Z")), ("items", json!([])),
            ("items", json!("[]")), (".name", json!(null)), (".quantity", json!(0)), (".quantity", json!(1_000_001)),
            (".quantity", json!("1")), (".quantity", json!(0.0001)), (".price", json!(-1)), (".price", json!(10_000_000_000_i64)),
            (".price", json!("1")), (".price", json!(0.000_000_1)), (".total", json!("1")), (".total", json!(1.001)),
            (".sku", json!("x".repeat(101))), (".url", json!("javascript:alert(1)")), (".imageUrl", json!("/teapot.jpg")),
        ]),
    ) {
        let mut body = body("ada@example.com", "Ada", &lines);
        let index = at.index(lines.len());
        let expected = match field.strip_prefix('.') {
            None => { body[field] = value; field.to_owned() }
            Some(part) => { body["items"][index][part] = value; format!("items[{index}]{field}") }
        };
        let errors = ParsedCart::parse(&sent(&body), Currency::USD, now()).expect_err("it is wrong");
        let fields: Vec<String> = errors.into_iter().map(|error| error.field).collect();
        prop_assert_eq!(fields, [expected]);
    }
}

/// The schema's bounds of texts are the parser's.
#[test]
fn the_schema_states_the_longest_texts() {
    let RefOr::T(Schema::Object(schema)) = NewCart::schema() else { panic!("an object") };
    for (name, property) in schema.properties {
        let RefOr::T(Schema::Object(ObjectSchema { max_length: Some(longest), .. })) = property else { continue };
        let line = Line { name: "Teapot".to_owned(), quantity: 1, minor: 1 };
        let mut body = body("ada@example.com", "Ada", &[line]);
        body[&name] = json!("x".repeat(longest + 1));
        let errors = ParsedCart::parse(&sent(&body), Currency::USD, now()).expect_err("it is too long");
        assert_eq!(errors[0].field, name);
        body[&name] = json!("x".repeat(longest));
        let has_a_form = ["customerEmail", "locale"].contains(&name.as_str());
        assert_eq!(ParsedCart::parse(&sent(&body), Currency::USD, now()).is_err(), has_a_form, "{name}");
    }
}

#[test]
fn the_corpus_holds() {
    CORPUS.replay(hold);
}

/// Bodies of the maximum size are refused, and the errors do not repeat them.
#[test]
fn errors_of_large_bodies_are_short() {
    for email in
        ["a".repeat(1 << 20), "a.".repeat(1 << 19), "\"".repeat(1 << 20), format!("a@{}", "b.".repeat(1 << 19))]
    {
        let body = json!({"customerEmail": email, "customerName": email, "items": vec![json!(email); 3]});
        let errors = ParsedCart::parse(&sent(&body), Currency::USD, now()).expect_err("that is no address");
        let length: usize = errors.iter().map(|error| error.field.len() + error.message.len()).sum();
        assert!((1..1024).contains(&length), "{length} bytes");
    }
}
