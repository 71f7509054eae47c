//! Validation of carts: parses a JSON body into a [`NewCart`].

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::{
    ToSchema,
    openapi::{ObjectBuilder, Type, schema::Object},
};

use crate::{
    clock::parse_instant,
    email::{EmailAddress, canonical},
    json::{self, Fields},
    money::{Amount, Currency},
    personal_data::{ERASED, ERASED_EMAIL},
};

const NAME_CHARACTERS: usize = 200;
const MOST_ITEMS: usize = 100; // also Stripe's limit of line items in payment mode
const MOST_QUANTITY: u32 = 10_000;
/// Validation of the items stops after this many errors; a longer list would be larger than the
/// body.
const MAX_ERRORS: usize = 20;
/// How far a client's clock may run ahead of the server's.
const CLOCK_SKEW: TimeDelta = TimeDelta::seconds(5);

/// A validation error of one field of a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The path of the field, such as `items[0].price`; empty for the body itself.
    #[schema(example = "items[0].price")]
    pub field: String,
    /// The requirement that the field does not meet.
    #[schema(example = "must be a number from 0 to 999999.99")]
    pub message: String,
}

impl FieldError {
    /// `message` states the requirement that `field` does not meet.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// A validated cart. The schema describes the body that it is parsed from.
#[derive(Debug, Clone, ToSchema)]
#[schema(rename_all = "camelCase", description = "Body of `POST /api/carts`. Unknown fields are ignored.", example = json!({
    "customerEmail": "ada@example.com", "customerName": "Ada Lovelace",
    "items": [{"name": "Teapot", "quantity": 2, "price": 49.99}],
}))]
pub struct NewCart {
    /// The shopper's e-mail address.
    #[schema(format = Email, max_length = 254, example = "ada@example.com")]
    pub customer_email: String,
    /// The shopper's name; surrounding white space is removed.
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = r"^[^\u0000]*[^\s\u0000\u0085][^\u0000]*$",
        example = "Ada Lovelace"
    )]
    pub customer_name: String,
    /// 1 to 100 items, as they are stored and returned.
    #[schema(value_type = Vec<NewCartItem>, min_items = 1, max_items = 100)]
    pub items: Box<RawValue>,
    /// The sum of quantity × price, in minor units of `currency`.
    #[schema(ignore)]
    pub total_minor: i64,
    /// The store's currency when the cart was received, or that of the imported line.
    #[schema(ignore)]
    pub currency: Currency,
    /// When the shopper left the cart; not in the future. The default is now.
    #[schema(value_type = Option<DateTime<Utc>>)]
    pub abandoned_at: DateTime<Utc>,
}

/// One line of a cart, as it is stored and returned.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CartItem)]
pub struct Item {
    /// The product's name.
    #[schema(min_length = 1, max_length = 200, example = "Teapot")]
    name: String,
    /// The number of pieces.
    #[schema(minimum = 1, maximum = 10_000, example = 2)]
    quantity: u32,
    /// The price of one piece, in the cart's currency.
    price: Amount,
}

/// One line of a cart.
// An `Item` before it is validated.
#[derive(ToSchema)]
#[expect(dead_code, reason = "this is described, never made")]
struct NewCartItem {
    /// Surrounding white space is removed.
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = r"^[^\u0000]*[^\s\u0000\u0085][^\u0000]*$",
        example = "Teapot"
    )]
    name: String,
    #[schema(minimum = 1, maximum = 10_000, example = 2)]
    quantity: u32,
    #[schema(schema_with = new_price)]
    price: f64,
}

fn new_price() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::Number)
        .description(Some(
            "The price of one piece, with at most the decimals of the store's currency (2 for usd). Stored exactly as written.",
        ))
        .minimum(Some(0))
        .maximum(Some(999_999.99))
        .examples([49.99])
        .build()
}

impl NewCart {
    /// Reads the body of `POST /api/carts`. Unknown fields are ignored.
    ///
    /// # Errors
    /// All invalid fields; of more than about twenty, the first ones.
    pub fn parse(body: &RawValue, currency: Currency, now: DateTime<Utc>) -> Result<Self, Vec<FieldError>> {
        let Some(fields) = Fields::of(body) else {
            return Err(vec![FieldError::new("", "must be an object")]);
        };
        Self::of(&fields, currency, now)
    }

