//! Reads carts for Checkout Sessions.

use serde_json::value::RawValue;
use sqlx::types::Json;

use super::{Expected, LinkStatus, PaymentLink};
use crate::{carts::CartStatus, db::Connection, json, money::Currency};

/// The data of a cart that is sent to Stripe.
#[derive(Debug, Clone)]
pub struct CheckoutCart {
    /// Prefilled on Stripe's payment page.
    pub customer_email: String,
    /// The line items.
    pub items: Vec<CheckoutItem>,
    /// The currency of all prices.
    pub currency: Currency,
    /// The cart's current status.
    pub status: CartStatus,
    /// Part of the return address on Stripe's payment page.
    pub recovery_token: String,
    /// The amount, currency and mode of the session, stored with the request.
    pub expected: Expected,
}

impl CheckoutCart {
    /// Whether the cart's lines and currency still match `expected`. After a change of the cart,
    /// payments of the session would be refused.
    pub fn is_as_requested(&self) -> bool {
        let mut lines = self.items.iter().map(|item| item.price_minor.checked_mul(item.quantity.into()));
        let total = lines.try_fold(0_i64, |sum, line| sum.checked_add(line?));
        total == self.expected.amount_minor && self.expected.currency.as_deref() == Some(self.currency.code())
    }
}

/// A line item.
#[derive(Debug, Clone)]
pub struct CheckoutItem {
    /// The product's name.
    pub name: String,
    /// The number of pieces.
    pub quantity: u32,
    /// The price of one piece, in minor units.
    pub price_minor: i64,
}

#[derive(Debug, serde::Deserialize)]
struct StoredItem {
    name: String,
    quantity: u32,
    price: Box<RawValue>,
}

impl CheckoutCart {
    /// The line items, with prices in minor units.
    fn items(stored: Vec<StoredItem>, currency: Currency) -> sqlx::Result<Vec<CheckoutItem>> {
        let price_minor = |item: &StoredItem| json::number(&item.price).and_then(|price| currency.to_minor(price));
        let item = |item: StoredItem| {
            let price_minor =
                price_minor(&item).ok_or_else(|| sqlx::Error::Decode("a stored price is malformed".into()))?;
            Ok(CheckoutItem { name: item.name, quantity: item.quantity, price_minor })
        };
        stored.into_iter().map(item).collect()
    }
}

/// A request for a Checkout Session, and what the session is for.
#[derive(Debug, Clone)]
pub struct Checkout {
    /// The request.
    pub link: PaymentLink,
    /// The cart; `None` if it was deleted.
    pub cart: Option<CheckoutCart>,
    /// Whether an older request of the cart may still have a session open at Stripe
    /// ([`super::unsettled_before`]).
    pub has_unsettled: bool,
}

/// Reads the request and its cart; `None` if there is no such request.
pub async fn read(conn: &mut Connection, cart_id: &str, version: i32) -> sqlx::Result<Option<Checkout>> {
    let row = sqlx::query!(
        r#"
        select link.cart_id, link.version, link.status as "link_status: LinkStatus", link.job_id, link.session_expires_at,
               link.replacements, link.attempted_at, link.session_id, link.url, link.failure, link.updated_at, link.livemode,
               coalesce(link.amount_minor, total_minor) as amount_minor,
               coalesce(link.currency, carts.currency) as expected_currency,
               carts.customer_email as "customer_email?", carts.items as "items?: Json<Vec<StoredItem>>",
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
    )
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let expected = Expected { amount_minor: row.amount_minor, currency: row.expected_currency, livemode: row.livemode };
    let cart = match (row.customer_email, row.items, row.currency, row.status, row.token) {
        (Some(customer_email), Some(items), Some(currency), Some(status), Some(recovery_token)) => {
            let items = CheckoutCart::items(items.0, currency)?;
            Some(CheckoutCart { customer_email, items, currency, status, recovery_token, expected })
        }
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
    Ok(Some(Checkout { link, cart, has_unsettled: row.has_unsettled }))
}
