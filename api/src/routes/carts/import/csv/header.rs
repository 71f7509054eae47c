//! The header of a CSV file: what each cell of a record is.

use common::carts::new::{FieldError, MAX_ERRORS};

use super::{
    cells::{self, Object, Value},
    columns::{Imported, Place, imported, is_known},
};
use crate::http::error::ApiError;

/// The flat form needs these columns instead of `items`.
const OF_AN_ITEM: [&str; 3] = ["itemName", "itemQuantity", "itemPrice"];

/// The columns of a file.
pub(super) struct Header {
    /// The column of each cell; `None` if an import ignores it.
    columns: Vec<Option<Imported>>,
    separator: u8,
    /// Whether each record is one item.
    is_flat: bool,
    external_id: Option<usize>,
}

impl Header {
    /// # Errors
    /// 422 if a required column is missing, a column is repeated, or columns exclude each other.
    pub(super) fn new(names: &[&str], separator: u8) -> Result<Self, ApiError> {
        let columns: Vec<Option<Imported>> =
            names.iter().map(|name| imported().find(|column| column.name == name.trim())).collect();
        let count = |name: &str| columns.iter().flatten().filter(|column| column.name == name).count();
        let any = |place: fn(&Place) -> bool| columns.iter().flatten().any(|column| place(&column.place));
        let (is_flat, has_items) = (any(|place| matches!(place, Place::Item(_))), count("items") > 0);
        let missing = |name: &str| count(name) == 0;

        let mut errors = Vec::new();
        let mut refuse = |name: &str, message: &str| errors.push(FieldError::new(name, message));
        if missing("customerEmail") {
            refuse("customerEmail", "must be a column of the header");
        }
        match (has_items, is_flat) {
            (false, false) => {
                refuse(
                    "items",
                    "must be a column of the header, or itemName, itemQuantity and itemPrice for each item",
                );
            }
            (true, true) => refuse("items", "must not be a column of a header that has columns for each item"),
            (false, true) => {
                OF_AN_ITEM.into_iter().filter(|name| missing(name)).for_each(|name| {
                    refuse(name, "must be a column of the header");
                });
            }
            (true, false) => {}
        }
        if !missing("adjustments") && any(|place| matches!(place, Place::Adjustment { .. })) {
            refuse("adjustments", "must not be a column of a header that has shipping, tax or discount");
        }
        imported().filter(|column| count(column.name) > 1).for_each(|column| {
            refuse(column.name, "must be one column of the header, not several");
        });
        if !errors.is_empty() {
            return Err(ApiError::validation(errors));
        }
        let external_id =
            columns.iter().position(|column| column.as_ref().is_some_and(|column| column.name == "externalId"));
        Ok(Self { columns, separator, is_flat, external_id })
    }

    /// Whether a cart may have several records, one for each item.
    pub(super) fn is_flat(&self) -> bool {
        self.is_flat
    }

    /// The place of `externalId` in a record; `None` if the file has none.
    pub(super) fn external_id(&self) -> Option<usize> {
        self.external_id
    }

    /// The number of cells of a record.
    pub(super) fn len(&self) -> usize {
        self.columns.len()
    }

    /// The fields of a cart without the item of the flat form. Empty cells are absent fields; cells
    /// that can't be read are text and have an error.
    pub(super) fn cart<'a>(&self, cells: &[&'a str], errors: &mut Vec<FieldError>) -> Object<'a> {
        let (mut fields, mut adjustments) = (Vec::new(), None);
        for (column, cell) in self.filled(cells) {
            match column.place {
                Place::Cart => fields.push((column.name, self.value(column, cell, column.name, errors))),
                Place::Adjustment { name, is_subtracted } => {
                    let list = adjustments.get_or_insert_with(|| Ok(Vec::new()));
                    match (self.adjustment(name, is_subtracted, cell), list) {
                        (Ok(adjustment), Ok(list)) => list.extend(adjustment),
                        (Err(message), list) => {
                            *list = Err(format!("can't be read from {}: it {message}", column.name))
                        }
                        (Ok(_), Err(_)) => {}
                    }
                }
                Place::Item(_) => {}
            }
        }
        match adjustments {
            Some(Ok(list)) => fields.push(("adjustments", Value::List(list))),
            Some(Err(message)) => {
                note(errors, "adjustments".to_owned(), message);
                fields.push(("adjustments", Value::Text("".into())));
            }
            None => {}
        }
        Object(fields)
    }

    /// The item of a record in the flat form, the cart's `index`th.
    pub(super) fn item<'a>(&self, cells: &[&'a str], index: usize, errors: &mut Vec<FieldError>) -> Object<'a> {
        let mut fields = Vec::new();
        for (column, cell) in self.filled(cells) {
            if let Place::Item(name) = column.place {
                fields.push((name, self.value(column, cell, &format!("items[{index}].{name}"), errors)));
            }
        }
        Object(fields)
    }

    fn filled<'h, 'a>(&'h self, cells: &'h [&'a str]) -> impl Iterator<Item = (&'h Imported, &'a str)> {
        let columns = self.columns.iter().zip(cells);
        columns.filter_map(|(column, cell)| Some((column.as_ref()?, *cell))).filter(|(_, cell)| !cell.is_empty())
    }

    fn value<'a>(&self, column: &Imported, cell: &'a str, field: &str, errors: &mut Vec<FieldError>) -> Value<'a> {
        cells::value(cell, column.kind, self.separator).unwrap_or_else(|message| {
            note(errors, field.to_owned(), message);
            Value::Text(cell.into())
        })
    }

    /// `{"name", "amount"}`; `None` if the amount is 0.
    fn adjustment(
        &self,
        name: &'static str,
        is_subtracted: bool,
        cell: &str,
    ) -> Result<Option<Object<'static>>, String> {
        let mut amount = cells::number(cell, self.separator)?;
        if amount.get().trim_start_matches('-').bytes().all(|digit| matches!(digit, b'0' | b'.')) {
            return Ok(None);
        }
        if is_subtracted {
            let negative = Some(&amount).filter(|amount| !amount.get().starts_with('-'));
            let negative = negative.map(|amount| format!("-{}", amount.get()));
            amount = cells::number(&negative.ok_or("must not be negative, because it is subtracted")?, b',')?;
        }
        Ok(Some(Object(vec![("name", Value::Text(name.into())), ("amount", Value::Json(amount))])))
    }
}

