//! Reads cells of CSV as JSON values.

use std::borrow::Cow;

use chrono::DateTime;
use common::{clock::parse_instant, json};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::{columns::Kind, formulas};

/// A cell, or what is made of several cells, as a JSON value.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Value<'a> {
    Text(Cow<'a, str>),
    Boolean(bool),
    /// A number, or the JSON that a cell contains.
    Json(Box<RawValue>),
    List(Vec<Object<'a>>),
}

/// A JSON object.
#[derive(Debug, Default)]
pub(super) struct Object<'a>(pub(super) Vec<(&'static str, Value<'a>)>);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl Object<'_> {
    /// The same object, which borrows nothing.
    pub(super) fn into_owned(self) -> Object<'static> {
        Object(self.0.into_iter().map(|(name, value)| (name, value.into_owned())).collect())
    }
}

impl Value<'_> {
    fn into_owned(self) -> Value<'static> {
        match self {
            Value::Text(text) => Value::Text(text.into_owned().into()),
            Value::Boolean(boolean) => Value::Boolean(boolean),
            Value::Json(json) => Value::Json(json),
            Value::List(list) => Value::List(list.into_iter().map(Object::into_owned).collect()),
        }
    }
}

/// The value of a cell in a file with this separator.
///
/// # Errors
/// What the cell must be.
pub(super) fn value(cell: &str, kind: Kind, separator: u8) -> Result<Value<'_>, String> {
    Ok(match kind {
        Kind::Text => Value::Text(formulas::restored(cell)),
        Kind::Word | Kind::Computed => Value::Text(cell.into()),
        Kind::Number => Value::Json(number(cell, separator)?),
        Kind::Boolean => Value::Boolean(boolean(cell)?),
        Kind::Instant => Value::Text(instant(cell)?),
        Kind::Json => Value::Json(
            json::parse(cell.as_bytes()).map_err(|error| format!("must be JSON, but can't be read: {error}"))?,
        ),
    })
}

/// Reads a number. Files whose separator is the comma have decimal points. The others may have
/// either, and points between thousands if a decimal comma follows.
pub(super) fn number(cell: &str, separator: u8) -> Result<Box<RawValue>, String> {
    let text = cell.trim();
    let plain = if separator == b',' {
        text.into()
    } else {
        // A comma in a file with `;` is a decimal one. Tabs occur in every country.
        let marks = if separator == b';' { &['.'][..] } else { &['.', ','] };
        if let Some((thousands, decimals)) = marks.iter().find_map(|mark| two_readings(text, *mark)) {
            return Err(format!("could mean {thousands} or {decimals}: write one of these"));
        }
        with_decimal_point(text)
    };
    let number = json::parse(plain.as_bytes()).ok().filter(|number| json::number(number).is_some());
    number.ok_or_else(|| {
        let or_comma = if separator == b',' { "" } else { " or 12,50" };
        format!("must be a number such as 12.50{or_comma}, without currency or thousands separators")
    })
}

/// The two readings of a number such as `1.234`; `None` if it has only one.
fn two_readings(text: &str, mark: char) -> Option<(String, String)> {
    let (whole, rest) = text.split_once(mark)?;
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    let is_one = !(1..=3).contains(&digits.len()) || digits.starts_with('0') || rest.len() != 3;
    let all_digits = digits.bytes().chain(rest.bytes()).all(|byte| byte.is_ascii_digit());
    (!is_one && all_digits).then(|| (format!("{whole}{rest}"), format!("{whole}{mark}{rest}0")))
}

/// `1.234,50` and `1234,50` as `1234.50`; other text as it is.
fn with_decimal_point(text: &str) -> Cow<'_, str> {
    let Some((whole, decimals)) = text.split_once(',') else { return text.into() };
    let mut groups = whole.strip_prefix('-').unwrap_or(whole).split('.');
    let first = groups.next().unwrap_or_default();
    let mut others = groups.peekable();
    let has_thousands = others.peek().is_some();
    if has_thousands && !((1..=3).contains(&first.len()) && others.all(|group| group.len() == 3)) {
        return text.into();
    }
    format!("{}.{decimals}", whole.replace('.', "")).into()
}

