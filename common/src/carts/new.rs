//! Validation of carts: parses a JSON body into a [`Cart`].

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use utoipa::{
    ToSchema,
    openapi::{
        ObjectBuilder, Schema, Type,
        schema::{Object as ObjectSchema, SchemaType},
    },
};

pub use super::fields::{FieldError, MAX_ERRORS, past_instant};
use super::{
    Cart, CartId, CartStatus,
    fields::{Object, REQUIRED},
    items::{Adjustment, Item, MAX_ADJUSTMENTS, MAX_ITEMS, signed_amount},
};
use crate::{
    email::{EmailAddress, canonical},
    json::{self, Fields},
    locale::Locale,
    money::Currency,
    personal_data::{ERASED, ERASED_EMAIL},
};

/// Maximum characters of an external id.
pub const EXTERNAL_ID_CHARACTERS: usize = 200;
/// Stripe's limits of metadata (<https://docs.stripe.com/api/metadata>).
const MAX_METADATA: usize = 50;
const METADATA_KEY_CHARACTERS: usize = 40;
const METADATA_VALUE_CHARACTERS: usize = 500;
/// Fields of a cart that clients set and may change, as JSON names them.
pub(super) const CONTENTS: &[&str] = &[
    "externalId",
    "customerEmail",
    "customerName",
    "items",
    "adjustments",
    "currency",
    "locale",
    "acceptsMarketing",
    "metadata",
];
/// Fields of a cart that the server computes.
pub const COMPUTED: [&str; 8] = [
    "id",
    "recoveredBy",
    "paidValue",
    "refundedValue",
    "paymentLink",
    "paymentLinkExpiresAt",
    "createdAt",
    "updatedAt",
];

/// Body of `POST /api/carts`. Unknown fields are ignored.
// `ParsedCart` is the validated body.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase", example = json!({
    "externalId": "order-1001", "customerEmail": "ada@example.com", "customerName": "Ada Lovelace", "currency": "eur",
    "items": [{"name": "Teapot", "quantity": 2, "price": 49.99, "sku": "TP-1"}],
    "adjustments": [{"name": "Discount", "amount": -10.00}, {"name": "Shipping", "amount": 4.90}],
}))]
#[expect(dead_code, reason = "this is described, never made")]
pub struct NewCart {
    /// The shop's own id of the cart; unique. `POST` with the id of a cart changes that cart, an
    /// import leaves it as it is.
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$", example = "order-1001")]
    external_id: Option<String>,
    /// The shopper's e-mail address.
    #[schema(min_length = 3, max_length = 254, example = "ada@example.com")]
    customer_email: String,
    /// The shopper's name; surrounding white space is removed, and a blank one counts as null.
    #[schema(max_length = 200, pattern = r"^[^\u0000]*$", example = "Ada Lovelace")]
    customer_name: Option<String>,
    /// 1 to 1,000 items, as they are stored and returned.
    #[schema(min_items = 1, max_items = 1_000)]
    items: Vec<Item>,
    /// Shipping, taxes and discounts; the default is none.
    #[schema(max_items = 50)]
    adjustments: Option<Vec<Adjustment>>,
    /// The currency of all amounts; the default is the store's (`CURRENCY`).
    #[schema(pattern = "^[A-Za-z]{3}$", example = "eur")]
    currency: Option<String>,
    /// The shopper's language, a BCP 47 tag.
    #[schema(max_length = 35, pattern = "^[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*$", example = "de-AT")]
    locale: Option<String>,
    /// Whether the shopper agreed to receive marketing; null if that is not known.
    accepts_marketing: Option<bool>,
    /// Your own data: at most 50 texts with keys of 1 to 40 and values of at most 500 characters.
    #[schema(required = false, schema_with = metadata_schema)]
    metadata: BTreeMap<String, String>,
    /// When the shopper left the cart; not in the future. The default is now.
    abandoned_at: Option<DateTime<Utc>>,
    /// A check: if it is sent, it must equal the sum of the lines and adjustments.
    total_value: Option<f64>,
}

/// A cart that was received and is valid.
#[derive(Debug)]
pub struct ParsedCart {
    /// The cart as it is if it is new: with an id of its own, abandoned, and created now.
    pub cart: Cart,
    /// When the shopper left the cart; `None` if that was not sent.
    pub abandoned_at: Option<DateTime<Utc>>,
}

