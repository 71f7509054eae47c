//! The job types: payload, queue, retries and time limit.
//!
//! Payloads hold ids only: a job reads the state again when it runs. The subject of a job is the id
//! of its cart.

use std::time::Duration;

use queue::{Backoff, Job};
use serde::{Deserialize, Serialize};

/// All queues, the most urgent first.
pub const QUEUES: [&str; 4] = ["payment-links", "expiry", "analytics", "maintenance"];

/// All kinds of jobs.
pub const KINDS: [&str; 7] = [
    CreatePaymentLink::KIND,
    ClosePaymentLink::KIND,
    ReconcilePayments::KIND,
    ExpireCarts::KIND,
    RollUpDays::KIND,
    DeleteOldRecords::KIND,
    AnonymizeOldCarts::KIND,
];

const MINUTE: Duration = Duration::from_secs(60);

/// The back-off for jobs that a client waits for: the first retries fall within the ten seconds
/// that a request waits.
const WHILE_SOMEBODY_WAITS: Backoff = Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(300) };

/// Creates the Checkout Session for a row of `payment_links`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreatePaymentLink {
    /// The cart of the link.
    pub cart_id: String,
    /// The version of the request.
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

    fn subject(&self) -> Option<String> {
        Some(self.cart_id.clone())
    }
}

/// Closes a Checkout Session, so that nobody pays for a cart that has ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClosePaymentLink {
    /// The cart of the link; it may be deleted.
    pub cart_id: String,
    /// The version of the request.
    pub version: i32,
}

impl Job for ClosePaymentLink {
    const QUEUE: &'static str = "payment-links";
    const KIND: &'static str = "close_payment_link";
    // A session lives for a day; retry for about as long.
    const MAX_ATTEMPTS: i16 = 150;
    const TIME_LIMIT: Duration = MINUTE;
    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(600) };

    fn unique_key(&self) -> Option<String> {
        Some(format!("{}:{}:v{}", Self::KIND, self.cart_id, self.version))
    }

    fn subject(&self) -> Option<String> {
        Some(self.cart_id.clone())
    }
}

/// Requests from Stripe the outcome of sessions that no event has reported.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReconcilePayments {
    /// The cart whose payment in progress is looked up; `None` for the scheduled job, which looks up
    /// all sessions that are due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cart_id: Option<String>,
}

impl Job for ReconcilePayments {
    const QUEUE: &'static str = "payment-links";
    const KIND: &'static str = "reconcile_payments";
    const TIME_LIMIT: Duration = Duration::from_secs(5 * 60);
    const BACKOFF: Backoff = WHILE_SOMEBODY_WAITS;

    fn unique_key(&self) -> Option<String> {
        self.cart_id.as_ref().map(|cart_id| format!("{}:{cart_id}", Self::KIND))
    }

    fn subject(&self) -> Option<String> {
        self.cart_id.clone()
    }
}

/// Expires carts that were abandoned longer ago than `CART_TTL`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ExpireCarts {
    /// 0 for the scheduled job. With a large backlog each job enqueues a continuation with the next
    /// number, so that other workers share the work.
    #[serde(default)]
    pub helper: u8,
}

impl ExpireCarts {
    /// The maximum number of continuations.
    const HELPERS: u8 = 2;

    /// The continuation that this job may enqueue; `None` if this is the last one.
    pub fn next_helper(&self) -> Option<Self> {
        (self.helper < Self::HELPERS).then_some(Self { helper: self.helper + 1 })
    }
}

impl Job for ExpireCarts {
    const QUEUE: &'static str = "expiry";
    const KIND: &'static str = "expire_carts";
    const TIME_LIMIT: Duration = Duration::from_secs(30 * 60);

    /// Scheduled jobs are not deduplicated by key; continuations are, by number.
    fn unique_key(&self) -> Option<String> {
        (self.helper > 0).then(|| format!("{}:helper:{}", Self::KIND, self.helper))
    }
}

/// Adds up the stored counts, so that reading them stays cheap.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RollUpDays {}

impl Job for RollUpDays {
    const QUEUE: &'static str = "analytics";
    const KIND: &'static str = "roll_up_days";
    const TIME_LIMIT: Duration = Duration::from_secs(10 * 60);
}

/// Anonymizes carts that ended longer ago than `RETAIN_PERSONAL_DATA`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AnonymizeOldCarts {}

impl Job for AnonymizeOldCarts {
    const QUEUE: &'static str = "maintenance";
    const KIND: &'static str = "anonymize_old_carts";
    // When first enabled, all older carts are due at once.
    const TIME_LIMIT: Duration = Duration::from_secs(60 * 60);
}

/// Deletes records after their retention: idempotency keys, events, old links, schedule runs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DeleteOldRecords {}

impl Job for DeleteOldRecords {
    const QUEUE: &'static str = "maintenance";
    const KIND: &'static str = "delete_old_records";
    const TIME_LIMIT: Duration = Duration::from_secs(10 * 60);
}
