//! Reads and writes carts as CSV (RFC 4180), also in the variants of spreadsheets and shops.
//!
//! A cell that begins with `=`, `+`, `-` or `@` is a formula to a spreadsheet, and shoppers choose
//! their names. An export puts an apostrophe before such a cell (`formulas.rs`), as OWASP advises
//! (<https://owasp.org/www-community/attacks/CSV_Injection>), and an import removes it, so that a
//! round trip is exact.

mod carts;
mod cells;
mod columns;
mod formulas;
mod header;
mod separator;

use bytes::{Buf, BytesMut};
use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

pub(crate) use self::columns::{header, records};
use self::{
    carts::{Carts, Record},
    header::Header,
    separator::{FirstLine, named_separator},
};
use super::line::{LINE_BYTES, Line};
use crate::http::error::ApiError;

/// Maximum number of cells in a record; no sensible record has more.
const MAX_CELLS: usize = 1024;

/// Splits CSV into its records.
pub(crate) struct Records {
    first_line: FirstLine,
    /// The separator; `None` until the first line was read.
    separator: Option<u8>,
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
    header: Option<Header>,
    carts: Carts,
    is_strict: bool,
}

impl std::fmt::Debug for Records {
    /// Omits the cells, which contain personal data.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Records {
    pub(crate) fn new() -> Self {
        Self {
            first_line: FirstLine::default(),
            separator: None,
            reader: Reader::new(),
            cells: vec![0; 8 * 1024],
            filled: 0,
            ends: vec![0; MAX_CELLS],
            ended: 0,
            inside: false,
            too_long: false,
            last_byte: 0,
            number: 0,
            bytes: 0,
            header: None,
            carts: Carts::default(),
            is_strict: false,
        }
    }

    /// Makes unknown columns an error.
    pub(crate) fn refuse_unknown_columns(&mut self) {
        self.is_strict = true;
    }

    /// The next cart; `None` until more of the body is fed.
    ///
    /// # Errors
    /// 400 if there is no valid header, 422 if a required column is missing or columns exclude each
    /// other.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut, at_end: bool) -> Result<Option<Line>, ApiError> {
        loop {
            if let Some(line) = self.carts.next() {
                return Ok(Some(line));
            }
            if !self.read(buffer, at_end)? {
                break;
            }
            self.take_record()?;
        }
        if at_end && self.header.is_none() {
            return Err(ApiError::bad_request("The body is empty; CSV begins with a header that names the columns"));
        }
        if at_end {
            self.carts.end();
        }
        Ok(self.carts.next())
    }

    /// Adds the record that was read to the carts; the first one is the header.
    fn take_record(&mut self) -> Result<(), ApiError> {
        let cells = (&self.cells[..self.filled], &self.ends[..self.ended]);
        let record = Record { number: self.number, bytes: self.bytes, cells: Some(cells).filter(|_| !self.too_long) };
        match (&self.header, self.separator) {
            (Some(header), _) => self.carts.add(header, &record),
            (None, separator) => {
                if self.too_long {
                    return Err(header_too_long());
                }
                let names = record.cells()?;
                if names.iter().any(|name| name.contains('\0')) {
                    return Err(ApiError::bad_request(
                        "The header contains NUL: UTF-16 needs a byte order mark, or save the file as UTF-8",
                    ));
                }
                let header = Header::new(&names, separator.unwrap_or(b','))?;
                if self.is_strict {
                    header::refuse_unknown(&names)?;
                }
                self.header = Some(header);
            }
        }
        (self.filled, self.ended, self.bytes, self.too_long) = (0, 0, 0, false);
        Ok(())
    }

    /// Reads on to the end of a record; `false` if the input ends before it.
    fn read(&mut self, buffer: &mut BytesMut, at_end: bool) -> Result<bool, ApiError> {
        loop {
            if !self.inside {
                self.skip_empty_lines(buffer);
            }
            if buffer.is_empty() && !at_end {
                return Ok(false);
            }
            if self.separator.is_none() {
                if self.find_separator(buffer, at_end)? {
                    continue;
                }
                return Ok(false);
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
                    return Ok(true);
                }
                ReadRecordResult::End => return Ok(false),
            }
        }
    }

    /// Finds the separator once the first line has arrived; `false` before. Removes a line that
    /// names the separator: spreadsheets do not count it as a row.
    fn find_separator(&mut self, buffer: &mut BytesMut, at_end: bool) -> Result<bool, ApiError> {
        let length = self.first_line.scan(buffer, at_end);
        if length.unwrap_or(buffer.len()) > LINE_BYTES {
            return Err(header_too_long());
        }
        let Some(length) = length else { return Ok(false) };
        let separator = match named_separator(&buffer[..length]) {
            Some(Ok(separator)) => {
                buffer.advance(length);
                if let Some(end) = buffer.first().copied() {
                    self.last_byte = end;
                    buffer.advance(1);
                }
                separator
            }
            Some(Err(_)) => {
                return Err(ApiError::bad_request(
                    "The separator that sep= names must be a comma, a semicolon or a tab",
                ));
            }
            None => self.first_line.separator(),
        };
        self.separator = Some(separator);
        self.reader = ReaderBuilder::new().delimiter(separator).build();
        // The byte order mark is removed before the input gets here. The reader would remove
        // another one, even after empty lines, but only if it arrives in one piece. Reading a line
        // first moves the reader past its beginning, where it looks for the mark.
        let _ = self.reader.read_record(b"\n", &mut [0; 1], &mut [0; 1]);
        Ok(true)
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
}

fn header_too_long() -> ApiError {
    ApiError::bad_request("The header is longer than 1 MiB or has more than 1,024 columns")
}

#[cfg(test)]
mod properties;
