//! Payment links: requests for Checkout Sessions at Stripe, and their status.
//!
//! ```text
//!             ┌───────── attempt begins, Stripe responds ─────────┐
//! request → pending ──→ failed (Stripe refused)                    ↓
//!             │ │                              processing ←─────  open ──→ paid
//!             │ └──→ settling (sent, no response)   │              │
//!             ↓          ↓                          ↓              ↓
//!           closed ←─────┴──────────────────  payment_failed    closing ──→ closed
//! ```
//!
//! A link in `settling` or `closing` always has a job that closes the session at Stripe. The
//! database allows one `pending` link per cart, and one session that can still be paid.
//!
//! The changes from `open`, `closing` and `processing` follow an event of Stripe, or the retrieved
//! session if no event has arrived by its end ([`reconciliation`]). An ended session is `closed` if
//! it was not paid, does not match its link, or is unknown to Stripe.

pub mod checkout;
mod expected;
pub mod hosts;
mod outcome;
pub mod reconciliation;
pub mod recovery;
mod refused_key;
mod request;
mod search;
mod session;
mod settings;

use std::collections::HashMap;

use strum::IntoStaticStr;

use chrono::{DateTime, Utc};
use queue::JobId;

use crate::db::Connection;

pub use expected::{Expected, Mismatch, Payment, Reported, expected};
pub(crate) use outcome::close_all;
pub use outcome::{LinkPayment, Opening, Paid, closed, closed_because, fail, open, paid, payment_failed, processing};
pub use refused_key::{KEY_REFUSED, RefusedKey, refused_key};
pub(crate) use request::give_up_links_of;
pub use request::{
    Answer, LinkRequest, Refusal, Remedy, check_payable, give_up, give_up_without_job, replace, request,
};
pub use search::{Search, save_search, search};
pub use session::{attach_session, is_held_by_another, refuse_session};
pub use settings::{BillingAddress, CheckoutSettings, SessionSettings};

/// The notification channel for changed links; the payload is the cart's id. Requests that wait for
/// a link listen to it.
pub const CHANNEL: &str = "payment_links";

/// The status of a payment link; the migration documents each value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the migration says what each means")]
pub enum LinkStatus {
    Pending,
    Open,
    Closing,
    Settling,
    Processing,
    Paid,
    PaymentFailed,
    Closed,
    Failed,
}

/// The party that requested a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum RequestedBy {
    /// The shop, through the API.
    Api,
    /// The shopper, by opening the recovery link.
    Shopper,
    /// This program, because the previous request can't succeed and another may.
    Replacement,
}

impl RequestedBy {
    fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The reason why there is no link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure<'a> {
    code: Option<&'a str>,
    why: &'a str,
}

impl<'a> Failure<'a> {
    /// `why` is the message for people, stored with the link. `code` is Stripe's or one of this
    /// program, stored in the timeline without personal data. A malformed code becomes `other`.
    pub fn new(code: &'a str, why: &'a str) -> Self {
        let well_formed = (1..=60).contains(&code.len())
            && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        Self { code: Some(if well_formed { code } else { "other" }), why }
    }

    /// A failure without a code, because the timeline has the event already.
    fn without_code(why: &'a str) -> Self {
        Self { code: None, why }
    }
}

/// One request for a Checkout Session.
#[derive(Debug, Clone)]
pub struct PaymentLink {
    /// The cart's id; the cart may be deleted.
    pub cart_id: String,
    /// The number of the request, 1 for the cart's first.
    pub version: i32,
    /// The current status.
    pub status: LinkStatus,
    /// The job that creates the session.
    pub job_id: JobId,
    /// When the session expires. Constant from the first attempt on, because retries must send Stripe
    /// identical parameters.
    pub session_expires_at: DateTime<Utc>,
    /// The number of consecutive requests that this one replaces, each of which failed permanently
    /// and could be remedied ([`Remedy`]).
    pub replacements: i16,
    /// When the request may first have reached Stripe; `None` if it was never sent.
    pub attempted_at: Option<DateTime<Utc>>,
    /// Stripe's id of the session, once known.
    pub session_id: Option<String>,
    /// The address of Stripe's payment page, once known.
    pub url: Option<String>,
    /// The message for people, if there is no link.
    pub failure: Option<String>,
    /// When the link last changed.
    pub updated_at: DateTime<Utc>,
}

