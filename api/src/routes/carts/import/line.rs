//! One line of an import.

use serde_json::value::RawValue;

use crate::http::error::ApiError;

/// The size of a line at most, in bytes.
pub(crate) const LINE_BYTES: usize = 1024 * 1024;

/// One line of an import.
#[derive(Debug)]
pub(crate) struct Line {
    /// 1 is the first. Of CSV it is the number of the record, as spreadsheets
    /// count their rows: the header is 1.
    pub(crate) number: u64,
    /// How long it was.
    pub(crate) bytes: usize,
    /// What it says, or why that can't be read.
    pub(crate) content: Result<Box<RawValue>, ApiError>,
}
