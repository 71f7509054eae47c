//! The columns of CSV, and how an export writes them.

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat, Utc};
use common::carts::Cart;

use super::formulas;

/// The columns of an export, in their order. An import reads them in any order.
const COLUMNS: [Column; 13] = [
    Column { name: "id", kind: Kind::Computed, cell: |cart| cart.id.as_str().into() },
    Column {
        name: "externalId",
        kind: Kind::Text,
        cell: |cart| cart.external_id.as_deref().unwrap_or_default().into(),
    },
    Column { name: "customerEmail", kind: Kind::Text, cell: |cart| cart.customer_email.as_str().into() },
    Column {
        name: "customerName",
        kind: Kind::Text,
        cell: |cart| cart.customer_name.as_deref().unwrap_or_default().into(),
    },
    Column { name: "items", kind: Kind::Json, cell: |cart| cart.items.get().into() },
    Column { name: "totalValue", kind: Kind::Computed, cell: |cart| cart.total_value.to_string().into() },
    Column { name: "currency", kind: Kind::Word, cell: |cart| cart.currency.code().into() },
    Column { name: "status", kind: Kind::Word, cell: |cart| cart.status.as_str().into() },
    Column { name: "abandonedAt", kind: Kind::Word, cell: |cart| instant(Some(cart.abandoned_at)) },
    Column { name: "recoveredAt", kind: Kind::Word, cell: |cart| instant(cart.recovered_at) },
    Column { name: "expiredAt", kind: Kind::Word, cell: |cart| instant(cart.expired_at) },
    Column { name: "createdAt", kind: Kind::Computed, cell: |cart| instant(Some(cart.created_at)) },
    Column { name: "updatedAt", kind: Kind::Computed, cell: |cart| instant(Some(cart.updated_at)) },
];

#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// The cell of an exported cart, before its formulas are escaped.
    cell: fn(&Cart) -> Cow<'_, str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Free text, which may have to be escaped so that it is not a formula.
    Text,
    Word,
    Json,
    /// Computed by this store; an import ignores it.
    Computed,
}

/// The columns that an import reads.
pub(super) fn imported() -> impl Iterator<Item = Column> {
    COLUMNS.into_iter().filter(|column| column.kind != Kind::Computed)
}

/// The first line of an export.
pub(crate) fn header() -> Vec<u8> {
    write([COLUMNS.map(|column| column.name.into())])
}

/// The records of these carts.
pub(crate) fn records(carts: &[Cart]) -> Vec<u8> {
    let escaped = |column: Column, cart| {
        let cell = (column.cell)(cart);
        match column.kind {
            Kind::Text => formulas::escaped(&cell).into_owned().into(),
            Kind::Json => formulas::escaped_json(&cell).into_owned().into(),
            Kind::Word | Kind::Computed => cell,
        }
    };
    write(carts.iter().map(|cart| COLUMNS.map(|column| escaped(column, cart))))
}

fn write<'c>(records: impl IntoIterator<Item = [Cow<'c, str>; COLUMNS.len()]>) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for record in records {
        // Writing to memory can't fail, and all records have the same number of cells.
        writer.write_record(record.iter().map(|cell| cell.as_bytes())).unwrap_or_default();
    }
    writer.into_inner().unwrap_or_default()
}

fn instant(at: Option<DateTime<Utc>>) -> Cow<'static, str> {
    at.map(|at| at.to_rfc3339_opts(SecondsFormat::AutoSi, true)).unwrap_or_default().into()
}
