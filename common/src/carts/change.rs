//! Changes of a cart's contents: its customer, lines, currency and other data.

use chrono::{DateTime, Utc};
use serde_json::value::{RawValue, to_raw_value};

use super::{
    Cart, cart,
    fields::FieldError,
    new::{COMPUTED, CONTENTS, ParsedCart},
};
use crate::{
    audit::KeyName,
    db::Connection,
    idempotency,
    json::{self, Fields},
    money::Currency,
    payment_links, timeline,
};

/// The fields that a payment depends on.
const PAYABLE: [&str; 3] = ["items", "adjustments", "currency"];

/// The contents of a cart that differ from the stored ones.
#[derive(Debug)]
pub struct Change {
    cart: Cart,
    /// The names of the differing fields.
    fields: Vec<&'static str>,
}

impl Change {
    /// Whether the body of a `PATCH` names any field of a cart's contents.
    pub fn names_contents(body: &Fields<'_>) -> bool {
        CONTENTS.iter().any(|name| body.has(name)) || body.has("totalValue")
    }

    /// Whether the body of a `PATCH` names a field that a payment depends on.
    pub fn names_payment(body: &Fields<'_>) -> bool {
        PAYABLE.iter().any(|name| body.has(name))
    }

    /// The fields of the body of a `PATCH` that can't be changed.
    pub fn forbidden(body: &Fields<'_>) -> Vec<FieldError> {
        let named = COMPUTED.into_iter().chain(["abandonedAt", "expiredAt"]).filter(|name| body.get(name).is_some());
        named.map(|name| FieldError::new(name, "can't be changed")).collect()
    }

    /// The cart with the fields of `body` in place of its own: absent means unchanged, `null`
    /// clears.
    ///
    /// # Errors
    /// The fields that are wrong after the change.
    pub fn patch(
        stored: &Cart,
        body: &Fields<'_>,
        store_currency: Currency,
        now: DateTime<Utc>,
    ) -> Result<Self, Vec<FieldError>> {
        let json = as_json(stored);
        let own = Fields::of(&json).unwrap_or_default().only(|name| CONTENTS.contains(&name));
        let named = body.only(|name| CONTENTS.contains(&name) || name == "totalValue");
        let mut change = Self::between(stored, ParsedCart::of(&named.over(own), store_currency, now)?.cart);
        // Other fields are unchanged, even if they were stored in another form, by SQL for example.
        change.fields.retain(|name| body.has(name));
        Ok(change)
    }

    /// The differences between the stored cart and one that was received.
    pub fn between(stored: &Cart, cart: Cart) -> Self {
        let (before, after) = (as_json(stored), as_json(&cart));
        let (before, after) = (Fields::of(&before).unwrap_or_default(), Fields::of(&after).unwrap_or_default());
        let value = |fields: &Fields<'_>, name: &str| fields.get(name).map(json::canonical);
        let fields = CONTENTS.iter().copied().filter(|name| value(&before, name) != value(&after, name)).collect();
        Self { cart, fields }
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Whether the lines, the adjustments or the currency differ, so that an open session no longer
    /// shows what is to be paid.
    pub fn affects_payment(&self) -> bool {
        self.fields.iter().any(|field| PAYABLE.contains(field))
    }

    /// Stores the change, and writes it to the timeline. The cart must be locked. Ends its payment
    /// link if that no longer fits.
    ///
    /// # Errors
    /// A unique violation of `carts_external_id` if another cart has the external id.
    pub async fn store(
        &self,
        conn: &mut Connection,
        stored: &Cart,
        key: &KeyName,
        now: DateTime<Utc>,
    ) -> sqlx::Result<()> {
        cart::update(conn, &stored.id, &self.cart, now).await?;
        let is_of_another = self.fields.contains(&"customerEmail");
        // An open session shows the lines, and the address of the former shopper.
        if self.affects_payment() || is_of_another {
            payment_links::close_all(conn, std::slice::from_ref(&stored.id), now).await?;
        }
        if is_of_another {
            idempotency::forget_bodies(conn, &stored.id).await?;
        }
        timeline::note_changed(conn, &stored.id, &self.fields, key, now).await
    }
}

/// The cart as JSON; its serialization can't fail.
fn as_json(cart: &Cart) -> Box<RawValue> {
    to_raw_value(cart).unwrap_or_default()
}
