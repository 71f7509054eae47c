//! The job handlers and what they share; `lib.rs` registers the handlers.

pub(crate) mod anonymize_old_carts;
pub(crate) mod batches;
pub(crate) mod close_payment_link;
pub(crate) mod close_session;
pub(crate) mod create_payment_link;
pub(crate) mod delete_old_records;
pub(crate) mod expire_carts;
pub(crate) mod find_session;
pub(crate) mod reconcile_payments;
pub(crate) mod roll_up_days;
pub(crate) mod session_outcome;

use chrono::TimeDelta;

/// Allowed difference between the worker's clock and Stripe's.
const SLACK: TimeDelta = TimeDelta::minutes(5);
