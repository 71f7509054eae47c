//! Exact money: whole minor units and a currency, never binary floats.

use std::{fmt, str::FromStr};

use rust_decimal::{Decimal, prelude::ToPrimitive};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

/// The maximum charge, in Stripe's smallest unit
/// (<https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts>).
const STRIPE_MAXIMUM: i64 = 99_999_999;

/// An ISO 4217 currency, stored in lower case as Stripe writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency([u8; 3]);

/// The text is not a code of ISO 4217.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an ISO 4217 currency code")]
pub struct UnknownCurrency;

/// An amount that Stripe would reject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unchargeable {
    /// The amount is below Stripe's minimum; this is the minimum.
    #[error("is below the minimum of {0} that Stripe charges")]
    TooLittle(Amount),
    /// The amount is above Stripe's maximum; this is the maximum.
    #[error("is above the maximum of {0} that Stripe charges")]
    TooMuch(Amount),
    /// The amount has a third decimal that is not 0.
    #[error("must end in 0: Stripe takes two decimals of this currency")]
    TooFine,
}

impl Currency {
    /// The US dollar.
    pub const USD: Self = Self(*b"usd");

    /// The code, in lower case.
    pub fn code(&self) -> &str {
        // The bytes are ASCII letters, so this can't fail.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Whether shoppers can pay in the currency. `false` for ISO's codes of metals, funds and units
    /// of account, for tests (`xts`) and for no currency (`xxx`).
    pub fn is_tender(&self) -> bool {
        use iso_currency::Flag::{Fund, Special};
        let known = iso_currency::Currency::from_code(&self.code().to_ascii_uppercase());
        known.is_some_and(|known| !known.has_flag(Fund) && !known.has_flag(Special))
    }

    /// The decimals of the minor unit: 0, 2 or 3.
    ///
    /// Follows Stripe's list (<https://docs.stripe.com/currencies#zero-decimal>), which differs
    /// from ISO's in MGA (Stripe charges whole ariary). ISK and UGX have no decimals here, although
    /// Stripe expects two zeros; see [`Currency::stripe_amount`].
    pub fn decimals(&self) -> u32 {
        match self.code() {
            "bif" | "clp" | "djf" | "gnf" | "jpy" | "kmf" | "krw" | "mga" | "pyg" | "rwf" | "vnd" | "vuv" | "xaf"
            | "xof" | "xpf" | "isk" | "ugx" => 0,
            "bhd" | "jod" | "kwd" | "omr" | "tnd" => 3,
            _ => 2,
        }
    }

    /// `value` in minor units; `None` if it has more decimals than the currency or is out of range.
    pub fn to_minor(self, value: Decimal) -> Option<i64> {
        let minor = value.checked_mul(Decimal::from(10_i64.pow(self.decimals())))?;
        minor.is_integer().then(|| minor.to_i64()).flatten()
    }

    /// The amount of `minor` units.
    pub fn amount(self, minor: i64) -> Amount {
        Amount(Decimal::new(minor, self.decimals()))
    }

    /// A sum of minor units, which may exceed the range of a single amount.
    pub fn sum(self, minor: Decimal) -> Amount {
        let mut sum = minor.trunc();
        sum.rescale(0);
        // set_scale moves the decimal point; it fails only beyond 28 decimals.
        let _ = sum.set_scale(self.decimals());
        Amount(sum)
    }

    /// `minor` units in Stripe's smallest unit. ISK and UGX are multiplied by 100. In three-decimal
    /// currencies the last digit must be 0.
    ///
    /// # Errors
    /// If a three-decimal amount does not end in 0, or the result overflows.
    pub fn stripe_amount(self, minor: i64) -> Result<i64, Unchargeable> {
        match self.code() {
            "isk" | "ugx" => minor.checked_mul(100).ok_or(Unchargeable::TooMuch(self.amount(STRIPE_MAXIMUM / 100))),
            _ if self.decimals() == 3 && minor % 10 != 0 => Err(Unchargeable::TooFine),
            _ => Ok(minor),
        }
    }

    /// Checks that Stripe accepts a payment of `minor` units.
    ///
    /// # Errors
    /// If the amount is too low, too high or too fine for Stripe.
    pub fn check_chargeable(self, minor: i64) -> Result<(), Unchargeable> {
        if minor < self.stripe_minimum() {
            return Err(Unchargeable::TooLittle(self.amount(self.stripe_minimum())));
        }
        let stripe_units = self.stripe_amount(minor)?;
        if stripe_units > STRIPE_MAXIMUM {
            let hundredths = if matches!(self.code(), "isk" | "ugx") { 100 } else { 1 };
            return Err(Unchargeable::TooMuch(self.amount(STRIPE_MAXIMUM / hundredths)));
        }
        Ok(())
    }

    /// The minimum charge, in minor units
    /// (<https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts>). For a currency
    /// without a published minimum it is one unit, and Stripe may still reject the amount.
    fn stripe_minimum(self) -> i64 {
        match self.code() {
            "usd" | "aud" | "brl" | "cad" | "chf" | "eur" | "inr" | "nzd" | "sgd" | "jpy" => 50,
            "gbp" => 30,
            "bgn" => 100,
            "aed" | "myr" | "pln" | "ron" => 200,
            "dkk" => 250,
            "nok" | "sek" => 300,
            "hkd" => 400,
            "mxn" | "thb" => 1_000,
            "czk" => 1_500,
            "huf" => 17_500,
            _ => 1,
        }
    }
}

impl FromStr for Currency {
    type Err = UnknownCurrency;

