//! The currencies of ISO 4217, and their minor units.

use std::{fmt, str::FromStr};

use rust_decimal::{Decimal, prelude::ToPrimitive};
use serde::{Serialize, Serializer};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use super::Amount;

/// An ISO 4217 currency, stored in lower case as Stripe writes it.
///
/// Parses the code, in either case, of a currency that shoppers pay with: not ISO's codes of metals,
/// funds and units of account, for tests (`xts`) and for no currency (`xxx`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency([u8; 3]);

/// The text is not the ISO 4217 code of a currency that shoppers pay with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an ISO 4217 code of a currency that shoppers pay with")]
pub struct UnknownCurrency;

impl Currency {
    /// The US dollar.
    pub const USD: Self = Self(*b"usd");
    /// Maximum of a line or a cart, in minor units of any currency. Stripe's maxima are not higher.
    pub const MAX_MINOR: i64 = 999_999_999_999;

    /// The currencies without decimals; see [`Currency::decimals`].
    pub const NO_DECIMALS: [&str; 17] = [
        "bif", "clp", "djf", "gnf", "isk", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "ugx", "vnd", "vuv", "xaf", "xof",
        "xpf",
    ];
    /// The currencies with three decimals.
    pub const THREE_DECIMALS: [&str; 7] = ["bhd", "iqd", "jod", "kwd", "lyd", "omr", "tnd"];

    /// The code, in lower case.
    pub fn code(&self) -> &str {
        // The bytes are ASCII letters, so this can't fail.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The decimals of the minor unit: 0, 2 or 3.
    ///
    /// They are ISO's, except that Stripe charges whole ariary (MGA), which have two decimals in
    /// ISO (<https://docs.stripe.com/currencies#zero-decimal>). ISK and UGX have no decimals,
    /// although Stripe expects two zeros; see [`Currency::stripe_amount`].
    pub fn decimals(&self) -> u32 {
        match self.code() {
            code if Self::NO_DECIMALS.contains(&code) => 0,
            code if Self::THREE_DECIMALS.contains(&code) => 3,
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

    /// Finds any code of ISO 4217, because a row written in SQL may have one that no cart can have.
    fn of_iso(text: &str) -> Option<(Self, iso_currency::Currency)> {
        let known = iso_currency::Currency::from_code(&text.to_ascii_uppercase())?;
        let code = known.code().to_ascii_lowercase();
        Some((Self(code.as_bytes().try_into().ok()?), known))
    }
}

impl FromStr for Currency {
    type Err = UnknownCurrency;

    fn from_str(text: &str) -> Result<Self, UnknownCurrency> {
        use iso_currency::Flag::{Fund, Special};
        let (currency, known) = Self::of_iso(text).ok_or(UnknownCurrency)?;
        if known.has_flag(Fund) || known.has_flag(Special) { Err(UnknownCurrency) } else { Ok(currency) }
    }
}

impl sqlx::Type<sqlx::Postgres> for Currency {
    fn type_info() -> sqlx::postgres::PgTypeInfo {
        <str as sqlx::Type<sqlx::Postgres>>::type_info()
    }
}

impl sqlx::Decode<'_, sqlx::Postgres> for Currency {
    fn decode(value: sqlx::postgres::PgValueRef<'_>) -> Result<Self, sqlx::error::BoxDynError> {
        let (currency, _) =
            Self::of_iso(<&str as sqlx::Decode<sqlx::Postgres>>::decode(value)?).ok_or(UnknownCurrency)?;
        Ok(currency)
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
