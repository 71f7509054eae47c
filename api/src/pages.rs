//! The pages that shoppers see.

pub(crate) mod pay;