    /// Like [`NewCart::parse`], for a body whose fields were read already.
    ///
    /// # Errors
    /// All invalid fields; of more than about twenty, the first ones.
    pub fn of(fields: &Fields<'_>, currency: Currency, now: DateTime<Utc>) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let customer_email = email(fields, &mut errors);
        let customer_name = text(fields.get("customerName"), "customerName", &mut errors);
        let items = items(fields.get("items"), currency, &mut errors);
        let abandoned_at = past_instant(fields, "abandonedAt", now, &mut errors).unwrap_or(now);
        let (Some(customer_email), Some(customer_name), Some((items, total_minor))) =
            (customer_email, customer_name, items)
        else {
            return Err(errors);
        };
        if canonical(&customer_email) == ERASED_EMAIL && !is_anonymous(&customer_name, &items) {
            errors.push(FieldError::new("customerEmail", "is reserved for carts whose shopper was erased"));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self { customer_email, customer_name, items, total_minor, currency, abandoned_at })
    }
}

/// Whether the cart's name and items are those of an erased cart, which can be exported and
/// imported.
fn is_anonymous(customer_name: &str, items: &RawValue) -> bool {
    let is_erased = |item: &RawValue| Fields::of(item).is_some_and(|item| item.text("name").as_deref() == Some(ERASED));
    customer_name == ERASED && json::list(items).is_some_and(|items| items.into_iter().all(is_erased))
}

/// Reads an optional instant that is not in the future. `None` if it is absent, null or invalid.
pub fn past_instant(
    fields: &Fields<'_>,
    field: &str,
    now: DateTime<Utc>,
    errors: &mut Vec<FieldError>,
) -> Option<DateTime<Utc>> {
    let value = fields.get(field)?;
    let Some(instant) = json::text(value).and_then(|text| parse_instant(&text)) else {
        errors.push(FieldError::new(
            field,
            "must be an ISO 8601 instant such as 2024-01-15T10:30:00Z, from year 0001 on, and not a leap second",
        ));
        return None;
    };
    if instant > now + CLOCK_SKEW {
        errors.push(FieldError::new(field, "must not be in the future"));
        return None;
    }
    Some(instant.min(now))
}

fn email(fields: &Fields<'_>, errors: &mut Vec<FieldError>) -> Option<String> {
    const FIELD: &str = "customerEmail";
    let address = fields.text(FIELD).and_then(|text| EmailAddress::parse(&text));
    if address.is_none() {
        let message = if fields.get(FIELD).is_none() { "is required" } else { "must be an e-mail address" };
        errors.push(FieldError::new(FIELD, message));
    }
    address.map(String::from)
}

fn text(value: Option<&RawValue>, field: &str, errors: &mut Vec<FieldError>) -> Option<String> {
    let message = match value.map(json::text) {
        None => "is required".to_owned(),
        Some(None) => "must be a string".to_owned(),
        Some(Some(text)) => {
            let text = text.trim();
            let characters = text.chars().count();
            if (1..=NAME_CHARACTERS).contains(&characters) && !text.contains('\0') {
                return Some(text.to_owned());
            }
            if text.contains('\0') {
                "must not contain NUL".to_owned()
            } else {
                format!("must have 1 to {NAME_CHARACTERS} characters")
            }
        }
    };
    errors.push(FieldError::new(field, message));
    None
}

fn items(value: Option<&RawValue>, currency: Currency, errors: &mut Vec<FieldError>) -> Option<(Box<RawValue>, i64)> {
    let list = match value.map(json::list) {
        None => {
            errors.push(FieldError::new("items", "is required"));
            return None;
        }
        Some(Some(list)) if (1..=MOST_ITEMS).contains(&list.len()) => list,
        Some(_) => {
            errors.push(FieldError::new("items", format!("must be a list of 1 to {MOST_ITEMS} items")));
            return None;
        }
    };
    let mut items = Vec::with_capacity(list.len());
    let mut total_minor = 0_i64;
    for (index, value) in list.iter().enumerate() {
        if errors.len() >= MAX_ERRORS {
            break;
        }
        if let Some((item, minor)) = item(value, index, currency, errors) {
            // At most 100 × 10,000 × 999,999.990: far from overflow.
            total_minor += i64::from(item.quantity) * minor;
            items.push(item);
        }
    }
    let complete = items.len() == list.len();
    complete.then(|| serde_json::value::to_raw_value(&items).ok()).flatten().map(|items| (items, total_minor))
}

