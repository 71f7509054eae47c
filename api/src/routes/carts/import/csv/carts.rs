//! Makes carts of records: one cart each, or, in the flat form, one of the records that follow each
//! other with the same `externalId`.

use std::collections::VecDeque;

use common::carts::{items::MAX_ITEMS, new::FieldError};
use serde_json::value::to_raw_value;

use super::{
    cells::{Object, Value},
    header::Header,
};
use crate::{
    http::error::ApiError,
    routes::carts::import::line::{LINE_BYTES, Line},
};

/// A record of the file.
pub(super) struct Record<'a> {
    pub(super) number: u64,
    pub(super) bytes: usize,
    /// The cells one after the other, and where each ends; `None` if the record is too long.
    pub(super) cells: Option<(&'a [u8], &'a [usize])>,
}

impl<'a> Record<'a> {
    /// The cells.
    ///
    /// # Errors
    /// 413 if the record is too long, 400 if it is not text.
    pub(super) fn cells(&self) -> Result<Vec<&'a str>, ApiError> {
        let (bytes, ends) = self.cells.ok_or_else(ApiError::line_too_long)?;
        let mut begin = 0;
        let cells = ends.iter().map(|end| {
            let cell = std::str::from_utf8(&bytes[begin..*end]);
            begin = *end;
            cell.map_err(|_| ApiError::bad_request("The line is not valid UTF-8, or UTF-16 with a byte order mark"))
        });
        cells.collect()
    }

    /// One cell; `None` if it is missing or no text.
    fn cell(&self, index: usize) -> Option<&'a str> {
        let (bytes, ends) = self.cells?;
        let begin = index.checked_sub(1).map_or(Some(0), |before| ends.get(before).copied())?;
        std::str::from_utf8(&bytes[begin..*ends.get(index)?]).ok()
    }
}

/// Collects the records of a cart. Holds no more than the items of one cart.
#[derive(Default)]
pub(super) struct Carts {
    open: Option<Open>,
    done: VecDeque<Line>,
    /// The number of the record before, if it can't be read and may belong to any cart.
    unknown: Option<u64>,
}

impl Carts {
    /// The next cart that is complete.
    pub(super) fn next(&mut self) -> Option<Line> {
        self.done.pop_front()
    }

    /// Adds the next record. Records whose cells are all empty are skipped.
    pub(super) fn add(&mut self, header: &Header, record: &Record<'_>) {
        let cells = record.cells();
        if cells.as_ref().is_ok_and(|cells| cells.iter().all(|cell| cell.is_empty())) {
            return;
        }
        let cells = cells.and_then(|cells| complete(cells, header.len()));
        if !header.is_flat() {
            self.done.push_back(alone(header, record, cells));
            return;
        }
        let id = header.external_id().and_then(|index| record.cell(index)).filter(|id| !id.is_empty());
        if let Some(open) = self.open.as_mut().filter(|open| Some(open.id.as_str()) == id) {
            open.add(header, record, cells);
            return;
        }
        let unknown = self.unknown.take();
        if let Err(error) = cells {
            // Its cells may have moved, so it may belong to the cart before it or after it.
            self.unknown = Some(record.number);
            if let Some(open) = &mut self.open {
                open.items = Err(may_lack(record.number));
            }
            self.end();
            self.done.push_back(Line::new(record.number, record.bytes, Err(error)));
            return;
        }
        self.end();
        match id {
            None => self.done.push_back(alone(header, record, cells)),
            Some(id) => {
                let mut open = Open::new(id, record.number);
                open.add(header, record, cells);
                if let Some(unknown) = unknown {
                    open.items = Err(may_lack(unknown));
                }
                self.open = Some(open);
            }
        }
    }

    /// Completes the last cart.
    pub(super) fn end(&mut self) {
        self.done.extend(self.open.take().map(Open::into_line));
    }
}

fn complete(cells: Vec<&str>, columns: usize) -> Result<Vec<&str>, ApiError> {
    if cells.len() == columns {
        return Ok(cells);
    }
    Err(ApiError::bad_request(format!(
        "The line has {} cells and the header {columns}; a cell with a separator, a quote or a line break must be quoted",
        cells.len(),
    )))
}

fn may_lack(unknown: u64) -> ApiError {
    ApiError::bad_request(format!("Line {unknown}, which may belong to this cart, can't be read"))
}

/// The cart of a single record.
fn alone(header: &Header, record: &Record<'_>, cells: Result<Vec<&str>, ApiError>) -> Line {
    let mut errors = Vec::new();
    let content = cells.and_then(|cells| {
        let mut cart = header.cart(&cells, &mut errors);
        if header.is_flat() {
            cart.0.push(("items", Value::List(vec![header.item(&cells, 0, &mut errors)])));
        }
        to_raw_value(&cart).map_err(unwritable)
    });
    Line { errors, ..Line::new(record.number, record.bytes, content) }
}

fn unwritable(error: serde_json::Error) -> ApiError {
    ApiError::bad_request(format!("The line can't be read: {error}"))
}

/// A cart whose next record may still come.
struct Open {
    /// The cell `externalId`.
    id: String,
    first: u64,
    last: u64,
    bytes: usize,
    /// The items read so far, or the reason why the cart is refused.
    items: Result<Items, ApiError>,
}

#[derive(Default)]
struct Items {
    cart: Object<'static>,
    items: Vec<Object<'static>>,
    /// The record of each item.
    records: Vec<u64>,
    errors: Vec<FieldError>,
}

impl Open {
    fn new(id: &str, first: u64) -> Self {
        Self { id: id.to_owned(), first, last: first, bytes: 0, items: Ok(Items::default()) }
    }

    fn add(&mut self, header: &Header, record: &Record<'_>, cells: Result<Vec<&str>, ApiError>) {
        self.last = record.number;
        self.bytes += record.bytes;
        let Ok(items) = &mut self.items else { return };
        let refused = match cells {
            Err(error) => ApiError::bad_request(format!("Line {}: {}", record.number, error.body().message)),
            Ok(_) if self.bytes > LINE_BYTES => ApiError::line_too_long(),
            Ok(_) if items.items.len() == MAX_ITEMS => {
                ApiError::invalid("items", format!("must be a list of 1 to {MAX_ITEMS} items (line {})", record.number))
            }
            Ok(cells) => {
                items.add(header, record.number, &cells);
                return;
            }
        };
        self.items = Err(refused);
    }

    fn into_line(self) -> Line {
        let (content, errors, items) = match self.items {
            Err(error) => (Err(error), Vec::new(), Vec::new()),
            Ok(Items { mut cart, items, records, errors }) => {
                cart.0.push(("items", Value::List(items)));
                (to_raw_value(&cart).map_err(unwritable), errors, records)
            }
        };
        Line { number: self.first, last: self.last, bytes: self.bytes, content, errors, items }
    }
}

impl Items {
    fn add(&mut self, header: &Header, record: u64, cells: &[&str]) {
        if self.items.is_empty() {
            self.cart = header.cart(cells, &mut self.errors).into_owned();
        }
        let item = header.item(cells, self.items.len(), &mut self.errors);
        self.items.push(item.into_owned());
        self.records.push(record);
    }
}

#[cfg(test)]
mod tests;
