//! Amounts in responses.

use std::fmt;

use rust_decimal::Decimal;
use serde::{Serialize, Serializer};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type, schema::Object},
};

use super::serialize_decimal;

/// An amount in major units with exactly the currency's decimals; a number in JSON. The schema of an
/// amount that may be negative is [`signed_amount_schema`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount(pub(super) Decimal);

impl Amount {
    /// The amount in major units.
    pub fn value(self) -> Decimal {
        self.0
    }

    /// The amount in minor units. Saturates at the bounds of `i64`, which only a sum of carts can
    /// reach.
    pub fn minor(self) -> i64 {
        let saturated = if self.0.is_sign_negative() { i64::MIN } else { i64::MAX };
        i64::try_from(self.0.mantissa()).unwrap_or(saturated)
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
        schema().minimum(Some(0)).examples([99.98]).into()
    }
}

/// The schema of an [`Amount`] that may be negative, such as a discount. For `schema_with`.
pub fn signed_amount_schema() -> Object {
    schema().examples([-10.5]).build()
}

fn schema() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Number).description(Some(
        "Money in major units, written with exactly the currency's decimals: read it as a decimal number.",
    ))
}
