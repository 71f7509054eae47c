//! One line of an import.

use chrono::{DateTime, Utc};
use common::carts::{CartStatus, new::NewCart};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::http::error::ApiError;

/// Maximum length of a line, in bytes.
pub(crate) const LINE_BYTES: usize = 1024 * 1024;

/// One line of an import.
#[derive(Debug)]
pub(crate) struct Line {
    /// Number of the line, from 1. For CSV, the number of the record, as spreadsheets count their
    /// rows: the header is 1.
    pub(crate) number: u64,
    /// Length in bytes.
    pub(crate) bytes: usize,
    /// The line as JSON, or why it can't be read.
    pub(crate) content: Result<Box<RawValue>, ApiError>,
}

/// A line of an import: a cart as in `POST /api/carts`, and what is known of its past.
// `ImportedCart` is the validated line: its status is always known, and its currency is the cart's.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "this is described, never made")]
pub(super) struct CartLine {
    #[schema(inline)]
    #[serde(flatten)]
    cart: NewCart,
    /// Your own id of the cart. Of several lines with the same id, the first creates the cart.
    #[schema(min_length = 1, max_length = 200)]
    external_id: Option<String>,
    /// The default is abandoned.
    status: Option<CartStatus>,
    /// Allowed with the status recovered only. The default is `abandonedAt`.
    recovered_at: Option<DateTime<Utc>>,
    /// Allowed with the status expired only. The default is `abandonedAt`.
    expired_at: Option<DateTime<Utc>>,
    /// Currency of the cart. The default is the store's.
    #[schema(pattern = "^[A-Za-z]{3}$", example = "usd")]
    currency: Option<String>,
}
