//! The parameters of requests.

use std::collections::BTreeMap;

/// The parameters of a form, by name.
pub(super) type Parameters = BTreeMap<String, String>;

/// Reads a form's parameters.
pub(super) fn parse_form(form: &[u8]) -> Parameters {
    form_urlencoded::parse(form).into_owned().collect()
}
