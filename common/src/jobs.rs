//! The jobs: what each carries, where it waits, how often and how long it may run.
//!
//! Payloads hold ids only: a job reads the state again when it runs.

use std::time::Duration;

use queue::{Backoff, Job};
use serde::{Deserialize, Serialize};

/// The queues, in the order in which they matter to people.
pub const QUEUES: [&str; 4] = ["payment-links", "expiry", "analytics", "maintenance"];

const MINUTE: Duration = Duration::from_secs(60);

/// Somebody is waiting: the first retries come quickly, within the ten seconds a request waits.
const WHILE_SOMEBODY_WAITS: Backoff = Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(300) };

/// Makes the session that a row of `payment_links` asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreatePaymentLink {
    /// Whose link.
    pub cart_id: String,
    /// Which request.
    pub version: i32,
}

impl Job for CreatePaymentLink {
    const QUEUE: &'static str = "payment-links";
    const KIND: &'static str = "create_payment_link";
    const MAX_ATTEMPTS: i16 = 12;
    const TIME_LIMIT: Duration = MINUTE;
    const BACKOFF: Backoff = WHILE_SOMEBODY_WAITS;

    fn unique_key(&self) -> Option<String> {
        Some(format!("{}:{}:v{}", Self::KIND, self.cart_id, self.version))
    }
}

/// Closes a session at Stripe, so that nobody pays for a cart that is done with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClosePaymentLink {
    /// Whose link; the cart may be gone.
    pub cart_id: String,
    /// Which request.
    pub version: i32,
}

impl Job for ClosePaymentLink {
    const QUEUE: &'static str = "payment-links";
    const KIND: &'static str = "close_payment_link";
    // A session lives a day; closing it is worth trying for as long.
    const MAX_ATTEMPTS: i16 = 150;
    const TIME_LIMIT: Duration = MINUTE;
    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(600) };

    fn unique_key(&self) -> Option<String> {
        Some(format!("{}:{}:v{}", Self::KIND, self.cart_id, self.version))
    }
}

/// Expires carts that were left for longer than `CART_TTL`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ExpireCarts {
    /// 0 for the job of a slot; a helper is called where there is much to do, so
    /// that another worker shares the work.
    #[serde(default)]
    pub helper: u8,
}

impl ExpireCarts {
    /// The most helpers there are at a time.
    const HELPERS: u8 = 2;

    /// The one who may be called for help by this one.
    pub fn next_helper(&self) -> Option<Self> {
        (self.helper < Self::HELPERS).then_some(Self { helper: self.helper + 1 })
    }
}

impl Job for ExpireCarts {
    const QUEUE: &'static str = "expiry";
    const KIND: &'static str = "expire_carts";
    const TIME_LIMIT: Duration = Duration::from_secs(30 * 60);

    /// Each slot has its own job; a helper is one, whoever calls for it.
    fn unique_key(&self) -> Option<String> {
        (self.helper > 0).then(|| format!("{}:helper:{}", Self::KIND, self.helper))
    }
}

/// Folds the ledger of counts, so that reading it stays cheap.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RollUpDays {}

impl Job for RollUpDays {
    const QUEUE: &'static str = "analytics";
    const KIND: &'static str = "roll_up_days";
    const TIME_LIMIT: Duration = Duration::from_secs(10 * 60);
}

/// Takes the shopper out of carts that ended longer ago than `RETAIN_PERSONAL_DATA`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AnonymizeOldCarts {}

impl Job for AnonymizeOldCarts {
    const QUEUE: &'static str = "maintenance";
    const KIND: &'static str = "anonymize_old_carts";
    // Where it is switched on for the first time, all carts of before are due at once.
    const TIME_LIMIT: Duration = Duration::from_secs(60 * 60);
}

/// Deletes what has been kept for long enough: idempotency keys, events, old links, slots.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DeleteOldRecords {}

impl Job for DeleteOldRecords {
    const QUEUE: &'static str = "maintenance";
    const KIND: &'static str = "delete_old_records";
    const TIME_LIMIT: Duration = Duration::from_secs(10 * 60);
}
