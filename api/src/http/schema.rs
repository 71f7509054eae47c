//! Schemas that several types of the OpenAPI document share.

use utoipa::openapi::{ObjectBuilder, Type, schema::Object};

/// A boolean that is always true.
pub(crate) fn only_true() -> Object {
    only(true)
}

/// A boolean that is always false.
pub(crate) fn only_false() -> Object {
    only(false)
}

fn only(value: bool) -> Object {
    ObjectBuilder::new().schema_type(Type::Boolean).enum_values(Some([value])).build()
}

/// A string with one of these values.
pub(crate) fn one_of(values: impl IntoIterator<Item = &'static str>) -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(values)).build()
}
