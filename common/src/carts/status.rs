//! What becomes of carts.

use std::str::FromStr;

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

/// What became of a cart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum CartStatus {
    /// The shopper left it and may come back.
    Abandoned,
    /// It was paid. Final.
    Recovered,
    /// It is too old. Late money still recovers it.
    Expired,
}

impl CartStatus {
    /// As it is written in JSON and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Abandoned => "abandoned",
            Self::Recovered => "recovered",
            Self::Expired => "expired",
        }
    }
}

/// Not one of the three.
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
