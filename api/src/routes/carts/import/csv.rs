//! Reads and writes carts as CSV (RFC 4180).
//!
//! A cell that begins with `=`, `+`, `-` or `@` is a formula to a spreadsheet, and shoppers choose
//! their names. An export puts an apostrophe before such a cell (`formulas.rs`), as OWASP advises
//! (<https://owasp.org/www-community/attacks/CSV_Injection>), and an import removes it, so that a
//! round trip is exact.

mod columns;
mod formulas;

use std::{borrow::Cow, collections::BTreeMap};

use bytes::{Buf, BytesMut};
use common::{carts::new::FieldError, json};
use csv_core::{ReadRecordResult, Reader};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use self::columns::{Column, Kind, imported};
pub(crate) use self::columns::{header, records};
use super::line::{LINE_BYTES, Line};
use crate::http::error::ApiError;

/// Maximum number of cells in a record; no sensible record has more.
const MOST_CELLS: usize = 1024;
const REQUIRED: [&str; 3] = ["customerEmail", "customerName", "items"];

/// Splits CSV into its records.
pub(crate) struct Records {
    reader: Reader,
    /// The cells of the current record, one after the other.
    cells: Vec<u8>,
    filled: usize,
    /// Where each cell ends.
    ends: Vec<usize>,
    ended: usize,
    inside: bool,
    too_long: bool,
    last_byte: u8,
    number: u64,
    bytes: usize,
    /// The column of each cell, once the header was read; cells without a column are ignored.
    header: Option<Vec<Option<Column>>>,
}

impl std::fmt::Debug for Records {
    /// Omits the cells, which contain personal data.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Records {
    pub(crate) fn new() -> Self {
        let mut reader = Reader::new();
        // The byte order mark is removed before the input gets here. The reader would remove
        // another one, even after empty lines, but only if it arrives in one piece. Reading a line
        // first moves the reader past its beginning, where it looks for the mark.
        let _ = reader.read_record(b"\n", &mut [0; 1], &mut [0; 1]);
        Self {
            reader,
            cells: vec![0; 8 * 1024],
            filled: 0,
            ends: vec![0; MOST_CELLS],
            ended: 0,
            inside: false,
            too_long: false,
            last_byte: 0,
            number: 0,
            bytes: 0,
            header: None,
        }
    }

