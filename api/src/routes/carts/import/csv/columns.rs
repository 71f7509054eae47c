//! The columns of CSV, and how an export writes them.

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat, Utc};
use common::{
    carts::{Cart, RecoveredBy},
    money::Amount,
};

use super::formulas;

/// The columns of an export, in their order. An import reads them in any order.
const COLUMNS: &[Column] = &[
    Column { name: "id", kind: Kind::Computed, cell: |cart| cart.id.as_str().into() },
    Column { name: "externalId", kind: Kind::Text, cell: |cart| optional(&cart.external_id) },
    Column { name: "customerEmail", kind: Kind::Text, cell: |cart| cart.customer_email.as_str().into() },
    Column { name: "customerName", kind: Kind::Text, cell: |cart| optional(&cart.customer_name) },
    Column { name: "items", kind: Kind::Json, cell: |cart| cart.items.get().into() },
    Column { name: "adjustments", kind: Kind::Json, cell: |cart| cart.adjustments.get().into() },
    Column { name: "totalValue", kind: Kind::Number, cell: |cart| cart.total_value.to_string().into() },
    Column { name: "currency", kind: Kind::Word, cell: |cart| cart.currency.code().into() },
    Column { name: "status", kind: Kind::Word, cell: |cart| cart.status.as_str().into() },
    Column {
        name: "recoveredBy",
        kind: Kind::Computed,
        cell: |cart| cart.recovered_by.map(RecoveredBy::as_str).unwrap_or_default().into(),
    },
    Column { name: "paidValue", kind: Kind::Computed, cell: |cart| amount(cart.paid_value) },
    Column { name: "refundedValue", kind: Kind::Computed, cell: |cart| amount(cart.refunded_value) },
    Column { name: "locale", kind: Kind::Word, cell: |cart| optional(&cart.locale) },
    Column {
        name: "acceptsMarketing",
        kind: Kind::Boolean,
        cell: |cart| {
            cart.accepts_marketing.map(|accepts| if accepts { "true" } else { "false" }).unwrap_or_default().into()
        },
    },
    Column { name: "metadata", kind: Kind::Json, cell: |cart| cart.metadata.get().into() },
    Column { name: "abandonedAt", kind: Kind::Instant, cell: |cart| instant(Some(cart.abandoned_at)) },
    Column { name: "recoveredAt", kind: Kind::Instant, cell: |cart| instant(cart.recovered_at) },
    Column { name: "expiredAt", kind: Kind::Instant, cell: |cart| instant(cart.expired_at) },
    Column { name: "paymentLink", kind: Kind::Computed, cell: |cart| optional(&cart.payment_link) },
    Column { name: "paymentLinkExpiresAt", kind: Kind::Computed, cell: |cart| instant(cart.payment_link_expires_at) },
    Column { name: "createdAt", kind: Kind::Computed, cell: |cart| instant(Some(cart.created_at)) },
    Column { name: "updatedAt", kind: Kind::Computed, cell: |cart| instant(Some(cart.updated_at)) },
];

/// Columns that only an import reads: those of the flat form, and those that become adjustments.
const IMPORTED_ONLY: [Imported; 10] = [
    Imported { name: "itemName", kind: Kind::Text, place: Place::Item("name") },
    Imported { name: "itemQuantity", kind: Kind::Number, place: Place::Item("quantity") },
    Imported { name: "itemPrice", kind: Kind::Number, place: Place::Item("price") },
    Imported { name: "itemTotal", kind: Kind::Number, place: Place::Item("total") },
    Imported { name: "itemSku", kind: Kind::Text, place: Place::Item("sku") },
    Imported { name: "itemUrl", kind: Kind::Text, place: Place::Item("url") },
    Imported { name: "itemImageUrl", kind: Kind::Text, place: Place::Item("imageUrl") },
    Imported {
        name: "shipping",
        kind: Kind::Number,
        place: Place::Adjustment { name: "Shipping", is_subtracted: false },
    },
    Imported { name: "tax", kind: Kind::Number, place: Place::Adjustment { name: "Tax", is_subtracted: false } },
    Imported {
        name: "discount",
        kind: Kind::Number,
        place: Place::Adjustment { name: "Discount", is_subtracted: true },
    },
];

#[derive(Debug, Clone, Copy)]
struct Column {
    name: &'static str,
    kind: Kind,
    /// The cell of an exported cart, before its formulas are escaped.
    cell: fn(&Cart) -> Cow<'_, str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Free text, which may have to be escaped so that it is not a formula.
    Text,
    Word,
    Number,
    Boolean,
    Instant,
    Json,
    /// Computed by the server; an import ignores it.
    Computed,
}

/// A column that an import reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Imported {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) place: Place,
}

/// The part of a cart that a cell belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// The cart; its field has the name of the column.
    Cart,
    /// The item of the record, as the field of this name.
    Item(&'static str),
    /// The cart's adjustments, as one with this name.
    Adjustment { name: &'static str, is_subtracted: bool },
}

/// The columns that an import reads.
pub(super) fn imported() -> impl Iterator<Item = Imported> {
    let exported = COLUMNS.iter().filter(|column| column.kind != Kind::Computed);
    exported.map(|column| Imported { name: column.name, kind: column.kind, place: Place::Cart }).chain(IMPORTED_ONLY)
}

/// Whether an import or an export has a column of this name.
pub(super) fn is_known(name: &str) -> bool {
    COLUMNS.iter().any(|column| column.name == name) || IMPORTED_ONLY.iter().any(|column| column.name == name)
}

/// The first line of an export.
pub(crate) fn header() -> Vec<u8> {
    write([COLUMNS.iter().map(|column| column.name.into())])
}

/// The records of these carts.
pub(crate) fn records(carts: &[Cart]) -> Vec<u8> {
    let escaped = |column: &Column, cart| {
        let cell = (column.cell)(cart);
        match column.kind {
            Kind::Text => formulas::escaped(&cell).into_owned().into(),
            Kind::Json => formulas::escaped_json(&cell).into_owned().into(),
            Kind::Word | Kind::Number | Kind::Boolean | Kind::Instant | Kind::Computed => cell,
        }
    };
    write(carts.iter().map(|cart| COLUMNS.iter().map(move |column| escaped(column, cart))))
}

fn write<'c>(records: impl IntoIterator<Item = impl Iterator<Item = Cow<'c, str>>>) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for record in records {
        // Writing to memory can't fail, and all records have the same number of cells.
        record.for_each(|cell| writer.write_field(cell.as_bytes()).unwrap_or_default());
        writer.write_record(None::<&[u8]>).unwrap_or_default();
    }
    writer.into_inner().unwrap_or_default()
}

fn optional(text: &Option<String>) -> Cow<'_, str> {
    text.as_deref().unwrap_or_default().into()
}

fn amount(amount: Option<Amount>) -> Cow<'static, str> {
    amount.map(|amount| amount.to_string()).unwrap_or_default().into()
}

fn instant(at: Option<DateTime<Utc>>) -> Cow<'static, str> {
    at.map(|at| at.to_rfc3339_opts(SecondsFormat::AutoSi, true)).unwrap_or_default().into()
}
