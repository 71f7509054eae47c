//! Reads JSON from untrusted input, one level at a time, each value as its original text.
//!
//! Untrusted input is never read into a `serde_json::Value` or `Number`; clippy forbids both types.
//! With the features `raw_value` (enabled by sqlx) and `arbitrary_precision` (exact amounts),
//! serde_json treats objects with the keys `$serde_json::private::RawValue` and `…::Number`
//! specially: it parses the string inside as JSON again, with a new depth limit, so a body of 41 kB
//! overflows the stack. [`parse`] treats no key specially and never recurses deeper than
//! [`MAX_DEPTH`]; the other functions read one level of a value that it checked.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use rust_decimal::Decimal;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::money;

/// Values nested this deep are rejected; serde_json's own limit.
pub const MAX_DEPTH: usize = 128;

/// Checks that `bytes` are one well-formed JSON value, and returns its text.
///
/// # Errors
/// If the bytes are not UTF-8 or JSON, or the value is nested [`MAX_DEPTH`] or more levels deep.
pub fn parse(bytes: &[u8]) -> serde_json::Result<Box<RawValue>> {
    serde_json::from_slice::<WellFormed>(bytes)?;
    serde_json::from_slice(bytes)
}

/// The fields of an object, each as its JSON text.
#[derive(Debug, Clone, Default)]
pub struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// The fields of `value`; `None` if it is not an object.
    pub fn of(value: &'a RawValue) -> Option<Self> {
        serde_json::from_str(value.get()).ok()
    }

    /// The field of this name; `None` if it is absent or `null`. The last one of several counts.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        let (_, value) = self.0.iter().rfind(|(field, _)| field == name)?;
        (value.get() != "null").then_some(*value)
    }

    /// Whether there is a field of this name, even if it is `null`.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(field, _)| field == name)
    }

    /// The fields and their values, in the order of the object. A name may occur several times.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), *value))
    }

    /// The fields whose names `is_wanted` accepts.
    pub fn only(&self, is_wanted: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|(name, _)| is_wanted(name)).cloned().collect())
    }

    /// These fields, and those of `base` that are not among them.
    pub fn over(&self, base: Self) -> Self {
        Self(base.0.into_iter().chain(self.0.iter().cloned()).collect())
    }

    /// The string in the field of this name; `None` if there is none.
    pub fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        text(self.get(name)?)
    }
}

/// The value as a string; `None` if it is not a string.
pub fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text>(value.get()).ok().map(|text| text.0)
}

/// The exact value of a number; `None` if it is not a number or has too many digits for
/// [`Decimal`].
pub fn number(value: &RawValue) -> Option<Decimal> {
    let text = value.get();
    text.starts_with(|first: char| first == '-' || first.is_ascii_digit()).then(|| money::decimal(text)).flatten()
}

/// The elements of an array; `None` if it is not an array.
pub fn list(value: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(value.get()).ok()
}

/// The value as a boolean; `None` if it is not `true` or `false`.
pub fn boolean(value: &RawValue) -> Option<bool> {
    serde_json::from_str(value.get()).ok()
}

/// The depth of what [`canonical`] changes: each level is read again, so a deeply nested value would
/// take seconds.
const CANONICAL_DEPTH: usize = 6;

/// A form of `value` (accepted by [`parse`]) that does not depend on white space, the order of
/// fields, or how strings are escaped, in the six outermost levels. Values that differ in anything
/// else have different forms.
pub fn canonical(value: &RawValue) -> String {
    let mut out = String::with_capacity(value.get().len());
    write_canonical(value, CANONICAL_DEPTH, &mut out);
    out
}

