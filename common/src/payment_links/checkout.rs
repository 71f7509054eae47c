//! Reads requests with their carts, and begins attempts to create their sessions.

use chrono::{DateTime, Utc};
use sqlx::types::Json;

use super::{
    Expected, LinkStatus, PaymentLink, SessionSettings,
    request::{LONGEST_SESSION, SHORTEST_SESSION},
};
use crate::{
    carts::{
        CartStatus,
        items::{Adjustment, Item, stored_adjustments, stored_items},
        row::RawJson,
    },
    clock::Clock,
    db::Connection,
    email::with_ascii_domain,
    money::Currency,
    personal_data::ERASED_EMAIL,
};

/// The shortest remaining time, in minutes, with which a session can be requested: Stripe's minimum
/// (<https://docs.stripe.com/api/checkout/sessions/create#create_checkout_session-expires_at>) and one
/// for the call.
const LEAST_LEFT: i32 = 31;

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
#[derive(Debug, Clone, Copy)]
pub struct NewAttempt<'a> {
    /// The settings for a first attempt.
    pub settings: &'a SessionSettings,
    /// The mode (test or live) of the key, if known, so that early events of the other mode don't match.
    pub livemode: Option<bool>,
    /// Whether the caller has closed the sessions of older requests. Otherwise the attempt does not begin
    /// while one is unsettled.
    pub older_are_closed: bool,
}

/// Reads the request and its cart; `None` if there is no such request.
pub async fn read(conn: &mut Connection, cart_id: &str, version: i32, clock: &Clock) -> sqlx::Result<Option<Checkout>> {
    read_and_begin(conn, cart_id, version, None, clock).await
}

/// Like [`read`], and records that the request is about to be sent to Stripe: [`Checkout::attempt`].
/// That is `None`, and the request must not be sent, if it is not pending, its cart not abandoned, an
/// older request unsettled, or if it was withdrawn at the same moment.
///
/// The first attempt stores the settings, and renews the end of a session for which it comes too late,
/// by Postgres' clock. Later ones repeat what is stored.
pub async fn begin(
    conn: &mut Connection,
    cart_id: &str,
    version: i32,
    attempt: NewAttempt<'_>,
    clock: &Clock,
) -> sqlx::Result<Option<Checkout>> {
    read_and_begin(conn, cart_id, version, Some(attempt), clock).await
}

async fn read_and_begin(
    conn: &mut Connection,
    cart_id: &str,
    version: i32,
    attempt: Option<NewAttempt<'_>>,
    clock: &Clock,
) -> sqlx::Result<Option<Checkout>> {
    let row = sqlx::query!(
        r#"
        with checkout as materialized (
            select link.*, link.status as link_status, coalesce($3::timestamptz, now()) as now,
                   coalesce(link.amount_minor, total_minor) as expected_minor,
                   coalesce(link.currency, carts.currency) as expected_currency,
                   carts.customer_email, carts.items, carts.adjustments, carts.total_minor, carts.external_id, carts.locale,
                   carts.currency as cart_currency, carts.status as cart_status, token,
                   exists (select from payment_links older where older.cart_id = $1 and older.version < $2
                           and older.status in ('open', 'closing', 'settling', 'processing')) as has_unsettled
            from payment_links link
            left join (carts join recovery_links on recovery_links.cart_id = carts.id and token is not null)
                on carts.id = link.cart_id
            where link.cart_id = $1 and link.version = $2
        ), begun as (
            update payment_links link
            set attempted_at = coalesce(link.attempted_at, $4), livemode = coalesce($5, link.livemode), updated_at = $4,
                settings = case when link.settings ? 'publicUrl' then link.settings
                                else $6::jsonb || coalesce(link.settings, '{}') end,
                session_expires_at = case
                    when link.attempted_at is null and link.session_expires_at < now + make_interval(mins => $8)
                    then (select least(greatest(max(recovery.expires_at), now + make_interval(mins => $9)),
                                       now + make_interval(mins => $10))
                          from recovery_links recovery where recovery.cart_id = $1)
                    else link.session_expires_at end
            from checkout
            where $6::jsonb is not null and link.cart_id = $1 and link.version = $2 and link.status = 'pending'
              and cart_status = 'abandoned' and ($7 or not has_unsettled)
            returning link.settings, link.session_expires_at
        )
        select cart_id, version, link_status as "link_status: LinkStatus", job_id, checkout.session_expires_at,
               replacements, attempted_at, session_id, url, failure, updated_at, livemode,
               case when checkout.settings ? 'publicUrl' then checkout.settings end as "settings: Json<SessionSettings>",
               now as "now!", expected_minor, expected_currency, customer_email as "customer_email?",
               items as "items?: RawJson", adjustments as "adjustments?: RawJson", total_minor as "total_minor?",
               external_id as "external_id?", locale as "locale?", cart_currency as "currency?: Currency",
               cart_status as "status?: CartStatus", token as "token?", has_unsettled as "has_unsettled!",
               begun.settings as "begun_settings?: Json<SessionSettings>",
               begun.session_expires_at as "begun_session_expires_at?"
        from checkout left join begun on true
        "#,
        cart_id,
        version,
        clock.stopped(),
        clock.now(),
        attempt.and_then(|attempt| attempt.livemode),
        attempt.map(|attempt| Json(attempt.settings)) as _,
        attempt.is_some_and(|attempt| attempt.older_are_closed),
        LEAST_LEFT,
        SHORTEST_SESSION,
        LONGEST_SESSION,
    )
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let settings = row.settings.map(|settings| settings.0);
    let expected = Expected {
        amount_minor: row.expected_minor,
        currency: row.expected_currency,
        livemode: row.livemode,
        total_may_differ: settings.as_ref().is_some_and(SessionSettings::total_may_differ),
    };
    let lines = row.items.zip(row.adjustments);
    let cart = match (row.customer_email, lines, row.total_minor, row.currency, row.status, row.token) {
        (
            Some(customer_email),
            Some((items, adjustments)),
            Some(total_minor),
            Some(currency),
            Some(status),
            Some(recovery_token),
        ) => Some(CheckoutCart {
            customer_email,
            items: stored_items(&items.0, currency),
            adjustments: stored_adjustments(&adjustments.0, currency),
            total_minor,
            currency,
            external_id: row.external_id,
            locale: row.locale,
            status,
            recovery_token,
            expected,
        }),
        _ => None,
    };
    let link = PaymentLink {
        cart_id: row.cart_id,
        version: row.version,
        status: row.link_status,
        job_id: row.job_id,
        session_expires_at: row.session_expires_at,
        replacements: row.replacements,
        attempted_at: row.attempted_at,
        session_id: row.session_id,
        url: row.url,
        failure: row.failure,
        updated_at: row.updated_at,
    };
    let attempt = row.begun_settings.zip(row.begun_session_expires_at);
    let attempt = attempt.map(|(settings, session_expires_at)| Attempt { settings: settings.0, session_expires_at });
    Ok(Some(Checkout { link, settings, cart, has_unsettled: row.has_unsettled, now: row.now, attempt }))
}