    fn from_str(text: &str) -> Result<Self, UnknownCurrency> {
        let known = iso_currency::Currency::from_code(&text.to_ascii_uppercase()).ok_or(UnknownCurrency)?;
        let code = known.code().to_ascii_lowercase();
        code.as_bytes().try_into().map(Self).map_err(|_| UnknownCurrency)
    }
}

impl sqlx::Type<sqlx::Postgres> for Currency {
    fn type_info() -> sqlx::postgres::PgTypeInfo {
        <str as sqlx::Type<sqlx::Postgres>>::type_info()
    }
}

impl sqlx::Decode<'_, sqlx::Postgres> for Currency {
    fn decode(value: sqlx::postgres::PgValueRef<'_>) -> Result<Self, sqlx::error::BoxDynError> {
        Ok(<&str as sqlx::Decode<sqlx::Postgres>>::decode(value)?.parse()?)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl ToSchema for Currency {}

impl PartialSchema for Currency {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("An ISO 4217 currency in lower case."))
            .pattern(Some("^[a-z]{3}$"))
            .examples(["usd"])
            .into()
    }
}

/// An amount in major units with exactly the currency's decimals; a number in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount(Decimal);

impl Amount {
    /// The amount in major units.
    pub fn value(self) -> Decimal {
        self.0
    }

    /// The amount in minor units. Saturates at `i64::MAX`, which only a sum of carts can reach.
    pub fn minor(self) -> i64 {
        i64::try_from(self.0.mantissa()).unwrap_or(i64::MAX)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_decimal(&self.0, serializer)
    }
}

impl ToSchema for Amount {}

impl PartialSchema for Amount {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Number)
            .description(Some(
                "Money in major units, written with exactly the currency's decimals: read it as a decimal number.",
            ))
            .minimum(Some(0))
            .examples([99.98])
            .into()
    }
}

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
    // The library can parse exponents, but rounds the digits before them.
    let value = Decimal::from_str_exact(digits).ok()?;
    let scale = i64::from(value.scale()) - i64::from(exponent.parse::<i32>().ok()?);
    match u32::try_from(scale) {
        Ok(scale) => Decimal::try_from_i128_with_scale(value.mantissa(), scale).ok(),
        Err(_) => {
            let zeros = 10_i128.checked_pow(u32::try_from(-scale).ok()?)?;
            Decimal::try_from_i128_with_scale(value.mantissa().checked_mul(zeros)?, 0).ok()
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
        let is_tender = |code: &str| code.parse::<Currency>().unwrap().is_tender();
        for code in ["usd", "eur", "jpy", "bgn", "xaf", "xof", "xpf", "xcd"] {
            assert!(is_tender(code), "{code}");
        }
        for code in ["xxx", "xts", "xau", "xag", "xpt", "xpd", "xdr", "xua", "xsu", "xba", "che", "clf", "usn", "uyi"] {
            assert!(!is_tender(code), "{code}");
        }
    }

    #[test]
    fn stripes_bounds() {
        let check = |currency: &str, minor| currency.parse::<Currency>().unwrap().check_chargeable(minor);
        assert_eq!(check("usd", 49).unwrap_err().to_string(), "is below the minimum of 0.50 that Stripe charges");
        assert_eq!(check("usd", 50), Ok(()));
        assert_eq!(check("usd", 99_999_999), Ok(()));
        assert!(matches!(check("usd", 100_000_000), Err(Unchargeable::TooMuch(_))));
        assert_eq!(check("jpy", 50), Ok(()));
        assert_eq!(check("kwd", 1_005), Err(Unchargeable::TooFine));
        assert_eq!(check("isk", 999_999), Ok(()));
        assert!(matches!(check("isk", 1_000_000), Err(Unchargeable::TooMuch(_))));
        let isk: Currency = "ISK".parse().unwrap();
        assert_eq!((isk.decimals(), isk.stripe_amount(700)), (0, Ok(70_000)));
        assert_eq!("xyz".parse::<Currency>(), Err(UnknownCurrency));
    }
}
