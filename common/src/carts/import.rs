//! Imports of carts from other systems, thousands at a time.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

use super::{
    fields::{FieldError, Object},
    new::ParsedCart,
};
use crate::{
    audit::KeyName,
    carts::{self, Cart, CartStatus, Source},
    db::Connection,
    json::{self, Fields},
    money::Currency,
};

/// The result of storing one cart of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// The cart was created.
    Created,
    /// A cart with the same external id exists; this is its id.
    Exists(String),
}

/// Reads one line: the fields of `POST /api/carts`, and the cart's history. Unknown fields are
/// ignored.
///
/// # Errors
/// All invalid fields; of those in the cart itself only about the first twenty.
pub fn parse(line: &RawValue, store_currency: Currency, now: DateTime<Utc>) -> Result<Cart, Vec<FieldError>> {
    let Some(fields) = &Fields::of(line) else {
        return Err(vec![FieldError::new("", "must be an object")]);
    };
    let mut errors = Vec::new();
    let cart = ParsedCart::of(fields, store_currency, now).map_err(|of_cart| errors.extend(of_cart)).ok();
    let cart = cart.map(|parsed| parsed.cart);
    let abandoned_at = cart.as_ref().map(|cart| cart.abandoned_at);
    let object = &mut Object::new(fields, "", &mut errors);
    let status = status(object);
    let recovered_at = Moment { field: "recoveredAt", of: CartStatus::Recovered };
    let recovered_at = recovered_at.read(object, status, abandoned_at, now);
    let expired_at = Moment { field: "expiredAt", of: CartStatus::Expired };
    let expired_at = expired_at.read(object, status, abandoned_at, now);
    match (cart, status) {
        (Some(cart), Some(status)) if errors.is_empty() => Ok(Cart { status, recovered_at, expired_at, ..cart }),
        _ => Err(errors),
    }
}

fn status(object: &mut Object<'_, '_>) -> Option<CartStatus> {
    let Some(value) = object.get("status") else { return Some(CartStatus::Abandoned) };
    let status = json::text(value).and_then(|text| text.parse().ok());
    if status.is_none() {
        object.fail("status", "must be abandoned, recovered or expired");
    }
    status
}

/// The field with the time at which a cart reached a status.
struct Moment {
    field: &'static str,
    of: CartStatus,
}

impl Moment {
    /// `None` unless the cart has that status. The default is the time of abandonment, which keeps
    /// imported history on its own days; the current time would show as a peak today.
    fn read(
        &self,
        object: &mut Object<'_, '_>,
        status: Option<CartStatus>,
        abandoned_at: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        let given = object.past_instant(self.field, now);
        if status != Some(self.of) {
            if let (Some(_), Some(_)) = (given, status) {
                object.fail(self.field, format!("can only be given with the status {}", self.of.as_str()));
            }
            return None;
        }
        if given < abandoned_at && given.is_some() {
            object.fail(self.field, "must not be before the cart's abandonedAt");
        }
        given.or(abandoned_at)
    }
}

/// Stores the carts and returns the result of each, in their order. Of several carts with the same
/// external id only the first is created, if none exists yet. `key` is the API key of the import.
///
/// Must run in a transaction, so that either all carts are stored or none.
pub async fn store(conn: &mut Connection, carts: &[Cart], key: &KeyName) -> sqlx::Result<Vec<Stored>> {
    let mut rows: Vec<&Cart> = carts.iter().collect();
    // Inserts wait for other imports with the same external ids. The common order prevents
    // deadlocks.
    rows.sort_by(|one, other| one.external_id.cmp(&other.external_id));
    let mut there_before = HashMap::new();
    loop {
        let inserted = carts::insert(conn, &rows, &vec![key.as_str(); rows.len()], Source::Import).await?;
        if usize::try_from(inserted).is_ok_and(|inserted| inserted == rows.len()) {
            break;
        }
        // A separate statement, which sees carts that were committed meanwhile.
        let owners = owners(conn, &rows).await?;
        // An existing cart may have been deleted before it was read; its line is inserted again.
        rows.retain(|row| match row.external_id.as_ref().map(|external_id| owners.get(external_id)) {
            None => false,
            Some(None) => true,
            Some(Some(owner)) => {
                if *owner != row.id {
                    there_before.insert(row.id.as_str(), owner.clone());
                }
                false
            }
        });
        if rows.is_empty() {
            break;
        }
    }
    let outcome = |cart: &Cart| match there_before.remove(cart.id.as_str()) {
        Some(owner) => Stored::Exists(owner),
        None => Stored::Created,
    };
    Ok(carts.iter().map(outcome).collect())
}

