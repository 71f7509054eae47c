//! The status of a cart.

use serde::Serialize;
use strum::{EnumString, IntoStaticStr};
use utoipa::ToSchema;

/// The status of a cart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, EnumString, IntoStaticStr, sqlx::Type, ToSchema)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
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
        self.into()
    }
}