    /// The next record that is not empty; `None` until more of the body is fed.
    ///
    /// # Errors
    /// 400 if there is no valid header, 422 if a required column is missing or a column is
    /// repeated.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut, at_end: bool) -> Result<Option<Line>, ApiError> {
        while self.read(buffer, at_end) {
            let line = match &self.header {
                Some(header) => self.line(header),
                None => {
                    self.header = Some(self.read_header()?);
                    None
                }
            };
            (self.filled, self.ended, self.bytes, self.too_long) = (0, 0, 0, false);
            if line.is_some() {
                return Ok(line);
            }
        }
        if at_end && self.header.is_none() {
            return Err(ApiError::bad_request("The body is empty; CSV begins with a header that names the columns"));
        }
        Ok(None)
    }

    /// Reads on to the end of a record; `false` if the input ends before it.
    fn read(&mut self, buffer: &mut BytesMut, at_end: bool) -> bool {
        loop {
            if !self.inside {
                self.skip_empty_lines(buffer);
            }
            if buffer.is_empty() && !at_end {
                return false;
            }
            let (cells, ends) = (&mut self.cells[self.filled..], &mut self.ends[self.ended..]);
            // The reader takes an empty buffer for the end of the input.
            let (result, read, filled, ended) = self.reader.read_record(buffer, cells, ends);
            if let Some(last) = read.checked_sub(1) {
                (self.last_byte, self.inside) = (buffer[last], true);
            }
            buffer.advance(read);
            self.bytes += read;
            self.filled += filled;
            self.ended += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if self.cells.len() < LINE_BYTES => {
                    self.cells.resize(self.cells.len() * 2, 0);
                }
                // Discard the cells; the end of the record still has to be found.
                ReadRecordResult::OutputFull => (self.filled, self.too_long) = (0, true),
                ReadRecordResult::OutputEndsFull => (self.ended, self.too_long) = (0, true),
                ReadRecordResult::Record => {
                    self.inside = false;
                    self.number += 1;
                    return true;
                }
                ReadRecordResult::End => return false,
            }
        }
    }

    /// Counts empty lines: the parser skips them silently, but they are rows in a spreadsheet.
    fn skip_empty_lines(&mut self, buffer: &mut BytesMut) {
        while let Some(byte @ (b'\n' | b'\r')) = buffer.first().copied() {
            let ends_record = byte == b'\n' && self.last_byte == b'\r';
            if !ends_record {
                self.number += 1;
            }
            self.last_byte = byte;
            buffer.advance(1);
        }
    }

    fn cells(&self) -> Result<Vec<&str>, ApiError> {
        let mut begin = 0;
        let cells = self.ends[..self.ended].iter().map(|end| {
            let cell = std::str::from_utf8(&self.cells[begin..*end]);
            begin = *end;
            cell.map_err(|_| ApiError::bad_request("The line is not UTF-8"))
        });
        cells.collect()
    }

    fn read_header(&self) -> Result<Vec<Option<Column>>, ApiError> {
        if self.too_long {
            return Err(ApiError::bad_request("The header is longer than 1 MiB or has more than 1,024 columns"));
        }
        let names: Vec<&str> = self.cells()?.into_iter().map(str::trim).collect();
        let mut errors = Vec::new();
        for Column { name, .. } in imported() {
            match names.iter().filter(|other| **other == name).count() {
                0 if REQUIRED.contains(&name) => errors.push(FieldError::new(name, "must be a column of the header")),
                0 | 1 => {}
                _ => errors.push(FieldError::new(name, "must be one column of the header, not several")),
            }
        }
        if !errors.is_empty() {
            return Err(ApiError::validation(errors));
        }
        Ok(names.iter().map(|name| imported().find(|column| column.name == *name)).collect())
    }

    /// The record as a line; `None` if all cells are empty.
    fn line(&self, header: &[Option<Column>]) -> Option<Line> {
        let content = if self.too_long {
            Err(ApiError::line_too_long())
        } else {
            match self.cells() {
                Ok(cells) if cells.iter().all(|cell| cell.is_empty()) => return None,
                cells => cells.and_then(|cells| cart(header, &cells)),
            }
        };
        Some(Line { number: self.number, bytes: self.bytes, content })
    }
}

/// The record as the JSON object it stands for; an empty cell is an absent field.
fn cart(header: &[Option<Column>], cells: &[&str]) -> Result<Box<RawValue>, ApiError> {
    if cells.len() != header.len() {
        return Err(ApiError::bad_request(format!(
            "The line has {} cells and the header {}; a cell with a comma, a quote or a line break must be quoted",
            cells.len(),
            header.len()
        )));
    }
    let mut fields = BTreeMap::new();
    for (column, cell) in header.iter().zip(cells) {
        let Some(Column { name, kind, .. }) = *column else { continue };
        if cell.is_empty() {
            continue;
        }
        let value = match kind {
            Kind::Text => Cell::Text(formulas::restored(cell)),
            Kind::Word | Kind::Computed => Cell::Text((*cell).into()),
            Kind::Json => json::parse(cell.as_bytes())
                .map(Cell::Json)
                .map_err(|error| ApiError::invalid(name, format!("must be a JSON array, but is not JSON: {error}")))?,
        };
        fields.insert(name, value);
    }
    to_raw_value(&fields).map_err(|error| ApiError::bad_request(format!("The line can't be read: {error}")))
}

/// A cell as a JSON value.
#[derive(Serialize)]
#[serde(untagged)]
enum Cell<'a> {
    Text(Cow<'a, str>),
    Json(Box<RawValue>),
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_needs_three_columns_once() {
        let refused = |header: &str| Records::new().next(&mut BytesMut::from(header), true).unwrap_err();
        assert_eq!(refused("").body().code, crate::http::error::ErrorCode::BadRequest);
        let fields = |header: &str| -> Vec<String> {
            refused(header).body().details.iter().map(|error| error.field.clone()).collect()
        };
        assert_eq!(fields("customerEmail;customerName;items\n"), REQUIRED);
        assert_eq!(fields("customerEmail,items,status,status"), ["customerName", "status"]);
    }
}
