//! How erasure, export and retention treat a table and its columns.

/// A table and its columns.
#[derive(Debug)]
pub struct Table {
    /// The table's name.
    pub name: &'static str,
    /// The rows that are about a shopper; `None` if the table holds no personal data of its own.
    pub rows: Option<Rows>,
    /// All columns, if `rows` is `Some`; else those that could hold text.
    pub columns: &'static [Column],
}

/// The rows of a table that are about a shopper. All conditions are SQL.
#[derive(Debug)]
pub struct Rows {
    /// The label of these rows in receipts and exports.
    pub label: &'static str,
    /// The condition for the rows of the carts `$1`, supported by an index if rows can be erased.
    pub of_carts: &'static str,
    /// The condition for further rows of these carts, without an index; `None` if there are none.
    pub of_carts_by_scan: Option<&'static str>,
    /// The relation that an export reads: the table, or one with more data.
    pub export_from: &'static str,
    /// The order of the rows in an export.
    pub order: &'static str,
    /// The treatment of the rows when their cart is deleted.
    pub on_erase: OnErase,
}

/// The treatment of a row when its cart is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnErase {
    /// The row is deleted.
    Delete,
    /// The row is kept without its personal data.
    Redact {
        /// A further assignment in SQL, in which `$2` is the current time; may be empty.
        set: &'static str,
    },
}

/// A column of a table.
#[derive(Debug)]
pub struct Column {
    /// The column's name.
    pub name: &'static str,
    /// The kind of data in the column.
    pub content: Content,
}

/// The kind of data in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Personal data, or data that may lead to a person.
    Personal {
        /// The value in SQL after erasure, if the row is kept.
        becomes: &'static str,
        /// Free text from third parties, which may contain an e-mail address.
        free_text: bool,
        /// Whether the value lets its holder act for the shopper. Secrets are not exported.
        secret: bool,
    },
    /// A number, code or id of a shopper's cart. Exported; identifies nobody once the cart is
    /// deleted.
    Related,
    /// Like [`Content::Related`], but a time.
    Time,
    /// No data of a shopper, for this reason.
    Other(&'static str),
}

pub(super) const fn personal(name: &'static str, becomes: &'static str) -> Column {
    Column { name, content: Content::Personal { becomes, free_text: false, secret: false } }
}

/// A working link or its token: erased like all personal data, but never exported.
pub(super) const fn secret(name: &'static str, becomes: &'static str) -> Column {
    Column { name, content: Content::Personal { becomes, free_text: false, secret: true } }
}

pub(super) const fn free_text(name: &'static str, becomes: &'static str) -> Column {
    Column { name, content: Content::Personal { becomes, free_text: true, secret: false } }
}

pub(super) const fn related(name: &'static str) -> Column {
    Column { name, content: Content::Related }
}

pub(super) const fn time(name: &'static str) -> Column {
    Column { name, content: Content::Time }
}

pub(super) const fn other(name: &'static str, why: &'static str) -> Column {
    Column { name, content: Content::Other(why) }
}

pub(super) const fn without_shoppers(name: &'static str, columns: &'static [Column]) -> Table {
    Table { name, rows: None, columns }
}
