use super::*;
use serde_json::{Value, json};

fn parse(body: &Value) -> Result<Cart, Vec<FieldError>> {
    let body = json::parse(body.to_string().as_bytes()).unwrap();
    ParsedCart::parse(&body, Currency::USD, "2026-03-01T12:00:00Z".parse().unwrap()).map(|parsed| parsed.cart)
}

fn body(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_price_of_a_tenth_times_three_is_three_tenths() {
    let cart = parse(&body(
        r#"{"customerEmail":" a@example.com ","customerName":" Ada ","items":[{"name":"x","quantity":3,"price":0.1}]}"#,
    ))
    .unwrap();
    assert_eq!(cart.total_value.minor(), 30);
    assert_eq!(cart.items.get(), r#"[{"name":"x","quantity":3,"price":0.10}]"#);
    assert_eq!((cart.customer_email.as_str(), cart.customer_name.as_deref()), ("a@example.com", Some("Ada")));
}

#[test]
fn every_wrong_field_is_named() {
    let errors = parse(&json!({
        "customerEmail": "nobody", "customerName": 7, "abandonedAt": "2027-01-01T00:00:00Z", "status": "expired",
        "items": [{"name": "a\u{0}", "quantity": "2", "price": -1}, 7, {"name": "b", "quantity": 1.5, "price": 0.001}],
        "adjustments": [{"name": "", "amount": 0.001}],
    }))
    .unwrap_err();
    let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "customerEmail",
            "customerName",
            "items[0].name",
            "items[0].quantity",
            "items[0].price",
            "items[1]",
            "items[2].price",
            "adjustments[0].name",
            "adjustments[0].amount",
            "abandonedAt",
            "status",
        ]
    );
}

fn total(items: Value, adjustments: Value) -> Result<i64, (String, String)> {
    let cart = parse(&json!({"customerEmail": "a@example.com", "items": items, "adjustments": adjustments}));
    cart.map(|cart| cart.total_value.minor()).map_err(|errors| (errors[0].field.clone(), errors[0].message.clone()))
}

#[test]
fn the_total_is_the_sum_of_lines_and_adjustments() {
    let hundred = json!([{"name": "x", "quantity": 2, "price": 50}]);
    let adjustments = json!([{"name": "Discount", "amount": -10.00}, {"name": "Shipping", "amount": 4.90}]);
    assert_eq!(total(hundred.clone(), adjustments), Ok(9_490));
    let too_much = json!([{"name": "Discount", "amount": -100.01}]);
    let message = "must not make the total negative; it is -0.01".to_owned();
    assert_eq!(total(hundred.clone(), too_much), Err(("adjustments".to_owned(), message)));
    assert_eq!(total(hundred, json!([{"name": "Discount", "amount": -100}])), Ok(0));
}

#[test]
fn fractions_need_a_total_that_fits() {
    let line = |quantity: &str, price: &str, more: &str| {
        let items = body(&format!(r#"[{{"name":"Cheese","quantity":{quantity},"price":{price}{more}}}]"#));
        total(items, json!([])).map_err(|(field, _)| field)
    };
    assert_eq!(line("1.5", "19.90", ""), Ok(2_985));
    assert_eq!(line("0.333", "19.90", ""), Err("items[0].price".to_owned()));
    assert_eq!(line("0.333", "19.90", r#","total":6.63"#), Ok(663));
    assert_eq!(line("0.333", "19.90", r#","total":6.65"#), Err("items[0].total".to_owned()));
    assert_eq!(line("3", "0.333333", r#","total":1.00"#), Ok(100));
    // A discount of one cent a piece.
    assert_eq!(line("10", "1.00", r#","total":9.90"#), Ok(990));
    assert_eq!(line("10", "1.00", r#","total":9.89"#), Err("items[0].total".to_owned()));
    assert_eq!(line("1000000", "9999.99999999", ""), Err("items[0].price".to_owned()));
    assert_eq!(line("1000000", "9999.999999", ""), Ok(999_999_999_900));
    assert_eq!(line("1000000", "10000", ""), Err("items[0].price".to_owned()));
}

#[test]
fn a_sent_total_must_be_the_sum() {
    let cart = |total: &str| {
        let line = r#""customerEmail":"a@example.com","items":[{"name":"x","quantity":1,"price":94.9}]"#;
        parse(&body(&format!(r#"{{{line},"totalValue":{total}}}"#)))
    };
    assert!(cart("94.90").is_ok() && cart("94.9").is_ok() && cart("null").is_ok());
    let error = &cart("95").unwrap_err()[0];
    assert_eq!(error.field, "totalValue");
    assert_eq!(error.message, "is 95.00, but the lines and adjustments add up to 94.90");
}

#[test]
fn metadata_is_stored_sorted() {
    let cart = parse(&json!({
        "customerEmail": "a@example.com", "items": [{"name": "x", "quantity": 1, "price": 1}],
        "metadata": {"b": "2", "a": "ü\n"}, "customerName": "  ", "locale": null, "acceptsMarketing": false,
    }));
    let cart = cart.unwrap();
    assert_eq!(cart.metadata.get(), r#"{"a":"ü\n","b":"2"}"#);
    assert_eq!((cart.customer_name, cart.locale, cart.accepts_marketing), (None, None, Some(false)));
}

#[test]
fn no_more_than_twenty_errors_are_reported() {
    let errors = parse(&json!({"items": vec![json!({}); 100]})).unwrap_err();
    assert!((20..=MAX_ERRORS + 5).contains(&errors.len()), "{}", errors.len());
}

#[test]
fn the_address_of_erased_shoppers_is_anonymous() {
    let cart = |email: &str, name: &str, item: &str| {
        let items = json!([{"name": item, "quantity": 1, "price": 1}]);
        parse(&json!({"customerEmail": email, "customerName": name, "items": items}))
    };
    assert!(cart(ERASED_EMAIL, ERASED, ERASED).is_ok(), "an export of an erased cart is imported again");
    for (name, item) in [("Ada", ERASED), (ERASED, "Teapot")] {
        for email in [ERASED_EMAIL, "Erased@ERASED.invalid", "\"erased\"@erased.invalid"] {
            let errors = cart(email, name, item).unwrap_err();
            assert_eq!(errors[0].field, "customerEmail", "{email} {name} {item}");
        }
    }
}
