//! Exact money: whole minor units and a currency, never binary floats.

mod amount;
mod currency;
mod format;
mod stripe;

use rust_decimal::Decimal;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

pub use self::{
    amount::{Amount, signed_amount_schema},
    currency::{Currency, UnknownCurrency},
    format::grouped,
    stripe::Unchargeable,
};

/// Writes the decimal as a JSON number with exactly its digits.
///
/// # Errors
/// Errors of the serializer, which must be serde_json's.
pub(crate) fn serialize_decimal<S: Serializer>(decimal: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
    RawValue::from_string(decimal.to_string()).map_err(serde::ser::Error::custom)?.serialize(serializer)
}

/// Reads the text of a JSON number exactly; `None` if it does not fit into a [`Decimal`].
pub fn decimal(text: &str) -> Option<Decimal> {
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    // The library rounds digits beyond its 28; zeros at the end are not among those that count.
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    let zeros = i64::try_from(digits.len() - significant.len()).ok()?;
    let mantissa: i128 = match significant {
        "" | "-" => return Some(Decimal::ZERO),
        significant => significant.parse().ok()?,
    };
    let scale = i64::try_from(fraction.len()).ok()? - zeros - i64::from(exponent.parse::<i32>().ok()?);
    match u32::try_from(scale) {
        Ok(scale) => Decimal::try_from_i128_with_scale(mantissa, scale).ok(),
        Err(_) => {
            let power = 10_i128.checked_pow(u32::try_from(-scale).ok()?)?;
            Decimal::try_from_i128_with_scale(mantissa.checked_mul(power)?, 0).ok()
        }
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    fn minor(currency: &str, json: &str) -> Option<i64> {
        currency.parse::<Currency>().unwrap().to_minor(decimal(json)?)
    }

    #[test]
    fn json_numbers_are_read_exactly() {
        assert_eq!(minor("usd", "0.1"), Some(10));
        assert_eq!(minor("usd", "1e2"), Some(10_000));
        assert_eq!(minor("usd", "19.990"), Some(1_999));
        assert_eq!(minor("usd", "0.001"), None);
        // As a binary float this number would be 0.1.
        assert_eq!(minor("usd", "0.1000000000000000055"), None);
        assert_eq!(minor("usd", "0.10000000000000000000000000000000000000000001"), None);
        let zeros = "0".repeat(500);
        assert_eq!(minor("usd", &format!("10.{zeros}")), Some(1_000));
        assert_eq!(minor("usd", &format!("1{}e-29", "0".repeat(30))), Some(1_000));
        assert_eq!((minor("usd", "-0.00"), minor("usd", "0e999"), minor("usd", "-0")), (Some(0), Some(0), Some(0)));
        assert_eq!(minor("jpy", "500"), Some(500));
        assert_eq!(minor("jpy", "500.5"), None);
        assert_eq!(minor("kwd", "1.234"), Some(1_234));
        assert_eq!(minor("usd", "1e400"), None);
        // Digits before an exponent are not lost either.
        assert_eq!(minor("usd", "1.00000000000000000000000000000000000001e0"), None);
        assert_eq!(
            (minor("usd", "5E-2"), minor("usd", "1.25e+1"), minor("usd", "-1e-2")),
            (Some(5), Some(1_250), Some(-1))
        );
    }

    #[test]
    fn amounts_are_written_with_the_currencys_decimals() {
        let written = |currency: &str, minor| {
            serde_json::to_string(&currency.parse::<Currency>().unwrap().amount(minor)).unwrap()
        };
        assert_eq!(written("usd", 30), "0.30");
        assert_eq!(written("usd", 100_000_000_000_001), "1000000000000.01");
        assert_eq!(written("jpy", 500), "500");
        assert_eq!(written("kwd", 1_230), "1.230");
        assert_eq!(Currency::USD.sum("123456789012345678901".parse().unwrap()).to_string(), "1234567890123456789.01");
    }

    #[test]
    fn shoppers_pay_with_tender() {
        let parsed = |code: &str| code.parse::<Currency>().map(|currency| currency.code().to_owned());
        for code in ["usd", "eur", "jpy", "bgn", "xaf", "xof", "xpf", "xcd", "xcg", "sle", "iqd"] {
            assert_eq!(parsed(code).as_deref(), Ok(code));
            assert_eq!(parsed(&code.to_uppercase()).as_deref(), Ok(code));
        }
        for code in [
            "", "us", "usdt", "xyz", " usd", "xxx", "xts", "xau", "xag", "xpt", "xpd", "xdr", "xua", "xsu", "xba",
            "che", "chw", "clf", "cou", "mxv", "usn", "uyi", "uyw", "bov",
        ] {
            assert_eq!(parsed(code), Err(UnknownCurrency), "{code}");
        }
    }

    #[test]
    fn decimals_are_isos_except_of_the_ariary() {
        for currency in properties::tender() {
            let iso = iso_currency::Currency::from_code(&currency.code().to_uppercase()).unwrap().exponent().unwrap();
            let decimals = if currency.code() == "mga" { 0 } else { u32::from(iso) };
            assert_eq!(currency.decimals(), decimals, "{currency}");
        }
    }

    #[test]
    fn stripes_bounds() {
        let check = |currency: &str, minor| currency.parse::<Currency>().unwrap().check_chargeable(minor);
        assert_eq!(check("usd", 49).unwrap_err().to_string(), "is below the minimum of 0.50 that Stripe charges");
        for (code, minimum, maximum) in [
            ("usd", 50, 99_999_999),
            ("gbp", 30, 99_999_999),
            ("huf", 17_500, 9_999_999_999),
            ("jpy", 50, 9_999_999_999),
            ("cop", 1, 9_999_999_999),
            ("inr", 50, 999_999_999),
            ("idr", 1, 999_999_999_999),
            ("lbp", 1, 999_999_999_999),
            ("vnd", 1, 99_999_999),
            ("krw", 1, 99_999_999),
            ("mga", 1, 99_999_999),
            ("isk", 1, 999_999),
            ("ugx", 1, 999_999),
            ("kwd", 10, 99_999_990),
        ] {
            let unit = if code == "kwd" { 10 } else { 1 };
            assert_eq!((check(code, minimum), check(code, maximum)), (Ok(()), Ok(())), "{code}");
            assert!(matches!(check(code, minimum - unit), Err(Unchargeable::TooLittle(_))), "{code}");
            assert!(matches!(check(code, maximum + unit), Err(Unchargeable::TooMuch(_))), "{code}");
            assert!(maximum <= Currency::MAX_MINOR);
        }
        assert_eq!(check("kwd", 1_005), Err(Unchargeable::TooFine));
        assert_eq!(check("irr", 1_000).unwrap_err().to_string(), "is in irr, which Stripe does not charge");
        let isk: Currency = "ISK".parse().unwrap();
        assert_eq!(
            (isk.decimals(), isk.stripe_amount(700), isk.of_stripe(70_000), isk.of_stripe(70_050)),
            (0, Ok(70_000), Some(700), None)
        );
        assert_eq!(
            check("isk", 1_000_000).unwrap_err().to_string(),
            "is above the maximum of 999999 that Stripe charges"
        );
    }

    #[test]
    fn prices_in_yen_dong_won_and_rupiah_can_be_charged() {
        for (code, price, charged) in [
            ("jpy", "98000", 98_000),
            ("vnd", "12990000", 12_990_000),
            ("krw", "1290000", 1_290_000),
            ("idr", "8500000", 850_000_000),
        ] {
            let currency: Currency = code.parse().unwrap();
            assert_eq!(minor(code, price), Some(charged));
            assert_eq!(currency.check_chargeable(charged), Ok(()), "{code}");
            assert_eq!(currency.stripe_amount(charged), Ok(charged));
        }
    }

    #[test]
    fn amounts_may_be_negative() {
        assert_eq!(serde_json::to_string(&Currency::USD.amount(-1_000)).unwrap(), "-10.00");
        assert_eq!(Currency::USD.amount(-1_000).minor(), -1_000);
        assert_eq!(Currency::USD.sum("-99999999999999999999".parse().unwrap()).minor(), i64::MIN);
        assert!(signed_amount_schema().minimum.is_none());
    }
}
