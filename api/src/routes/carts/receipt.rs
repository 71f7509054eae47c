//! Responses to changes of a cart: the cart for keys with the scope `read`, a receipt for others.

use axum::{
    body::Bytes,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use common::carts::{Cart, CartStatus};
use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{Ref, RefOr, Schema, schema::AnyOfBuilder},
};

use crate::{
    auth::keys::Granted,
    http::{
        body::{self, Rendered},
        etag::{self, ETag},
    },
};

/// The cart without the shopper's data, for keys without the scope `read`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CartReceipt<'a> {
    /// The cart's id.
    #[schema(pattern = "^cart_[A-Za-z0-9_-]{1,100}$", example = "cart_01m84zjdhtftc9p973qfnt3nn0")]
    id: &'a str,
    /// The cart's status.
    status: CartStatus,
    /// When the shopper left the cart.
    abandoned_at: DateTime<Utc>,
    /// When the cart was recovered; null if it was not.
    #[schema(required)]
    recovered_at: Option<DateTime<Utc>>,
    /// When the cart expired; null if it has not.
    #[schema(required)]
    expired_at: Option<DateTime<Utc>>,
    /// When the cart was created.
    created_at: DateTime<Utc>,
    /// When the cart last changed.
    updated_at: DateTime<Utc>,
}

/// `Cart` or `CartReceipt`. (A cart matches both schemas, so `oneOf` would be wrong.)
pub(crate) struct ChangedCart;

impl PartialSchema for ChangedCart {
    fn schema() -> RefOr<Schema> {
        let item = |name: &str| RefOr::<Schema>::Ref(Ref::from_schema_name(name));
        AnyOfBuilder::new()
            .description(Some("The cart; for keys without the scope `read` a `CartReceipt`."))
            .item(item("Cart"))
            .item(item("CartReceipt"))
            .into()
    }
}

impl ToSchema for ChangedCart {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.extend([("Cart".to_owned(), Cart::schema()), ("CartReceipt".to_owned(), CartReceipt::schema())]);
        Cart::schemas(schemas);
        CartReceipt::schemas(schemas);
    }
}

/// Renders a success with the cart, or with its receipt if the key lacks `read`.
pub(crate) fn render(granted: &Granted, cart: &Cart) -> Bytes {
    if granted.may_read() {
        return body::render(cart);
    }
    body::render(&CartReceipt {
        id: &cart.id,
        status: cart.status,
        abandoned_at: cart.abandoned_at,
        recovered_at: cart.recovered_at,
        expired_at: cart.expired_at,
        created_at: cart.created_at,
        updated_at: cart.updated_at,
    })
}

/// Like [`render`], with an `ETag` for keys with the scope `read`. A tag is a hash of the whole
/// cart, so other keys could test guesses of its fields with it.
pub(crate) fn changed(granted: &Granted, cart: &Cart) -> Response {
    let body = render(granted, cart);
    if granted.may_read() { etag::tagged(&ETag::of(&body), body) } else { Rendered(body).into_response() }
}