fn boolean(cell: &str) -> Result<bool, String> {
    match cell.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" => Ok(true),
        "false" | "no" => Ok(false),
        _ => Err("must be true, false, yes or no; empty if it is not known".to_owned()),
    }
}

/// Reads an instant, also as Shopify writes it: `2024-01-15 10:30:00 -0500`.
fn instant(cell: &str) -> Result<Cow<'_, str>, String> {
    if parse_instant(cell).is_some() {
        return Ok(cell.into());
    }
    let shopify = DateTime::parse_from_str(cell, "%Y-%m-%d %H:%M:%S %z").ok().map(|instant| instant.to_rfc3339());
    shopify.filter(|text| parse_instant(text).is_some()).map(Cow::from).ok_or_else(|| {
        "must be an instant with its offset from UTC, such as 2024-01-15T10:30:00Z or 2024-01-15 10:30:00 -0500"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_spreadsheets_write_them() {
        let read = |cell: &str, separator: u8| number(cell, separator).ok().map(|number| number.get().to_owned());
        for (cell, comma, semicolon, tab) in [
            ("12.50", Some("12.50"), Some("12.50"), Some("12.50")),
            (" 7 ", Some("7"), Some("7"), Some("7")),
            ("-4.90", Some("-4.90"), Some("-4.90"), Some("-4.90")),
            ("12,50", None, Some("12.50"), Some("12.50")),
            ("-0,5", None, Some("-0.5"), Some("-0.5")),
            ("1.234,50", None, Some("1234.50"), Some("1234.50")),
            ("-12.345.678,9", None, Some("-12345678.9"), Some("-12345678.9")),
            ("1.234", Some("1.234"), None, None),
            ("1,234", None, Some("1.234"), None),
            ("0.125", Some("0.125"), Some("0.125"), Some("0.125")),
            ("1234.567", Some("1234.567"), Some("1234.567"), Some("1234.567")),
            ("1.2340", Some("1.2340"), Some("1.2340"), Some("1.2340")),
            ("1,234.50", None, None, None),
            ("1.23,50", None, None, None),
            ("1234.567,5", None, None, None),
            ("1.234.567", None, None, None),
            ("1,2,3", None, None, None),
            ("12,", None, None, None),
            (",5", None, None, None),
            ("1 234,50", None, None, None),
            ("€ 5", None, None, None),
            ("[]", None, None, None),
            ("\"5\"", None, None, None),
            ("", None, None, None),
            ("１２", None, None, None),
        ] {
            for (separator, expected) in [(b',', comma), (b';', semicolon), (b'\t', tab)] {
                let read = read(cell, separator);
                assert_eq!(read.as_deref(), expected, "{cell:?} in a file with {:?}", char::from(separator));
            }
        }
        assert_eq!(number("-1.234", b';').unwrap_err(), "could mean -1234 or -1.2340: write one of these");
        assert_eq!(number("1,234", b'\t').unwrap_err(), "could mean 1234 or 1,2340: write one of these");
    }

    #[test]
    fn instants_have_an_offset() {
        for (cell, read) in [
            ("2024-01-15T10:30:00Z", "2024-01-15T10:30:00Z"),
            ("2024-01-15 10:30:00 -0500", "2024-01-15T10:30:00-05:00"),
            ("2024-01-15 10:30:00 +00:00", "2024-01-15T10:30:00+00:00"),
        ] {
            assert_eq!(instant(cell).unwrap(), read, "{cell}");
        }
        for refused in [
            "2024-01-15 10:30:00",
            "2024-01-15",
            "01/15/2024 10:30",
            "2024-13-15 10:30:00 +0000",
            "2016-12-31 23:59:60 +0000",
            "0000-01-01 00:00:00 +0000",
            "+12024-01-15 10:30:00 +0000",
            "2024-01-15 10:30:00 EST",
        ] {
            assert!(instant(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn booleans_as_shops_write_them() {
        for (cell, read) in [("true", Some(true)), ("YES", Some(true)), ("no", Some(false)), ("False", Some(false))] {
            assert_eq!(boolean(cell).ok(), read, "{cell}");
        }
        assert!(["", "1", "maybe", "null"].iter().all(|cell| boolean(cell).is_err()));
    }
}