impl PaymentLink {
    /// Whether a shopper can pay with it at `now`.
    pub fn is_live(&self, now: DateTime<Utc>) -> bool {
        self.status == LinkStatus::Open && self.session_expires_at > now
    }

    /// The message of a failure, if the request ended. A request that was sent without a response
    /// is first settled, and closed then.
    pub fn refusal(&self) -> Option<&str> {
        let ended = matches!(self.status, LinkStatus::Failed | LinkStatus::Settling | LinkStatus::Closed);
        self.failure.as_deref().filter(|_| ended)
    }

    /// The idempotency key of the request to Stripe; the same for all attempts.
    pub fn idempotency_key(&self) -> String {
        format!("{}:v{}", self.cart_id, self.version)
    }
}

/// Selects [`PaymentLink`]s. The first argument is the rest of the statement after `from`.
macro_rules! select_links {
    ($rest:literal, $($argument:expr),* $(,)?) => {
        sqlx::query_as!(
            PaymentLink,
            r#"
            select cart_id, version, status as "status: LinkStatus", job_id, session_expires_at, replacements,
                   attempted_at, session_id, url, failure, updated_at
            from payment_links "# + $rest,
            $($argument),*
        )
    };
}
use select_links;

/// The newest request of the cart; `None` if there is none.
pub async fn latest(conn: &mut Connection, cart_id: &str) -> sqlx::Result<Option<PaymentLink>> {
    Ok(latest_of(conn, &[cart_id]).await?.remove(cart_id))
}

/// The newest requests of these carts, by the cart's id. Carts without a request are left out.
pub async fn latest_of(conn: &mut Connection, cart_ids: &[&str]) -> sqlx::Result<HashMap<String, PaymentLink>> {
    let newest = select_links!(
        r#"link where cart_id = any ($1)
           and version = (select max(version) from payment_links newest where newest.cart_id = link.cart_id)"#,
        cart_ids as &[&str],
    );
    Ok(newest.fetch_all(conn).await?.into_iter().map(|link| (link.cart_id.clone(), link)).collect())
}

/// The request with this version; `None` if there is none.
pub async fn find(conn: &mut Connection, cart_id: &str, version: i32) -> sqlx::Result<Option<PaymentLink>> {
    select_links!("where cart_id = $1 and version = $2", cart_id, version).fetch_optional(conn).await
}

/// The code of the reason why the request failed, as the timeline has it; `None` if there is none.
/// Jobs that give up write theirs to the timeline only.
pub async fn failure_code(conn: &mut Connection, cart_id: &str, version: i32) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!(
        r#"
        select coalesce(
            (select failure_code from payment_links where cart_id = $1 and version = $2),
            (select why from cart_events where cart_id = $1 and link = $2 and kind = 'link_not_made'
             order by at desc limit 1)
        )
        "#,
        cart_id,
        version,
    )
    .fetch_one(conn)
    .await
}

/// Whether a payment of one of the cart's sessions is in progress.
pub async fn is_processing(conn: &mut Connection, cart_id: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from payment_links where cart_id = $1 and status = 'processing') as "processing!""#,
        cart_id,
    )
    .fetch_one(conn)
    .await
}

/// Requests older than `version` that may still have a session open at Stripe, oldest first.
pub async fn unsettled_before(conn: &mut Connection, cart_id: &str, version: i32) -> sqlx::Result<Vec<PaymentLink>> {
    select_links!(
        "where cart_id = $1 and version < $2 and status in ('open', 'closing', 'settling', 'processing') order by version",
        cart_id,
        version,
    )
    .fetch_all(conn)
    .await
}
