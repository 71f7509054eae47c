//! The status of a cart.

use std::str::FromStr;

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

/// The status of a cart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum CartStatus {
    /// The shopper left the cart and may come back.
    Abandoned,
    /// The cart was paid. Final.
    Recovered,
    /// The cart is too old. A late payment still recovers it.
    Expired,
}

impl CartStatus {
    /// The name in JSON and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Abandoned => "abandoned",
            Self::Recovered => "recovered",
            Self::Expired => "expired",
        }
    }
}

/// The text is not the name of a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be abandoned, recovered or expired")]
pub struct UnknownStatus;

impl FromStr for CartStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        match text {
            "abandoned" => Ok(Self::Abandoned),
            "recovered" => Ok(Self::Recovered),
            "expired" => Ok(Self::Expired),
            _ => Err(UnknownStatus),
        }
    }
}

impl Serialize for CartStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
