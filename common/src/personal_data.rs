//! Personal data of shoppers: where it is stored, erasure, export, and retention.
//!
//! All of it is based on one list, [`fields::TABLES`]. Data at Stripe, logs and backups are not
//! covered.

mod erasure;
mod export;
pub mod fields;
mod retention;
mod statements;
pub mod treatment;

pub(crate) use erasure::erase_carts;
pub use erasure::{ErasureId, Receipt, erase, receipt};
pub use export::{Records, export};
pub use fields::{ERASED, ERASED_EMAIL};
pub use retention::{BLOCKS, anonymize_batch, blocks};
