//! Reads carts for Checkout Sessions.

use chrono::{DateTime, Utc};
use sqlx::types::Json;

use super::{Expected, LinkStatus, PaymentLink, SessionSettings};
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
}

/// Reads the request and its cart; `None` if there is no such request.
pub async fn read(conn: &mut Connection, cart_id: &str, version: i32, clock: &Clock) -> sqlx::Result<Option<Checkout>> {
    let row = sqlx::query!(
        r#"
        select link.cart_id, link.version, link.status as "link_status: LinkStatus", link.job_id, link.session_expires_at,
               link.replacements, link.attempted_at, link.session_id, link.url, link.failure, link.updated_at, link.livemode,
               case when link.settings ? 'publicUrl' then link.settings end as "settings: Json<SessionSettings>",
               coalesce($3::timestamptz, now()) as "now!",
               coalesce(link.amount_minor, total_minor) as amount_minor,
               coalesce(link.currency, carts.currency) as expected_currency,
               carts.customer_email as "customer_email?", carts.items as "items?: RawJson", carts.adjustments as "adjustments?: RawJson",
               carts.total_minor as "total_minor?", carts.external_id as "external_id?", carts.locale as "locale?",
               carts.currency as "currency?: Currency", carts.status as "status?: CartStatus", token as "token?",
               exists (select from payment_links older where older.cart_id = $1 and older.version < $2
                       and older.status in ('open', 'closing', 'settling', 'processing')) as "has_unsettled!"
        from payment_links link
        left join (carts join recovery_links on recovery_links.cart_id = carts.id and token is not null)
            on carts.id = link.cart_id
        where link.cart_id = $1 and link.version = $2
        "#,
        cart_id,
        version,
        clock.stopped(),
    )
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let settings = row.settings.map(|settings| settings.0);
    let expected = Expected {
        amount_minor: row.amount_minor,
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
    Ok(Some(Checkout { link, settings, cart, has_unsettled: row.has_unsettled, now: row.now }))
}
