//! One line of an import.

use chrono::{DateTime, Utc};
use common::{
    carts::{
        Cart, CartStatus, import,
        new::{FieldError, NewCart},
    },
    money::Currency,
};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::http::{declared::fields::KnownFields, error::ApiError};

/// Maximum length of a line, in bytes.
pub(crate) const LINE_BYTES: usize = 1024 * 1024;

/// One line of an import, or the lines of one cart in the flat form of CSV.
#[derive(Debug)]
pub(crate) struct Line {
    /// Number of the first line, from 1. For CSV, the number of the record, as spreadsheets count
    /// their rows: the header is 1.
    pub(crate) number: u64,
    /// Number of the last line.
    pub(crate) last: u64,
    /// Length in bytes.
    pub(crate) bytes: usize,
    /// The line as JSON, or why it can't be read.
    pub(crate) content: Result<Box<RawValue>, ApiError>,
    /// Errors of cells that can't be read as their column's kind; `content` has them as text.
    pub(crate) errors: Vec<FieldError>,
    /// The line of each item in the flat form, otherwise empty.
    pub(crate) items: Vec<u64>,
}

impl Line {
    /// A line that is a cart by itself.
    pub(crate) fn new(number: u64, bytes: usize, content: Result<Box<RawValue>, ApiError>) -> Self {
        Self { number, last: number, bytes, content, errors: Vec::new(), items: Vec::new() }
    }

    /// Validates the line. Unknown fields are errors if `strict` has the known ones.
    ///
    /// # Errors
    /// 422 with all invalid fields; 400 or 413 if the line can't be read.
    pub(crate) fn parse(
        self,
        store_currency: Currency,
        now: DateTime<Utc>,
        strict: Option<&KnownFields>,
    ) -> Result<Cart, ApiError> {
        let (mut errors, content) = (self.errors, self.content?);
        errors.extend(strict.map(|known| known.unknown_in(&content)).unwrap_or_default());
        match import::parse(&content, store_currency, now) {
            Ok(cart) if errors.is_empty() => return Ok(cart),
            Ok(_) => {}
            // The error of a cell explains more than that its text is not a number.
            Err(mut invalid) => {
                invalid.retain(|other| !errors.iter().any(|error| error.field == other.field));
                errors.extend(invalid);
            }
        }
        for error in &mut errors {
            let index =
                error.field.strip_prefix("items[").and_then(|rest| rest.split(']').next()?.parse::<usize>().ok());
            if let Some(line) = index.and_then(|index| self.items.get(index)) {
                error.message = format!("{} (line {line})", error.message);
            }
        }
        Err(ApiError::validation(errors))
    }
}

/// A line of an import: a cart as in `POST /api/carts`, and what is known of its past.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "this is described, never made")]
pub(super) struct CartLine {
    #[schema(inline)]
    #[serde(flatten)]
    cart: NewCart,
    /// The default is abandoned.
    status: Option<CartStatus>,
    /// Allowed with the status recovered only. The default is `abandonedAt`.
    recovered_at: Option<DateTime<Utc>>,
    /// Allowed with the status expired only. The default is `abandonedAt`.
    expired_at: Option<DateTime<Utc>>,
}