/// Refuses columns that neither an import nor an export has.
///
/// # Errors
/// 422 with the unknown columns, at most twenty.
pub(super) fn refuse_unknown(names: &[&str]) -> Result<(), ApiError> {
    let unknown = names.iter().map(|name| name.trim()).filter(|name| !name.is_empty() && !is_known(name));
    let errors: Vec<FieldError> =
        unknown.take(MAX_ERRORS).map(|name| FieldError::new(name, "is not a column of an import")).collect();
    if errors.is_empty() { Ok(()) } else { Err(ApiError::validation(errors)) }
}

fn note(errors: &mut Vec<FieldError>, field: String, message: String) {
    if errors.len() < MAX_ERRORS {
        errors.push(FieldError { field, message });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(header: &str) -> Vec<String> {
        let names: Vec<&str> = header.split(',').collect();
        let error = Header::new(&names, b',').err();
        error.map(|error| error.body().details.iter().map(|error| error.field.clone()).collect()).unwrap_or_default()
    }

    #[test]
    fn a_header_has_items_in_one_form() {
        for header in [
            "customerEmail,items",
            "items, customerEmail ,other,other",
            "customerEmail,itemName,itemQuantity,itemPrice",
            "externalId,customerEmail,itemPrice,itemSku,itemName,itemQuantity,shipping,tax,discount",
        ] {
            assert!(refused(header).is_empty(), "{header}");
        }
        for (header, fields) in [
            ("", &["customerEmail", "items"][..]),
            ("customerEmail;items", &["customerEmail", "items"]),
            ("customerEmail,items,itemName", &["items"]),
            ("customerEmail,items,itemSku", &["items"]),
            ("customerEmail,itemSku", &["itemName", "itemQuantity", "itemPrice"]),
            ("customerEmail,itemName", &["itemQuantity", "itemPrice"]),
            ("customerEmail,items,adjustments,discount", &["adjustments"]),
            ("items,status,status", &["customerEmail", "status"]),
            ("customerEmail,itemName,itemQuantity,itemPrice,itemName", &["itemName"]),
            ("customerEmail,items,tax,tax", &["tax"]),
        ] {
            assert_eq!(refused(header), fields, "{header}");
        }
    }

    #[test]
    fn columns_become_adjustments() {
        let header = Header::new(&["customerEmail", "items", "shipping", "tax", "discount"], b';').unwrap();
        let adjustments = |cells: [&str; 3]| {
            let mut errors = Vec::new();
            let cart = header.cart(&["", "", cells[0], cells[1], cells[2]], &mut errors);
            let cart = serde_json::to_string(&cart).unwrap();
            (cart, errors.into_iter().map(|error| format!("{} {}", error.field, error.message)).collect::<String>())
        };
        let shipping = r#"{"name":"Shipping","amount":4.90}"#;
        let discount = r#"{"name":"Discount","amount":-1000.5}"#;
        assert_eq!(
            adjustments(["4,90", "0,00", "1.000,5"]),
            (format!(r#"{{"adjustments":[{shipping},{discount}]}}"#), String::new())
        );
        assert_eq!(adjustments(["", "", ""]).0, "{}");
        let tax = r#"{"adjustments":[{"name":"Tax","amount":-0.01}]}"#;
        assert_eq!(adjustments(["0", "-0,01", "-0"]).0, tax);
        let (cart, error) = adjustments(["4,90", "", "-1"]);
        assert_eq!(cart, r#"{"adjustments":""}"#);
        assert_eq!(error, "adjustments can't be read from discount: it must not be negative, because it is subtracted");
    }
}
