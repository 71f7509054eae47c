//! Shoppers' personal data: where it is, how a person is taken out of the
//! database, what is known of a person, and for how long.
//!
//! One list, [`fields::TABLES`], says where it can be; everything here goes by it.
//! What Stripe has of a shopper stays at Stripe; logs and backups are not reached.

mod erasure;
mod export;
pub mod fields;
mod retention;
mod statements;

pub(crate) use erasure::erase_carts;
pub use erasure::{ErasureId, Receipt, erase, receipt};
pub use export::{Records, export};
pub use fields::{ERASED, ERASED_EMAIL};
pub use retention::{BLOCKS, anonymize_batch, blocks};
