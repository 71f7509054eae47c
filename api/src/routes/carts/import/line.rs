//! One line of an import.

use serde_json::value::RawValue;

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
