//! The fake Stripe refuses what Stripe refuses, and nothing else.

use super::{super::options::SessionOptions, *};

/// The refusal of one teapot with these changes (`None`: without the parameter), or the session.
fn with(changes: &[(&str, Option<&str>)]) -> Result<Session, Refusal> {
    let mut parameters: Parameters = [
        ("mode", "payment"),
        ("success_url", "https://shop.example/thanks"),
        ("line_items[0][quantity]", "1"),
        ("line_items[0][price_data][currency]", "usd"),
        ("line_items[0][price_data][unit_amount]", "4999"),
        ("line_items[0][price_data][product_data][name]", "Teapot"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    for (name, value) in changes {
        match value {
            Some(value) => parameters.insert((*name).to_owned(), (*value).to_owned()),
            None => parameters.remove(*name),
        };
    }
    new_session(&parameters, DateTime::UNIX_EPOCH)
}

fn priced(currency: &str, unit_amount: i64, quantity: i64) -> Result<Session, Refusal> {
    with(&[
        ("line_items[0][price_data][currency]", Some(currency)),
        ("line_items[0][price_data][unit_amount]", Some(&unit_amount.to_string())),
        ("line_items[0][quantity]", Some(&quantity.to_string())),
    ])
}

#[test]
fn a_session_has_what_was_sent() {
    let session = with(&[
        ("locale", Some("pt-BR")),
        ("customer_email", Some("ada@example.com")),
        ("payment_intent_data[description]", Some("Order 7")),
        ("line_items[0][price_data][product_data][description]", Some("Blue")),
    ])
    .unwrap();
    assert_eq!((session.amount_total, session.currency.as_str()), (4_999, "usd"));
    assert_eq!(
        (session.locale.as_deref(), session.payment_intent_description.as_deref()),
        (Some("pt-BR"), Some("Order 7"))
    );
    assert_eq!(session.lines[0].description.as_deref(), Some("Blue"));
}

#[test]
fn texts_are_bounded_and_not_empty() {
    const NAME: &str = "line_items[0][price_data][product_data][name]";
    const DESCRIPTION: &str = "payment_intent_data[description]";
    const PRODUCT: &str = "line_items[0][price_data][product_data][description]";
    for (name, most) in [(NAME, 250), (DESCRIPTION, 1_000), ("client_reference_id", 200), (PRODUCT, 40_000)] {
        assert!(with(&[(name, Some(&"é".repeat(most)))]).is_ok(), "{name}");
        assert!(with(&[(name, Some(&"é".repeat(most + 1)))]).is_err(), "{name}");
        assert!(with(&[(name, Some(""))]).is_err(), "{name}");
    }
    for locale in ["de-AT", "no", "", "en-gb", "ar"] {
        assert!(with(&[("locale", Some(locale))]).is_err(), "{locale}");
    }
    for email in ["", "nobody", "ada@münchen.example", "hana..s.@docomo.ne.jp", "\"a b\"@example.com", "a@b"] {
        assert!(with(&[("customer_email", Some(email))]).is_err(), "{email}");
    }
    for missing in ["mode", "success_url", NAME, "line_items[0][quantity]"] {
        assert!(with(&[(missing, None)]).is_err(), "{missing}");
    }
    assert!(with(&[("colour", Some("blue"))]).is_err());
}

#[test]
fn options_are_what_stripe_knows() {
    const COUNTRY: &str = "shipping_address_collection[allowed_countries][0]";
    let session = with(&[
        (COUNTRY, Some("US")),
        ("shipping_address_collection[allowed_countries][1]", Some("CA")),
        ("billing_address_collection", Some("required")),
        ("phone_number_collection[enabled]", Some("true")),
        ("allow_promotion_codes", Some("true")),
        ("automatic_tax[enabled]", Some("false")),
    ])
    .unwrap();
    let expected = SessionOptions {
        shipping_countries: vec!["US".to_owned(), "CA".to_owned()],
        billing_address: Some("required".to_owned()),
        phone: true,
        promotion_codes: true,
        automatic_tax: false,
    };
    assert_eq!(session.options, expected);
    for (name, values) in [
        (COUNTRY, ["us", "KP", "VI", ""]),
        ("billing_address_collection", ["never", "AUTO", "true", ""]),
        ("phone_number_collection[enabled]", ["on", "TRUE", "1", ""]),
        ("allow_promotion_codes", ["yes", "required", "0", ""]),
        ("automatic_tax[enabled]", ["auto", "on", "1", ""]),
        ("phone_number_collection", ["true", "false", "on", ""]),
        ("shipping_address_collection[allowed_countries][1]", ["US", "CA", "x", ""]),
    ] {
        for value in values {
            assert!(with(&[(name, Some(value))]).is_err(), "{name}={value}");
        }
    }
}

#[test]
fn amounts_are_those_of_the_currency() {
    for (currency, least, most) in [
        ("usd", 50, 99_999_999),
        ("gbp", 30, 99_999_999),
        ("huf", 17_500, 9_999_999_999),
        ("jpy", 50, 9_999_999_999),
        ("cop", 1, 9_999_999_999),
        ("inr", 50, 999_999_999),
        ("idr", 1, 999_999_999_999),
        ("lbp", 1, 999_999_999_999),
        ("vnd", 1, 99_999_999),
        ("kwd", 10, 99_999_990),
        ("isk", 100, 99_999_900),
        ("ugx", 100, 99_999_900),
    ] {
        let step = multiple(currency);
        for accepted in [least, most] {
            assert_eq!(
                priced(currency, accepted, 1).ok().map(|session| session.amount_total),
                Some(accepted),
                "{currency}"
            );
        }
        for refused in [least - step, most + step, -step] {
            assert!(priced(currency, refused, 1).is_err(), "{refused} {currency}");
        }
        assert!(step == 1 || priced(currency, 10 * least + 5, 1).is_err(), "{currency}");
        assert!(priced(currency, most, 2).is_err(), "{currency}");
    }
    // A line may be free, or below the minimum.
    assert!(priced("usd", 1, 50).is_ok() && priced("usd", 1, 49).is_err() && priced("usd", 0, 1).is_err());
    assert!(priced("usd", 1, 0).is_err() && priced("usd", 1, 1_000_000).is_err());
    for currency in ["", "xyz", "xts", "irr", "USD", "usdt"] {
        assert!(priced(currency, 1_000, 1).is_err(), "{currency}");
    }
}

#[test]
fn all_lines_have_one_currency() {
    let second = |currency| {
        with(&[
            ("line_items[1][quantity]", Some("1")),
            ("line_items[1][price_data][currency]", Some(currency)),
            ("line_items[1][price_data][unit_amount]", Some("0")),
            ("line_items[1][price_data][product_data][name]", Some("Gift")),
        ])
    };
    assert!(second("usd").is_ok() && second("eur").is_err());
}
