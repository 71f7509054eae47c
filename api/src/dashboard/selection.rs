//! What actions on the checked rows of a list have in common. The list is a form with the method GET,
//! with a checkbox `id` in each row; the page that it leads to shows the number and asks.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    str::FromStr,
};

use maud::{Markup, html};

use super::session::Operator;
use crate::http::{base_path::at, error::ApiError};

/// Maximum number of selected rows: more than a page of a list has.
const LIMIT: usize = 100;

/// Parses the ids of a query string or a form; `one` and `many` name what is selected.
pub(crate) fn ids<'p, T: FromStr>(
    ids: impl Iterator<Item = &'p str>,
    one: &str,
    many: &str,
) -> Result<Vec<T>, ApiError> {
    // Each once.
    let ids: BTreeSet<&str> = ids.collect();
    let ids: Result<Vec<T>, _> = ids.into_iter().map(str::parse).collect();
    let ids = ids.map_err(|_| ApiError::bad_request(format!("id must be the id of a {one}")))?;
    if ids.len() > LIMIT {
        return Err(ApiError::bad_request(format!("There must be at most {LIMIT} {many}")));
    }
    Ok(ids)
}

/// The form that acts on what has these ids. `filters` are inputs that keep the filters of the list;
/// `button` has its class and its text.
pub(crate) fn form(
    operator: &Operator,
    path: &str,
    action: &str,
    ids: impl Iterator<Item = impl Display>,
    filters: &Markup,
    button: (&str, &str),
) -> Markup {
    let (class, text) = button;
    html! {
        form method="post" action=(at(path)) {
            (operator.token_field())
            input type="hidden" name="action" value=(action);
            @for id in ids { input type="hidden" name="id" value=(id.to_string()); }
            (filters)
            button class={ "button " (class) } type="submit" { (text) }
        }
    }
}

/// How many of the selected things were changed. Those for which the API refuses the action, because
/// their state has changed since, stay as they are.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) changed: usize,
    /// The number of those that stay, by the reason.
    unchanged: BTreeMap<String, usize>,
}

impl Tally {
    /// Counts the result of one action.
    ///
    /// # Errors
    /// The error, if it is no refusal.
    pub(crate) fn add(&mut self, done: Result<(), ApiError>) -> Result<(), ApiError> {
        match done {
            Err(error) if error.is_refusal() => {
                *self.unchanged.entry(error.in_words()).or_default() += 1;
            }
            done => {
                done?;
                self.changed += 1;
            }
        }
        Ok(())
    }

    /// The end of the notice: ` 1 cart unchanged (A payment is in progress).`; empty if all were changed.
    pub(crate) fn rest(self, counted: impl Fn(usize) -> String) -> String {
        self.unchanged.iter().map(|(why, count)| format!(" {} unchanged ({why}).", counted(*count))).collect()
    }
}
