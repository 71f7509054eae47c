//! Money is either read to the last digit or rejected.

use proptest::{prelude::*, sample::select};

use super::*;

/// All currencies that shoppers pay with.
pub(super) fn tender() -> Vec<Currency> {
    let letters = || 'a'..='z';
    let codes =
        letters().flat_map(|a| letters().flat_map(move |b| letters().map(move |c| String::from_iter([a, b, c]))));
    codes.filter_map(|code| code.parse().ok()).collect()
}

fn currencies() -> impl Strategy<Value = Currency> {
    select(tender())
}

/// The minor units of a JSON number, computed from its digits; `None` if they are not a whole
/// number.
fn by_hand(text: &str, decimals: u32) -> Option<i64> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    let significant = digits.trim_end_matches('0');
    let zeros = i64::try_from(digits.len() - significant.len()).ok()?;
    let fraction = i64::try_from(fraction.len()).ok()?;
    let zeros = exponent.parse::<i64>().ok()?.checked_add(zeros - fraction + i64::from(decimals))?;
    let zeros = u32::try_from(zeros).ok()?;
    let minor = significant.parse::<i128>().ok()?.checked_mul(10_i128.checked_pow(zeros)?)?;
    i64::try_from(if negative { -minor } else { minor }).ok()
}

/// Texts of JSON numbers.
fn numbers() -> impl Strategy<Value = String> {
    let exponent = prop_oneof![3 => Just(String::new()), 1 => "[eE][+-]?[0-9]{1,2}", 1 => "e-?[0-9]{1,12}"];
    prop_oneof![
        4 => ("-?(0|[1-9][0-9]{0,6})(\\.[0-9]{1,4})?", exponent.clone()),
        1 => ("-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,40})?", exponent.clone()),
        1 => ("(0|[1-9][0-9]{0,3})\\.[0-9]{1,2}0{0,40}[1-9]?", exponent),
    ]
    .prop_map(|(mantissa, exponent)| mantissa + &exponent)
}

fn hold(text: &str, currency: Currency) -> Result<(), TestCaseError> {
    let Ok(value) = crate::json::parse(text.as_bytes()) else { return Ok(()) };
    let text = value.get();
    let read = crate::json::number(&value).and_then(|value| currency.to_minor(value));
    let exactly = by_hand(text, currency.decimals());
    let short = text.len() <= 20 && !text.contains(['e', 'E']);
    match (read, exactly) {
        (Some(read), exactly) => prop_assert_eq!(Some(read), exactly, "{} in {}", text, currency),
        (None, exactly) => prop_assert!(exactly.is_none() || !short, "{text} in {currency} was refused"),
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_number_is_read_to_the_last_digit_or_refused(text in numbers(), currency in currencies()) {
        hold(&text, currency)?;
    }

    #[test]
    fn near_the_corpus_too(text in fuzz::corpus!("numbers").near(), currency in currencies()) {
        hold(&text, currency)?;
    }

    #[test]
    fn an_amount_comes_back_as_it_was(minor: i64, currency in currencies()) {
        let written = serde_json::to_string(&currency.amount(minor)).expect("it is a number");
        let decimals = written.split_once('.').map_or(0, |(_, decimals)| decimals.len());
        prop_assert_eq!(decimals, currency.decimals() as usize, "{}", &written);
        prop_assert_eq!(by_hand(&written, currency.decimals()), Some(minor));
        let number: serde_json::Number = serde_json::from_str(&written).expect("it is a number");
        prop_assert_eq!(decimal(number.as_str()).and_then(|value| currency.to_minor(value)), Some(minor));
        prop_assert_eq!(currency.amount(minor).minor(), minor);
    }

    #[test]
    fn a_sum_is_written_to_the_last_digit(minor in 0..10_i128.pow(27), currency in currencies()) {
        let written = currency.sum(Decimal::from_i128_with_scale(minor, 0)).to_string();
        prop_assert_eq!(written.replace('.', "").parse::<i128>().expect("digits"), minor);
    }

    #[test]
    fn stripe_amounts_have_the_same_value(
        minor in prop_oneof![0..=i64::MAX, 0..=Currency::MAX_MINOR, 0..1_000_000_i64],
        currency in currencies(),
    ) {
        if currency.check_chargeable(minor).is_ok() {
            let asked = currency.stripe_amount(minor).expect("it can be charged");
            prop_assert!((1..=Currency::MAX_MINOR).contains(&asked) && minor <= Currency::MAX_MINOR);
            prop_assert_eq!(currency.of_stripe(asked), Some(minor));
            // Stripe has two decimals of ISK and UGX, and takes two of the three-decimal currencies.
            prop_assert!(!matches!(currency.code(), "isk" | "ugx") || asked % 100 == 0);
            prop_assert!(currency.decimals() != 3 || asked % 10 == 0);
        }
    }

    #[test]
    fn formatted_money_has_all_digits(minor: i64, currency in currencies()) {
        let text = currency.format(currency.amount(minor));
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        prop_assert_eq!(digits.parse::<u64>().expect("digits"), minor.unsigned_abs(), "{}", text);
        prop_assert_eq!(text.starts_with('\u{2212}'), minor < 0, "{}", text);
    }

    #[test]
    fn a_currency_is_three_letters_that_are_known(text in "[a-zA-Z]{3}|\\PC{0,5}") {
        if let Ok(currency) = text.parse::<Currency>() {
            prop_assert_eq!(currency.code(), text.to_ascii_lowercase());
            prop_assert_eq!(currency.code().parse::<Currency>(), Ok(currency));
        }
    }
}

#[test]
fn the_corpus_holds() {
    for currency in ["usd", "jpy", "kwd"].map(|code| code.parse().expect("it is one")) {
        fuzz::corpus!("numbers").replay(|text| hold(text, currency));
    }
}
