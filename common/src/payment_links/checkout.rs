//! Reads requests with their carts, and begins attempts to create their sessions.

mod row;

use chrono::{DateTime, Utc};

use super::{Expected, LinkStatus, PaymentLink, SessionSettings};
use crate::{
    carts::{
        CartStatus,
        items::{Adjustment, Item},
    },
    clock::Clock,
    db::Connection,
    email::with_ascii_domain,
    money::Currency,
    personal_data::ERASED_EMAIL,
};

/// The data of a cart that is sent to Stripe.
#[derive(Debug, Clone)]
pub struct CheckoutCart {
    /// The shopper's address; [`Self::sent_email`] is prefilled on Stripe's payment page.
    pub customer_email: String,
    /// The lines; `None` if other programs stored something that is no list of lines.
    pub items: Option<Vec<Item>>,
    /// Shipping, taxes and discounts; `None` as for `items`.
    pub adjustments: Option<Vec<Adjustment>>,
    /// The amount to charge, in minor units of `currency`.
    pub total_minor: i64,
    /// The currency of all amounts.
    pub currency: Currency,
    /// The shop's own id of the cart.
    pub external_id: Option<String>,
    /// The shopper's language, a BCP 47 tag.
    pub locale: Option<String>,
    /// The cart's current status.
    pub status: CartStatus,
    /// Part of the return address on Stripe's payment page.
    pub recovery_token: String,
    /// The amount, currency and mode of the session, stored with the request.
    pub expected: Expected,
}

impl CheckoutCart {
    /// The address as it is sent to Stripe, with its domain in ASCII; `None` if it was erased: Stripe
    /// would show the placeholder, and the shopper could not change it.
    pub fn sent_email(&self) -> Option<String> {
        (self.customer_email != ERASED_EMAIL).then(|| with_ascii_domain(&self.customer_email))
    }

    /// Whether the cart's total and currency still match `expected`. After a change of the cart,
    /// payments of the session would be refused.
    pub fn is_as_requested(&self) -> bool {
        self.expected.amount_minor == Some(self.total_minor)
            && self.expected.currency.as_deref() == Some(self.currency.code())
    }
}

/// A request for a Checkout Session, and what the session is for.
#[derive(Debug, Clone)]
pub struct Checkout {
    /// The request.
    pub link: PaymentLink,
    /// The settings that the first attempt stored; `None` before.
    pub settings: Option<SessionSettings>,
    /// The cart; `None` if it was deleted.
    pub cart: Option<CheckoutCart>,
    /// Whether an older request of the cart may still have a session open at Stripe
    /// ([`super::unsettled_before`]).
    pub has_unsettled: bool,
    /// The time by Postgres' clock.
    pub now: DateTime<Utc>,
    /// The attempt that [`begin`] has begun. `link` and `settings` show earlier attempts only.
    pub attempt: Option<Attempt>,
}

/// The data that an attempt sends to Stripe, besides the cart's own.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The settings that the first attempt stored.
    pub settings: SessionSettings,
    /// When the session expires.
    pub session_expires_at: DateTime<Utc>,
}

/// An attempt that is to begin.
#[derive(Debug, Clone)]
pub struct NewAttempt {
    /// The cart's id.
    pub cart_id: String,
    /// The version of the request.
    pub version: i32,
    /// Whether the caller has closed the sessions of older requests. Otherwise the attempt does not begin
    /// while one is unsettled.
    pub older_are_closed: bool,
}

/// Reads the request and its cart; `None` if there is no such request.
pub async fn read(conn: &mut Connection, cart_id: &str, version: i32, clock: &Clock) -> sqlx::Result<Option<Checkout>> {
    let request = NewAttempt { cart_id: cart_id.to_owned(), version, older_are_closed: false };
    let mut read = row::read_and_begin(conn, &[request], None, None, clock).await?;
    Ok(read.pop().flatten())
}

/// Like [`read`] for several requests, and records that each is about to be sent to Stripe:
/// [`Checkout::attempt`]. That is `None`, and the request must not be sent, if it is not pending, its cart
/// not abandoned, an older request unsettled, or if it was withdrawn at the same moment. Returns a result
/// for each attempt, in their order.
///
/// The first attempt stores `settings`, and renews the end of a session for which it comes too late,
/// by Postgres' clock. Later ones repeat what is stored. `livemode` is the mode (test or live) of the key,
/// if known, so that early events of the other mode don't match.
pub async fn begin(
    conn: &mut Connection,
    attempts: &[NewAttempt],
    settings: &SessionSettings,
    livemode: Option<bool>,
    clock: &Clock,
) -> sqlx::Result<Vec<Option<Checkout>>> {
    row::read_and_begin(conn, attempts, Some(settings), livemode, clock).await
}