impl ParsedCart {
    /// Reads the body of `POST /api/carts`. Unknown fields are ignored; known ones that can't be
    /// set are errors.
    ///
    /// # Errors
    /// All invalid fields; of more than about twenty, the first ones.
    pub fn parse(body: &RawValue, currency: Currency, now: DateTime<Utc>) -> Result<Self, Vec<FieldError>> {
        let Some(fields) = Fields::of(body) else {
            return Err(vec![FieldError::new("", "must be an object")]);
        };
        let mut errors = Vec::new();
        let object = &mut Object::new(&fields, "", &mut errors);
        refuse_computed(object);
        for name in ["recoveredAt", "expiredAt"] {
            if object.get(name).is_some() {
                object.fail(name, "can't be set here; change the status with PATCH, or import the cart");
            }
        }
        if fields.get("status").is_some() && fields.text("status").as_deref() != Some("abandoned") {
            errors.push(FieldError::new("status", "must be abandoned here; PATCH changes it, and an import takes any"));
        }
        match Self::of(&fields, currency, now) {
            Ok(cart) if errors.is_empty() => Ok(cart),
            Ok(_) => Err(errors),
            Err(of_cart) => Err([of_cart, errors].concat()),
        }
    }

    /// Reads the fields of a cart that clients set.
    ///
    /// # Errors
    /// All invalid fields; of more than about twenty, the first ones.
    pub fn of(fields: &Fields<'_>, store_currency: Currency, now: DateTime<Utc>) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let object = &mut Object::new(fields, "", &mut errors);
        let currency = currency(object);
        let customer_email = email(object);
        let customer_name = object.optional_text("customerName", 200);
        let lines = match currency {
            Some(currency) => Lines::read(object, currency.unwrap_or(store_currency)),
            None => {
                object.errors().extend(Lines::errors_in_any_currency(fields, store_currency));
                None
            }
        };
        // A wrong field has an error and a placeholder: a cart with errors is not returned.
        let lines = lines.unwrap_or_else(|| Lines::none(store_currency));
        let cart = Cart {
            id: CartId::generate().to_string(),
            external_id: object.id("externalId", EXTERNAL_ID_CHARACTERS),
            customer_email: customer_email.unwrap_or_default(),
            customer_name,
            items: stored(&lines.items),
            adjustments: stored(&lines.adjustments),
            total_value: lines.currency.amount(lines.total_minor),
            currency: lines.currency,
            status: CartStatus::Abandoned,
            recovered_by: None,
            paid_value: None,
            refunded_value: None,
            locale: locale(object),
            accepts_marketing: object.boolean("acceptsMarketing"),
            metadata: stored(&metadata(object)),
            abandoned_at: now,
            recovered_at: None,
            expired_at: None,
            payment_link: None,
            payment_link_expires_at: None,
            created_at: now,
            updated_at: now,
        };
        let abandoned_at = object.past_instant("abandonedAt", now);
        if canonical(&cart.customer_email) == ERASED_EMAIL && !is_anonymous(&cart, &lines, fields) {
            errors.push(FieldError::new("customerEmail", "is reserved for carts whose shopper was erased"));
        }
        let cart = Cart { abandoned_at: abandoned_at.unwrap_or(now), ..cart };
        if errors.is_empty() { Ok(Self { cart, abandoned_at }) } else { Err(errors) }
    }
}

/// JSON as it is stored. Fields that were read can be serialized.
fn stored(value: &impl Serialize) -> Box<RawValue> {
    to_raw_value(value).unwrap_or_default()
}

/// Whether the cart is like an erased one, which can be exported and imported.
fn is_anonymous(cart: &Cart, lines: &Lines, fields: &Fields<'_>) -> bool {
    // An erasure clears all other contents.
    const NOT_CLEARED: [&str; 5] = ["customerEmail", "customerName", "items", "adjustments", "currency"];
    let is_cleared = |name| fields.get(name).is_none_or(|value| json::canonical(value) == "{}");
    let anonymous_item =
        |item: &Item| item.name == ERASED && item.sku.is_none() && item.url.is_none() && item.image_url.is_none();
    cart.customer_name.as_deref().is_none_or(|name| name == ERASED)
        && CONTENTS.iter().filter(|name| !NOT_CLEARED.contains(name)).all(|name| is_cleared(name))
        && lines.items.iter().all(anonymous_item)
        && lines.adjustments.iter().all(|adjustment| adjustment.name == ERASED)
}

/// Reports the fields that the server computes.
fn refuse_computed(object: &mut Object<'_, '_>) {
    for name in COMPUTED {
        if object.get(name).is_some() {
            object.fail(name, "can't be set; the server computes it");
        }
    }
}

/// `None` if the code is unknown, `Some(None)` if there is none.
#[expect(clippy::option_option, reason = "a wrong currency is not a missing one")]
fn currency(object: &mut Object<'_, '_>) -> Option<Option<Currency>> {
    let Some(value) = object.get("currency") else { return Some(None) };
    let currency = json::text(value).and_then(|code| code.parse().ok());
    if currency.is_none() {
        object.fail("currency", "must be the ISO 4217 code of a currency that shoppers pay with, such as usd");
    }
    currency.map(Some)
}

fn email(object: &mut Object<'_, '_>) -> Option<String> {
    const FIELD: &str = "customerEmail";
    let value = object.get(FIELD);
    let address = value.and_then(json::text).and_then(|text| EmailAddress::parse(&text));
    if address.is_none() {
        object.fail(FIELD, if value.is_none() { REQUIRED } else { "must be an e-mail address" });
    }
    address.map(String::from)
}

