//! Pages for shoppers. They load nothing, need no script, and are in the shopper's language.

mod language;
mod page;
pub(crate) mod pay;
mod texts;
