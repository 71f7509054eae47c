//! Reads the fields of a JSON object, and collects what is wrong with them.

use std::borrow::Cow;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};
use url::Url;
use utoipa::ToSchema;

use crate::{
    clock::parse_instant,
    json::{self, Fields},
};

/// The message of a missing field.
pub(super) const REQUIRED: &str = "is required";
/// Validation stops after about this many errors; a longer list would be larger than the body.
pub const MAX_ERRORS: usize = 20;
/// Maximum characters of an address of a web page.
const URL_CHARACTERS: usize = 2_048;
/// How far a client's clock may run ahead of the server's.
const CLOCK_SKEW: TimeDelta = TimeDelta::seconds(5);

/// A validation error of one field of a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The path of the field, such as `items[0].price`. The error response names the body itself,
    /// which has an empty path here, `body`.
    #[schema(example = "items[0].price")]
    pub field: String,
    /// The requirement that the field does not meet.
    #[schema(example = "must be a number from 0 to 9999999999.99")]
    pub message: String,
}

impl FieldError {
    /// `message` states the requirement that `field` does not meet.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// An object that is being read: the root of a body, or an element of a list in it.
pub(super) struct Object<'a, 'e> {
    fields: &'a Fields<'a>,
    /// The path of the object; empty for the root.
    at: String,
    errors: &'e mut Vec<FieldError>,
}

impl<'a, 'e> Object<'a, 'e> {
    pub(super) fn new(fields: &'a Fields<'a>, at: impl Into<String>, errors: &'e mut Vec<FieldError>) -> Self {
        Self { fields, at: at.into(), errors }
    }

    pub(super) fn errors(&mut self) -> &mut Vec<FieldError> {
        self.errors
    }

    /// The field's value; `None` if it is absent or `null`.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.fields.get(name)
    }

    pub(super) fn fail(&mut self, name: &str, message: impl Into<String>) {
        let field = if self.at.is_empty() { name.to_owned() } else { format!("{}.{name}", self.at) };
        self.errors.push(FieldError::new(field, message));
    }

    /// A required text: trimmed, with 1 to `longest` characters.
    pub(super) fn text(&mut self, name: &str, longest: usize) -> Option<String> {
        let Some(value) = self.get(name) else {
            self.fail(name, REQUIRED);
            return None;
        };
        let text = self.trimmed(name, value, longest)?;
        if text.is_empty() {
            self.fail(name, format!("must have 1 to {longest} characters"));
            return None;
        }
        Some(text)
    }

    /// An optional text: trimmed, with at most `longest` characters. A blank one counts as absent.
    pub(super) fn optional_text(&mut self, name: &str, longest: usize) -> Option<String> {
        let text = self.trimmed(name, self.get(name)?, longest)?;
        (!text.is_empty()).then_some(text)
    }

    /// An optional text: trimmed, with 1 to `longest` characters.
    pub(super) fn text_if_given(&mut self, name: &str, longest: usize) -> Option<String> {
        self.get(name)?;
        self.text(name, longest)
    }

    fn trimmed(&mut self, name: &str, value: &RawValue, longest: usize) -> Option<String> {
        let Some(text) = json::text(value) else {
            self.fail(name, "must be a string");
            return None;
        };
        let text = text.trim();
        if text.contains('\0') {
            self.fail(name, "must not contain NUL");
            return None;
        }
        if text.chars().count() > longest {
            self.fail(name, format!("must have at most {longest} characters"));
            return None;
        }
        Some(text.to_owned())
    }

    /// An optional id of the shop: 1 to `longest` printable characters, as they were sent.
    pub(super) fn id(&mut self, name: &str, longest: usize) -> Option<String> {
        let text = json::text(self.get(name)?).filter(|id| {
            (1..=longest).contains(&id.chars().count()) && id.chars().all(is_printable) && !id.trim().is_empty()
        });
        if text.is_none() {
            self.fail(name, format!("must be a string of 1 to {longest} printable characters"));
        }
        text.map(Cow::into_owned)
    }

    /// An optional address of a web page or an image.
    pub(super) fn url(&mut self, name: &str) -> Option<String> {
        let text = self.text_if_given(name, URL_CHARACTERS)?;
        // The parser takes "http:///x" for the host x.
        let has_host = text.split_once("://").is_some_and(|(_, rest)| !rest.starts_with(['/', '\\']));
        let is_web = |url: Url| has_host && matches!(url.scheme(), "http" | "https") && url.has_host();
        if Url::parse(&text).is_ok_and(is_web) && !text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Some(text);
        }
        self.fail(name, "must be an address that begins with http:// or https://");
        None
    }

    /// An optional boolean; `None` means not known.
    pub(super) fn boolean(&mut self, name: &str) -> Option<bool> {
        let boolean = json::boolean(self.get(name)?);
        if boolean.is_none() {
            self.fail(name, "must be true, false or null");
        }
        boolean
    }

    /// An optional instant that is not in the future. `None` if it is absent, null or wrong.
    pub(super) fn past_instant(&mut self, name: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let value = self.get(name)?;
        let Some(instant) = json::text(value).and_then(|text| parse_instant(&text)) else {
            self.fail(
                name,
                "must be an ISO 8601 instant such as 2024-01-15T10:30:00Z, from year 0001 on, and not a leap second",
            );
            return None;
        };
        if instant > now + CLOCK_SKEW {
            self.fail(name, "must not be in the future");
            return None;
        }
        Some(instant.min(now))
    }

    /// The objects of a list, at most `most`. Elements after too many errors are not read. `None`
    /// if the value is no such list, or an element is wrong.
    pub(super) fn list<T>(
        &mut self,
        name: &str,
        (least, most): (usize, usize),
        read: impl Fn(&mut Object<'_, '_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let list = self.get(name).and_then(json::list).filter(|list| (least..=most).contains(&list.len()));
        let Some(list) = list else {
            self.fail(name, format!("must be a list of {least} to {most} objects"));
            return None;
        };
        let before = self.errors.len();
        let mut values = Vec::with_capacity(list.len());
        for (index, value) in list.into_iter().enumerate() {
            if self.errors.len() >= MAX_ERRORS {
                break;
            }
            let at = format!("{name}[{index}]");
            match Fields::of(value) {
                Some(fields) => values.extend(read(&mut Object::new(&fields, at, self.errors))),
                None => self.errors.push(FieldError::new(at, "must be an object")),
            }
        }
        (self.errors.len() == before).then_some(values)
    }
}

/// Whether a character shows something or is a space: no control, format or private character.
fn is_printable(c: char) -> bool {
    let is_line_break =
        matches!(c.general_category(), GeneralCategory::LineSeparator | GeneralCategory::ParagraphSeparator);
    c.general_category_group() != GeneralCategoryGroup::Other && !is_line_break
}

/// Reads an optional instant that is not in the future. `None` if it is absent, null or invalid.
pub fn past_instant(
    fields: &Fields<'_>,
    field: &str,
    now: DateTime<Utc>,
    errors: &mut Vec<FieldError>,
) -> Option<DateTime<Utc>> {
    Object::new(fields, "", errors).past_instant(field, now)
}
