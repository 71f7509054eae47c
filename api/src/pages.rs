//! Pages for shoppers.

pub(crate) mod pay;
