//! A cart as Stripe is to see it.

use sqlx::types::Json;

use crate::{
    carts::CartStatus,
    db::Connection,
    money::{self, Currency},
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

/// The cart as Stripe is to see it; `None` if it is gone.
pub async fn for_checkout(conn: &mut Connection, id: &str) -> sqlx::Result<Option<CheckoutCart>> {
    #[derive(Debug, serde::Deserialize)]
    struct StoredItem {
        name: String,
        quantity: u32,
        price: serde_json::Number,
    }

    let row = sqlx::query!(
        r#"
        select customer_email, items as "items: Json<Vec<StoredItem>>", currency, status, token as "token!"
        from carts join recovery_links on recovery_links.cart_id = carts.id
        where carts.id = $1 and token is not null
        "#,
        id,
    )
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let currency: Currency = row.currency.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    let items = row
        .items
        .0
        .into_iter()
        .map(|item| {
            let price_minor = money::decimal(&item.price).and_then(|price| currency.to_minor(price));
            let price_minor = price_minor.ok_or_else(|| sqlx::Error::Decode("a stored price is malformed".into()))?;
            Ok(CheckoutItem { name: item.name, quantity: item.quantity, price_minor })
        })
        .collect::<sqlx::Result<Vec<_>>>()?;
    Ok(Some(CheckoutCart {
        customer_email: row.customer_email,
        items,
        currency,
        status: row.status.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
        recovery_token: row.token,
    }))
}
