//! Ids of carts.

use std::{fmt, str::FromStr};

use serde::Serialize;
use type_safe_id::{StaticType, TypeSafeId};
use uuid::Uuid;

#[derive(Default)]
struct CartType;

impl StaticType for CartType {
    const TYPE: &'static str = "cart";
}

/// `cart_` and a time-ordered suffix: the TypeID form of a UUIDv7.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct CartId(String);

impl CartId {
    /// Generates an id, which follows all that this process generated before.
    pub fn generate() -> Self {
        Self(TypeSafeId::<CartType>::from_uuid(Uuid::now_v7()).to_string())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text does not have the form of a cart's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cart's id")]
pub struct MalformedCartId;

impl FromStr for CartId {
    type Err = MalformedCartId;

    /// Accepts any `cart_…`, because rows imported in SQL may have ids that this program did not
    /// generate.
    fn from_str(text: &str) -> Result<Self, MalformedCartId> {
        let suffix = text.strip_prefix("cart_").ok_or(MalformedCartId)?;
        let well_formed = (1..=100).contains(&suffix.len())
            && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        well_formed.then(|| Self(text.to_owned())).ok_or(MalformedCartId)
    }
}

impl fmt::Display for CartId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Imported carts are listed in the order of their file, also those of one millisecond.
    #[test]
    fn ids_are_in_the_order_of_their_making() {
        let ids: Vec<String> = (0..10_000).map(|_| CartId::generate().to_string()).collect();
        assert!(ids.is_sorted());
    }
}