/// The ids of the carts that have these external ids, by external id.
async fn owners(conn: &mut Connection, rows: &[&Cart]) -> sqlx::Result<HashMap<String, String>> {
    let external_ids: Vec<&str> = rows.iter().filter_map(|row| row.external_id.as_deref()).collect();
    let owners = sqlx::query!(
        r#"select id, external_id as "external_id!" from carts where external_id = any($1)"#,
        &external_ids as &[&str],
    )
    .fetch_all(conn)
    .await?;
    Ok(owners.into_iter().map(|owner| (owner.external_id, owner.id)).collect())
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parse(change: Value) -> Result<Cart, Vec<FieldError>> {
        let mut line = json!({
            "customerEmail": "ada@example.com", "customerName": "Ada", "abandonedAt": "2026-01-05T10:00:00Z",
            "items": [{"name": "Teapot", "quantity": 2, "price": 49.99}],
        });
        line.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let line = json::parse(line.to_string().as_bytes()).unwrap();
        super::parse(&line, Currency::USD, "2026-03-01T12:00:00Z".parse().unwrap())
    }

    fn errors(change: Value) -> Vec<(String, String)> {
        parse(change).unwrap_err().into_iter().map(|error| (error.field, error.message)).collect()
    }

    #[test]
    fn missing_times_default_to_the_time_of_abandonment() {
        let left: DateTime<Utc> = "2026-01-05T10:00:00Z".parse().unwrap();
        let recovered = parse(json!({"status": "recovered", "expiredAt": null})).unwrap();
        assert_eq!((recovered.recovered_at, recovered.expired_at), (Some(left), None));
        let expired = parse(json!({"status": "expired", "expiredAt": "2026-02-05T10:00:00+01:00"})).unwrap();
        assert_eq!(expired.expired_at, "2026-02-05T09:00:00Z".parse().ok());
        let abandoned = parse(json!({"status": null})).unwrap();
        assert_eq!((abandoned.recovered_at, abandoned.expired_at, abandoned.external_id), (None, None, None));
    }

    #[test]
    fn contradictory_fields_are_refused() {
        let refused = |change, field: &str, message: &str| {
            assert_eq!(errors(change), [(field.to_owned(), message.to_owned())]);
        };
        let before = "must not be before the cart's abandonedAt";
        refused(json!({"status": "recovered", "recoveredAt": "2026-01-05T09:59:59Z"}), "recoveredAt", before);
        refused(json!({"status": "expired", "expiredAt": "2026-01-05T09:59:59Z"}), "expiredAt", before);
        let future = "must not be in the future";
        refused(json!({"status": "recovered", "recoveredAt": "2026-03-02T00:00:00Z"}), "recoveredAt", future);
        refused(
            json!({"status": "expired", "recoveredAt": "2026-01-06T00:00:00Z"}),
            "recoveredAt",
            "can only be given with the status recovered",
        );
        refused(json!({"expiredAt": "2026-01-06T00:00:00Z"}), "expiredAt", "can only be given with the status expired");
        refused(json!({"status": "lost"}), "status", "must be abandoned, recovered or expired");
        let message = "must be the ISO 4217 code of a currency that shoppers pay with, such as usd";
        for currency in ["usdollars", "xau", "xxx", ""] {
            refused(json!({"currency": currency}), "currency", message);
        }
        for external_id in [json!(""), json!("x".repeat(201)), json!("a\nb"), json!(7)] {
            let message = "must be a string of 1 to 200 printable characters";
            refused(json!({"externalId": external_id}), "externalId", message);
        }
    }

    #[test]
    fn prices_are_read_in_the_carts_own_currency() {
        let yen = json!([{"name": "Teapot", "quantity": 2, "price": 500}]);
        let cart = parse(json!({"currency": "JPY", "items": yen, "externalId": "é".repeat(200)})).unwrap();
        assert_eq!((cart.currency.code(), cart.total_value.minor()), ("jpy", 1_000));
        let message =
            "quantity × price is 99.98, which is not a multiple of 1 jpy; send the total of the line as total";
        assert_eq!(errors(json!({"currency": "jpy"})), [("items[0].price".to_owned(), message.to_owned())]);
    }
}
