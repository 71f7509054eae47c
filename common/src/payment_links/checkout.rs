//! Reads carts for Checkout Sessions.

use serde_json::value::RawValue;
use sqlx::types::Json;

use crate::{carts::CartStatus, db::Connection, json, money::Currency, payment_links::Expected};

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

struct Row {
    customer_email: String,
    items: Json<Vec<StoredItem>>,
    currency: Currency,
    status: CartStatus,
    token: String,
    amount_minor: Option<i64>,
    expected_currency: Option<String>,
    livemode: Option<bool>,
}

impl TryFrom<Row> for CheckoutCart {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> sqlx::Result<Self> {
        let currency = row.currency;
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
            status: row.status,
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
        select customer_email, items as "items: Json<Vec<StoredItem>>", carts.currency as "currency: Currency",
               carts.status as "status: CartStatus", token as "token!",
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
