//! A cart as Stripe is to see it.

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sqlx::types::Json;

use crate::{
    carts::CartStatus,
    db::Connection,
    json,
    money::Currency,
    payment_links::{Expected, LinkStatus, PaymentLink},
};

/// What Stripe is told of a cart.
#[derive(Debug, Clone)]
pub struct CheckoutCart {
    /// Prefilled on Stripe's page.
    pub customer_email: String,
    /// The lines of the order.
    pub items: Vec<CheckoutItem>,
    /// Of all prices.
    pub currency: Currency,
    /// Whether it may still be paid.
    pub status: CartStatus,
    /// Part of the address that the shopper comes back to.
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

/// A line of the order.
#[derive(Debug, Clone)]
pub struct CheckoutItem {
    /// What.
    pub name: String,
    /// How many.
    pub quantity: u32,
    /// Of one, in minor units.
    pub price_minor: i64,
}

#[derive(Debug, serde::Deserialize)]
struct StoredItem {
    name: String,
    quantity: u32,
    price: Box<RawValue>,
}

struct Row {
    customer_email: String,
    items: Json<Vec<StoredItem>>,
    currency: String,
    status: String,
    token: String,
    amount_minor: Option<i64>,
    expected_currency: Option<String>,
    livemode: Option<bool>,
}

impl TryFrom<Row> for CheckoutCart {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> sqlx::Result<Self> {
        let currency: Currency = row.currency.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        let items = row
            .items
            .0
            .into_iter()
            .map(|item| {
                let price_minor = json::number(&item.price).and_then(|price| currency.to_minor(price));
                let price_minor =
                    price_minor.ok_or_else(|| sqlx::Error::Decode("a stored price is malformed".into()))?;
                Ok(CheckoutItem { name: item.name, quantity: item.quantity, price_minor })
            })
            .collect::<sqlx::Result<Vec<_>>>()?;
        Ok(Self {
            customer_email: row.customer_email,
            items,
            currency,
            status: row.status.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
            recovery_token: row.token,
            expected: Expected {
                amount_minor: row.amount_minor,
                currency: row.expected_currency,
                livemode: row.livemode,
            },
        })
    }
}

/// Reads the cart for the Checkout Session of this request; `None` if the cart was deleted.
pub async fn for_checkout(conn: &mut Connection, id: &str, version: i32) -> sqlx::Result<Option<CheckoutCart>> {
    sqlx::query_as!(
        Row,
        r#"
        select customer_email, items as "items: Json<Vec<StoredItem>>", carts.currency, carts.status, token as "token!",
               coalesce(link.amount_minor, total_minor) as amount_minor,
               coalesce(link.currency, carts.currency) as expected_currency, link.livemode
        from carts
        join recovery_links on recovery_links.cart_id = carts.id
        join payment_links link on link.cart_id = carts.id and link.version = $2
        where carts.id = $1 and token is not null
        "#,
        id,
        version,
    )
    .fetch_optional(conn)
    .await?
    .map(CheckoutCart::try_from)
    .transpose()
}

/// Notes that Stripe is about to be asked for these requests' sessions, in this mode (test or
/// live) if it is known, and answers each request, as it was before, with its cart. In one statement:
/// only those that nobody holds, whose cart can be paid, and before which no
/// session has to be closed. The others take the way of
/// [`payment_links::begin_attempt`](crate::payment_links::begin_attempt).
pub async fn begin_free(
    conn: &mut Connection,
    cart_ids: &[&str],
    versions: &[i32],
    livemode: Option<bool>,
    now: DateTime<Utc>,
) -> sqlx::Result<Vec<(PaymentLink, CheckoutCart)>> {
    let rows = sqlx::query!(
        r#"
        with free as (
            select link.cart_id, link.version, link.attempted_at, link.updated_at
            from unnest($1::text[], $2::integer[]) as wanted (cart_id, version)
            join payment_links link on link.cart_id = wanted.cart_id and link.version = wanted.version
            where link.status = 'pending'
              and not exists (
                select from payment_links older
                where older.cart_id = link.cart_id and older.version < link.version
                  and older.status in ('open', 'closing', 'settling', 'processing'))
            for no key update of link skip locked
        )
        update payment_links link
        set attempted_at = coalesce(link.attempted_at, $3), livemode = coalesce($4, link.livemode), updated_at = $3
        from free
        join carts on carts.id = free.cart_id
        join recovery_links on recovery_links.cart_id = carts.id
        where link.cart_id = free.cart_id and link.version = free.version and link.status = 'pending'
          and carts.status = 'abandoned' and token is not null
        returning link.cart_id, link.version, link.job_id, link.session_expires_at, link.replacements,
                  free.attempted_at as "attempted_at?", free.updated_at,
                  customer_email, items as "items: Json<Vec<StoredItem>>", carts.currency, carts.status, token as "token!",
                  coalesce(link.amount_minor, total_minor) as amount_minor,
                  coalesce(link.currency, carts.currency) as expected_currency, link.livemode
        "#,
        cart_ids as &[&str],
        versions,
        now,
        livemode,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let link = PaymentLink {
                cart_id: row.cart_id,
                version: row.version,
                status: LinkStatus::Pending,
                job_id: row.job_id,
                session_expires_at: row.session_expires_at,
                replacements: row.replacements,
                attempted_at: row.attempted_at,
                session_id: None,
                url: None,
                failure: None,
                updated_at: row.updated_at,
            };
            let cart = Row {
                customer_email: row.customer_email,
                items: row.items,
                currency: row.currency,
                status: row.status,
                token: row.token,
                amount_minor: row.amount_minor,
                expected_currency: row.expected_currency,
                livemode: row.livemode,
            };
            Ok((link, cart.try_into()?))
        })
        .collect()
}
