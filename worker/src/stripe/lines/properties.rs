//! Stripe charges exactly the total, for every cart that it can charge at all.

use chrono::{DateTime, Utc};
use common::{
    carts::{
        CartStatus,
        items::{stored_adjustments, stored_items},
        new::ParsedCart,
    },
    json,
    payment_links::Expected,
};
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};

use super::*;

const CURRENCIES: [&str; 12] = ["usd", "eur", "jpy", "krw", "vnd", "idr", "kwd", "bhd", "isk", "ugx", "huf", "mga"];

/// A number with up to `decimals` decimals, as JSON.
fn number(mantissa: u64, decimals: u32) -> Value {
    let scale = 10_u64.pow(decimals);
    let text = match decimals {
        0 => mantissa.to_string(),
        _ => format!("{}.{:0width$}", mantissa / scale, mantissa % scale, width = decimals as usize),
    };
    serde_json::from_str(&text).expect("a number")
}

/// A line with a whole or broken quantity and a price of up to six decimals, in minor units of two
/// decimals; its total is sent where it is not exact.
fn item() -> impl Strategy<Value = Value> {
    let name = prop_oneof![3 => "[a-zA-Z ]{1,20}x", 1 => "x{480,500}", 1 => "[^\\s\\x00]{1,30}"];
    let quantity = prop_oneof![3 => (1_u64..20).prop_map(|n| n * 1_000), 2 => 1_u64..5_000, 1 => Just(1_000_000_000)];
    (name, quantity, prop_oneof![0_u64..1_000_000, Just(0), Just(49_990_000), 0_u64..20_000_000_000])
        .prop_map(|(name, quantity, price)| json!({"name": name, "quantity": quantity, "price": price}))
}

/// Rounds the total of each line to minor units of the currency and sends it.
fn body(currency: &str, items: &[Value], adjustments: &[(String, i64)]) -> Value {
    let decimals = currency.parse::<Currency>().expect("a currency").decimals();
    let items: Vec<Value> = items
        .iter()
        .map(|item| {
            let (quantity, price) = (item["quantity"].as_u64().expect("whole"), item["price"].as_u64().expect("whole"));
            // In 10^-9 of a major unit.
            let exact = u128::from(quantity) * u128::from(price);
            let minor = 10_u128.pow(9 - decimals);
            let mut line = json!({"name": item["name"], "quantity": number(quantity, 3), "price": number(price, 6)});
            if exact % minor != 0 {
                let total = u64::try_from((exact + minor / 2) / minor).expect("small");
                line["total"] = number(total, decimals);
            }
            line
        })
        .collect();
    let adjustments: Vec<Value> = adjustments
        .iter()
        .map(|(name, minor)| {
            let amount = number(minor.unsigned_abs(), decimals).to_string();
            let signed = if *minor < 0 { format!("-{amount}") } else { amount };
            json!({"name": name, "amount": serde_json::from_str::<Value>(&signed).expect("a number")})
        })
        .collect();
    json!({"customerEmail": "ada@example.com", "currency": currency, "items": items, "adjustments": adjustments})
}

fn checkout(body: &Value) -> Option<CheckoutCart> {
    let now: DateTime<Utc> = "2026-03-01T12:00:00Z".parse().expect("an instant");
    let body = json::parse(body.to_string().as_bytes()).expect("it is JSON");
    let cart = ParsedCart::parse(&body, Currency::USD, now).ok()?.cart;
    Some(CheckoutCart {
        customer_email: cart.customer_email,
        items: stored_items(&cart.items, cart.currency),
        adjustments: stored_adjustments(&cart.adjustments, cart.currency),
        total_minor: cart.total_value.minor(),
        currency: cart.currency,
        external_id: cart.external_id,
        locale: cart.locale,
        status: CartStatus::Abandoned,
        recovery_token: String::new(),
        expected: Expected::default(),
    })
}

