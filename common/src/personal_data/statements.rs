//! SQL statements generated from the list of fields. sqlx's macros can't check generated statements
//! at compile time; the tests run each of them.

use std::sync::LazyLock;

use super::{
    fields::TABLES,
    treatment::{Content, OnErase, Rows, Table},
};

/// The statements for the rows of one table that are about a shopper. Parameters: the ids of the
/// carts, the current time, and the spellings of an address.
#[derive(Debug)]
pub(super) struct Statements {
    pub(super) label: &'static str,
    /// Removes personal data; `None` if there is none or the rows are deleted.
    pub(super) blank: Option<String>,
    /// Like `blank`, but with a scan for further rows.
    pub(super) blank_by_scan: Option<String>,
    /// Counts the rows that are deleted with their carts.
    pub(super) count: Option<String>,
    /// Returns all rows as a JSON array.
    pub(super) export: String,
}

static STATEMENTS: LazyLock<Vec<Statements>> = LazyLock::new(|| {
    let written = |table: &Table| table.rows.as_ref().map(|rows| Statements::of(table, rows));
    TABLES.iter().filter_map(written).collect()
});

static ANONYMIZE: LazyLock<String> = LazyLock::new(|| {
    let carts = TABLES.iter().find(|table| table.name == "carts");
    let set = carts.map(assignments).unwrap_or_default();
    format!("update carts set {set}, anonymized_at = $2 where id = any ($1)")
});

/// The statements in the order of execution. The carts themselves are deleted last.
pub(super) fn all() -> &'static [Statements] {
    &STATEMENTS
}

/// Removes the personal data of carts that are kept. Parameters: their ids, and the current time.
pub(super) fn anonymize() -> &'static str {
    &ANONYMIZE
}

/// The columns with personal data, and their values after erasure.
fn personal(table: &Table) -> impl Iterator<Item = (&'static str, &'static str)> {
    table.columns.iter().filter_map(|column| match column.content {
        Content::Personal { becomes, .. } => Some((column.name, becomes)),
        _ => None,
    })
}

fn assignments(table: &Table) -> String {
    let parts: Vec<String> = personal(table).map(|(name, becomes)| format!("{name} = {becomes}")).collect();
    parts.join(", ")
}

impl Statements {
    fn of(table: &Table, rows: &Rows) -> Self {
        let deleted = rows.on_erase == OnErase::Delete;
        let blank = |which: &str| (!deleted && personal(table).next().is_some()).then(|| blank(table, rows, which));
        let count = format!("select count(*) from {} source where {}", rows.export_from, rows.of_carts);
        Self {
            label: rows.label,
            blank: blank(rows.of_carts),
            blank_by_scan: blank(&by_scan(table, rows)),
            count: deleted.then_some(count),
            export: export(table, rows),
        }
    }
}

fn blank(table: &Table, rows: &Rows, which: &str) -> String {
    let mut set = assignments(table);
    if let OnErase::Redact { set: besides } = rows.on_erase
        && !besides.is_empty()
    {
        set = format!("{set}, {besides}");
    }
    // Writes and counts only rows that change. Compares as text, because not every type has an
    // equality.
    let differs: Vec<String> =
        personal(table).map(|(name, becomes)| format!("({name})::text is distinct from ({becomes})::text")).collect();
    format!("update {} set {set} where ({which}) and ({})", table.name, differs.join(" or "))
}

fn by_scan(table: &Table, rows: &Rows) -> String {
    let mut which = vec![rows.of_carts.to_owned()];
    which.extend(rows.of_carts_by_scan.map(str::to_owned));
    let mentions = table.columns.iter().filter_map(|column| match column.content {
        Content::Personal { free_text: true, .. } => Some(format!(
            "exists (select from unnest($3::text[]) as spelling (address) \
                 where position(lower(address collate \"C\") in lower({}::text collate \"C\")) > 0)",
            column.name,
        )),
        _ => None,
    });
    which.extend(mentions);
    which.join(" or ")
}

fn export(table: &Table, rows: &Rows) -> String {
    let fields: Vec<String> = table
        .columns
        .iter()
        .filter_map(|column| {
            let value = match column.content {
                Content::Personal { secret: false, .. } | Content::Related => column.name.to_owned(),
                Content::Time => format!("cart_event_time({})", column.name),
                Content::Personal { secret: true, .. } | Content::Other(_) => return None,
            };
            Some(format!("'{}', {value}", camel_case(column.name)))
        })
        .collect();
    let which: Vec<&str> = std::iter::once(rows.of_carts).chain(rows.of_carts_by_scan).collect();
    format!(
        "select coalesce(json_agg(json_build_object({}) order by {}), '[]')::text from {} source where {}",
        fields.join(", "),
        rows.order,
        rows.export_from,
        which.join(" or "),
    )
}

/// Converts a column name to the API's camelCase.
fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut name, word| {
        let mut letters = word.chars();
        name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        name.push_str(letters.as_str());
        name
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_the_api_writes_them() {
        assert_eq!(camel_case("customer_email"), "customerEmail");
        assert_eq!(camel_case("id"), "id");
    }

    #[test]
    fn every_table_about_shoppers_has_its_statements() {
        let labels: Vec<&str> = all().iter().map(|statements| statements.label).collect();
        let expected = [
            "carts",
            "timeline",
            "paymentLinks",
            "recoveryLinks",
            "jobs",
            "idempotencyKeys",
            "stripeEvents",
            "reversals",
        ];
        assert_eq!(labels, expected);
        assert!(
            anonymize().starts_with("update carts set external_id = null, customer_email = 'erased@erased.invalid', ")
        );
    }
}