fn item(value: &RawValue, index: usize, currency: Currency, errors: &mut Vec<FieldError>) -> Option<(Item, i64)> {
    let at = format!("items[{index}]");
    let Some(fields) = Fields::of(value) else {
        errors.push(FieldError::new(at, "must be an object"));
        return None;
    };
    let name = text(fields.get("name"), &format!("{at}.name"), errors);
    let quantity = fields
        .get("quantity")
        .and_then(json::number)
        .filter(|quantity| quantity.is_integer())
        .and_then(|quantity| u32::try_from(quantity).ok())
        .filter(|quantity| (1..=MOST_QUANTITY).contains(quantity));
    if quantity.is_none() {
        errors.push(FieldError::new(
            format!("{at}.quantity"),
            format!("must be a whole number from 1 to {MOST_QUANTITY}"),
        ));
    }
    let price = price(fields.get("price"), &at, currency, errors);
    let (name, quantity, minor) = (name?, quantity?, price?);
    Some((Item { name, quantity, price: currency.amount(minor) }, minor))
}

fn price(value: Option<&RawValue>, at: &str, currency: Currency, errors: &mut Vec<FieldError>) -> Option<i64> {
    let highest = Decimal::new(99_999_999, 2);
    let price = value
        .and_then(json::number)
        .filter(|price| !price.is_sign_negative() || price.is_zero())
        .filter(|price| *price <= highest);
    let minor = price.and_then(|price| currency.to_minor(price));
    if minor.is_none() {
        let message = match (price, currency.decimals()) {
            (None, _) => format!("must be a number from 0 to {highest}"),
            (Some(_), 0) => format!("must have no decimals in {currency}"),
            (Some(_), decimals) => format!("must have at most {decimals} decimals in {currency}"),
        };
        errors.push(FieldError::new(format!("{at}.price"), message));
    }
    minor
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parse(body: &Value) -> Result<NewCart, Vec<FieldError>> {
        let body = json::parse(body.to_string().as_bytes()).unwrap();
        NewCart::parse(&body, Currency::USD, "2026-03-01T12:00:00Z".parse().unwrap())
    }

    fn body(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_price_of_a_tenth_times_three_is_three_tenths() {
        let cart = parse(&body(
            r#"{"customerEmail":" a@example.com ","customerName":" Ada ","items":[{"name":"x","quantity":3,"price":0.1}]}"#,
        ))
        .unwrap();
        assert_eq!(cart.total_minor, 30);
        assert_eq!(cart.items.get(), r#"[{"name":"x","quantity":3,"price":0.10}]"#);
        assert_eq!((cart.customer_email.as_str(), cart.customer_name.as_str()), ("a@example.com", "Ada"));
    }

    #[test]
    fn every_wrong_field_is_named() {
        let errors = parse(&json!({
            "customerEmail": "nobody", "customerName": "", "abandonedAt": "2027-01-01T00:00:00Z",
            "items": [{"name": "a\u{0}", "quantity": "2", "price": -1}, 7, {"name": "b", "quantity": 1.5, "price": 0.001}],
        }))
        .unwrap_err();
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "customerEmail",
                "customerName",
                "items[0].name",
                "items[0].quantity",
                "items[0].price",
                "items[1]",
                "items[2].quantity",
                "items[2].price",
                "abandonedAt"
            ]
        );
    }

    #[test]
    fn no_more_than_twenty_errors_are_reported() {
        let errors = parse(&json!({"items": vec![json!({}); 100]})).unwrap_err();
        assert!((20..=MAX_ERRORS + 5).contains(&errors.len()), "{}", errors.len());
    }

    #[test]
    fn the_address_of_erased_shoppers_is_anonymous() {
        let cart = |email: &str, name: &str, item: &str| {
            let items = json!([{"name": item, "quantity": 1, "price": 1}]);
            parse(&json!({"customerEmail": email, "customerName": name, "items": items}))
        };
        assert!(cart(ERASED_EMAIL, ERASED, ERASED).is_ok(), "an export of an erased cart is imported again");
        for (name, item) in [("Ada", ERASED), (ERASED, "Teapot")] {
            for email in [ERASED_EMAIL, "Erased@ERASED.invalid", "\"erased\"@erased.invalid"] {
                let errors = cart(email, name, item).unwrap_err();
                assert_eq!(errors[0].field, "customerEmail", "{email} {name} {item}");
            }
        }
    }
}