fn charged(lines: &[Line]) -> i64 {
    lines.iter().map(|line| line.unit_amount * i64::try_from(line.quantity).expect("small")).sum()
}

proptest! {
    #[test]
    fn stripe_charges_the_total(
        currency in select(&CURRENCIES[..]),
        items in vec(item(), 1..130),
        adjustments in vec(("[a-z]{1,10}", -100_000..100_000_i64), 0..4),
    ) {
        let Some(cart) = checkout(&body(currency, &items, &adjustments)) else { return Ok(()) };
        prop_assert!(cart.items.is_some() && cart.adjustments.is_some(), "what is stored can be read");
        if cart.currency.check_chargeable(cart.total_minor).is_err() {
            return Ok(());
        }
        let lines = lines(&cart).expect("it can be charged");
        prop_assert_eq!(Ok(charged(&lines)), cart.currency.stripe_amount(cart.total_minor));
        prop_assert!((1..=MAX_LINES).contains(&lines.len()));
        for line in &lines {
            prop_assert!((1..=MAX_QUANTITY).contains(&line.quantity) && line.unit_amount >= 0);
            prop_assert!((1..=NAME_CHARACTERS).contains(&line.name.chars().count()));
            prop_assert!(line.description.as_ref().is_none_or(|text| text.chars().count() <= DESCRIPTION_CHARACTERS));
            prop_assert!(!matches!(currency, "isk" | "ugx") || line.unit_amount % 100 == 0);
            prop_assert!(!matches!(currency, "kwd" | "bhd") || line.unit_amount % 10 == 0);
        }
    }
}

#[test]
fn a_cart_keeps_its_lines_where_stripe_can_express_them() {
    let items = |items: Value, adjustments: Value| {
        let body = json!({"customerEmail": "a@example.com", "items": items, "adjustments": adjustments});
        let lines = lines(&checkout(&body).expect("a cart")).expect("it can be charged");
        let line = |line: Line| (line.name, line.unit_amount, line.quantity);
        lines.into_iter().map(line).collect::<Vec<_>>()
    };
    let teapots = json!({"name": "Teapot", "quantity": 2, "price": 50});
    let line = |name: &str, amount, quantity| (name.to_owned(), amount, quantity);
    assert_eq!(
        items(json!([teapots]), json!([{"name": "Shipping", "amount": 4.9}])),
        [line("Teapot", 5_000, 2), line("Shipping", 490, 1)]
    );
    let sent = json!([{"name": "Teapot", "quantity": 2, "price": 50, "total": 100}]);
    assert_eq!(items(sent, json!([])), [line("Teapot", 5_000, 2)]);
    let cheese = json!({"name": "Cheese", "quantity": 0.333, "price": 19.9, "total": 6.63});
    assert_eq!(items(json!([cheese]), json!([])), [line("0.333 × Cheese", 663, 1)]);
    let discounted = json!([{"name": "Discount", "amount": -10}, {"name": "Shipping", "amount": 4.9}]);
    assert_eq!(items(json!([teapots]), discounted), [line("2 × Teapot", 9_490, 1)]);
    let many: Vec<Value> = (0..130).map(|n| json!({"name": format!("Item {n}"), "quantity": 1, "price": 1})).collect();
    let lines = items(json!(many), json!([]));
    assert_eq!((lines.len(), lines[99].clone()), (100, line("31 more items", 3_100, 1)));
}

#[test]
fn a_summary_names_what_it_sums_up() {
    let body = json!({
        "customerEmail": "a@example.com",
        "items": [{"name": "Teapot", "quantity": 2, "price": 50}],
        "adjustments": [{"name": "Discount", "amount": -10}, {"name": "Shipping", "amount": 4.9}],
    });
    let lines = lines(&checkout(&body).unwrap()).unwrap();
    assert_eq!(lines[0].description.as_deref(), Some("2 × Teapot: 100.00, Discount: -10.00, Shipping: 4.90"));
}