fn write_canonical(value: &RawValue, depth: usize, out: &mut String) {
    let Some(depth) = depth.checked_sub(1) else { return out.push_str(value.get()) };
    let quoted = |text: &str| serde_json::to_string(text).unwrap_or_default();
    if let Some(Fields(fields)) = Fields::of(value) {
        // Of several fields with the same name the last one counts.
        let fields: BTreeMap<_, _> = fields.into_iter().collect();
        out.push('{');
        for (place, (name, field)) in fields.into_iter().enumerate() {
            out.push_str(if place == 0 { "" } else { "," });
            out.push_str(&quoted(&name));
            out.push(':');
            write_canonical(field, depth, out);
        }
        out.push('}');
    } else if let Some(elements) = list(value) {
        out.push('[');
        for (place, element) in elements.into_iter().enumerate() {
            out.push_str(if place == 0 { "" } else { "," });
            write_canonical(element, depth, out);
        }
        out.push(']');
    } else if let Some(text) = text(value) {
        out.push_str(&quoted(&text));
    } else {
        out.push_str(value.get());
    }
}

/// A string, borrowed if it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfObject;

        impl<'de> Visitor<'de> for OfObject {
            type Value = Fields<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some((Text(name), value)) = map.next_entry()? {
                    fields.push((name, value));
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(OfObject)
    }
}

/// Any JSON value; the content is discarded.
struct WellFormed;

impl<'de> Deserialize<'de> for WellFormed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for WellFormed {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self, A::Error> {
        while elements.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    /// Visits objects, and numbers that are not integers, which `arbitrary_precision` presents as
    /// objects.
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self, A::Error> {
        while fields.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical_of(text: &str) -> String {
        canonical(&parse(text.as_bytes()).expect("it is JSON"))
    }

    #[test]
    fn private_keys_have_no_meaning() {
        let number = parse(br#"{"$serde_json::private::Number":"5"}"#).unwrap();
        assert_eq!(super::number(&number), None);
        let raw = parse(br#"{"$serde_json::private::RawValue":"[]"}"#).unwrap();
        assert!(list(&raw).is_none() && text(&raw).is_none() && boolean(&raw).is_none());
        assert_eq!(Fields::of(&raw).unwrap().text("$serde_json::private::RawValue").as_deref(), Some("[]"));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(nested(MAX_DEPTH - 1).as_bytes()).is_ok());
        assert!(parse(nested(MAX_DEPTH + 1).as_bytes()).is_err());
        assert!(parse(nested(500_000).as_bytes()).is_err());
    }

    #[test]
    fn values_are_read_by_their_own_type_only() {
        let body = parse(br#" {"a":"x\u00e9","n":1.50,"t":true,"l":[1,null],"z":null,"a":"last"} "#).unwrap();
        let fields = Fields::of(&body).unwrap();
        assert_eq!(fields.text("a").as_deref(), Some("last"));
        assert_eq!(fields.get("n").and_then(number), Some(Decimal::new(150, 2)));
        assert_eq!(fields.get("n").and_then(text), None);
        assert_eq!(fields.get("a").and_then(number), None);
        assert_eq!(fields.get("t").and_then(boolean), Some(true));
        assert_eq!(fields.get("l").and_then(list).map(|list| list.len()), Some(2));
        assert!(fields.get("z").is_none() && fields.get("absent").is_none());
        assert!(Fields::of(fields.get("l").unwrap()).is_none());
        assert!(parse(br#"{"a":"\ud800"}"#).is_err(), "half a surrogate pair is no text");
    }

    #[test]
    fn the_canonical_form_is_the_text_of_a_value() {
        let body = r#"{"price": 49.99, "a": [1, -2.50, true, null, {}], "a!": "\u00e9\n\"", "": 1.5}"#;
        let value: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(canonical_of(body), value.to_string());
    }

    #[test]
    fn the_canonical_form_forgets_order_space_and_escapes() {
        assert_eq!(canonical_of(r#"{"b": [1, "\u0041"], "a": null}"#), canonical_of(r#"{"a":null,"b":[1,"A"]}"#));
        assert_eq!(canonical_of(r#"{"a":1,"a":2}"#), canonical_of(r#"{"a":2}"#));
        for (one, other) in [
            ("1", "1.0"),
            ("\"1\"", "1"),
            ("[1,2]", "[2,1]"),
            ("[[1],2]", "[[1,2]]"),
            ("{}", "[]"),
            ("1.5", r#"{"$serde_json::private::Number":"1.5"}"#),
        ] {
            assert_ne!(canonical_of(one), canonical_of(other));
        }
    }
}