fn locale(object: &mut Object<'_, '_>) -> Option<String> {
    const FIELD: &str = "locale";
    let tag = object.text_if_given(FIELD, 1_000)?;
    let locale = tag.parse::<Locale>().map_err(|malformed| object.fail(FIELD, malformed.to_string()));
    locale.ok().map(|locale| locale.to_string())
}

fn metadata_schema() -> ObjectSchema {
    let value = ObjectBuilder::new().schema_type(Type::String).max_length(Some(METADATA_VALUE_CHARACTERS));
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .description(Some("Your own data: texts by keys of 1 to 40 characters."))
        .additional_properties(Some(Schema::Object(value.build())))
        .max_properties(Some(MAX_METADATA))
        .build()
}

/// At most 50 texts by key.
fn metadata(object: &mut Object<'_, '_>) -> BTreeMap<String, String> {
    const FIELD: &str = "metadata";
    let Some(value) = object.get(FIELD) else { return BTreeMap::new() };
    let read = Fields::of(value).map(|fields| {
        let text = |(key, value): (&str, &RawValue)| Some((key.to_owned(), json::text(value)?.into_owned()));
        fields.iter().map(text).collect::<Option<BTreeMap<String, String>>>()
    });
    let message = match read {
        Some(Some(texts)) => match texts.iter().find_map(|(key, value)| wrong_metadata(key, value)) {
            Some(message) => message,
            None if texts.len() > MAX_METADATA => format!("must have at most {MAX_METADATA} keys"),
            None => return texts,
        },
        _ => "must be an object whose values are strings".to_owned(),
    };
    object.fail(FIELD, message);
    BTreeMap::new()
}

fn wrong_metadata(key: &str, value: &str) -> Option<String> {
    if !(1..=METADATA_KEY_CHARACTERS).contains(&key.chars().count()) {
        Some(format!("must have keys of 1 to {METADATA_KEY_CHARACTERS} characters"))
    } else if value.chars().count() > METADATA_VALUE_CHARACTERS {
        Some(format!("must have values of at most {METADATA_VALUE_CHARACTERS} characters"))
    } else if key.contains('\0') || value.contains('\0') {
        Some("must not contain NUL".to_owned())
    } else {
        None
    }
}

/// The lines and adjustments of a cart, with their sum.
struct Lines {
    currency: Currency,
    items: Vec<Item>,
    adjustments: Vec<Adjustment>,
    total_minor: i64,
}

impl Lines {
    fn none(currency: Currency) -> Self {
        Self { currency, items: Vec::new(), adjustments: Vec::new(), total_minor: 0 }
    }

    /// The errors of the lines in any currency.
    fn errors_in_any_currency(fields: &Fields<'_>, currency: Currency) -> impl Iterator<Item = FieldError> {
        let mut errors = Vec::new();
        Self::read(&mut Object::new(fields, "", &mut errors), currency);
        let of_money = ["price", "total", "amount", "totalValue", "items", "adjustments"];
        errors.into_iter().filter(move |error| {
            let name = error.field.rsplit('.').next().unwrap_or_default();
            !of_money.contains(&name) || error.message == REQUIRED || error.message.starts_with("must be a ")
        })
    }

    /// `None` if something is wrong.
    fn read(object: &mut Object<'_, '_>, currency: Currency) -> Option<Self> {
        let items = match object.get("items") {
            Some(_) => object.list("items", (1, MAX_ITEMS), |item| Item::read(item, currency)),
            None => {
                object.fail("items", REQUIRED);
                None
            }
        };
        let adjustments = match object.get("adjustments") {
            Some(_) => {
                object.list("adjustments", (0, MAX_ADJUSTMENTS), |adjustment| Adjustment::read(adjustment, currency))
            }
            None => Some(Vec::new()),
        };
        let sent = signed_amount(object, "totalValue", currency);
        let (items, adjustments) = (items?, adjustments?);
        // At most 1,050 amounts of 12 digits: far from overflow.
        let total_minor = items.iter().filter_map(|item| item.minor(currency)).sum::<i64>()
            + adjustments.iter().map(|adjustment| adjustment.amount.minor()).sum::<i64>();
        let total = currency.amount(total_minor);
        if total_minor < 0 {
            object.fail("adjustments", format!("must not make the total negative; it is {total}"));
            return None;
        }
        if total_minor > Currency::MAX_MINOR {
            object.fail(
                "items",
                format!("must have a total of at most {}; it is {total}", currency.amount(Currency::MAX_MINOR)),
            );
            return None;
        }
        if let Some(sent) = sent.filter(|sent| *sent != total) {
            object.fail("totalValue", format!("is {sent}, but the lines and adjustments add up to {total}"));
            return None;
        }
        Some(Self { currency, items, adjustments, total_minor })
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests;
