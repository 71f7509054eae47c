//! Validation of carts: parses a JSON body into a [`NewCart`].

use std::{collections::BTreeMap, marker::PhantomData};

use chrono::{DateTime, Utc};
use serde_json::value::{RawValue, to_raw_value};
use utoipa::ToSchema;

pub use super::fields::{FieldError, past_instant};
use super::{
    fields::Object,
    items::{Adjustment, Item, MAX_ADJUSTMENTS, MAX_ITEMS, amount},
};
use crate::{
    email::{EmailAddress, canonical},
    json::{self, Fields},
    locale::Locale,
    money::Currency,
    personal_data::{ERASED, ERASED_EMAIL},
};

/// Maximum characters of a shopper's name.
const NAME_CHARACTERS: usize = 200;
/// Maximum characters of an external id.
pub const EXTERNAL_ID_CHARACTERS: usize = 200;
/// Stripe's limits of metadata (<https://docs.stripe.com/api/metadata>).
const MAX_METADATA: usize = 50;
const METADATA_KEY_CHARACTERS: usize = 40;
const METADATA_VALUE_CHARACTERS: usize = 500;
/// Fields of a cart that the server computes.
pub(super) const COMPUTED: [&str; 8] = [
    "id",
    "recoveredBy",
    "paidValue",
    "refundedValue",
    "paymentLink",
    "paymentLinkExpiresAt",
    "createdAt",
    "updatedAt",
];

/// A validated cart. The schema describes the body that it is parsed from.
#[derive(Debug, Clone, ToSchema)]
#[schema(rename_all = "camelCase", description = "Body of `POST /api/carts`. Unknown fields are ignored.", example = json!({
    "externalId": "order-1001", "customerEmail": "ada@example.com", "customerName": "Ada Lovelace", "currency": "eur",
    "items": [{"name": "Teapot", "quantity": 2, "price": 49.99, "sku": "TP-1"}],
    "adjustments": [{"name": "Discount", "amount": -10.00}, {"name": "Shipping", "amount": 4.90}],
}))]
pub struct NewCart {
    /// The shop's own id of the cart; unique. `POST` with the id of a cart changes that cart, an
    /// import leaves it as it is.
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$", example = "order-1001")]
    pub external_id: Option<String>,
    /// The shopper's e-mail address.
    #[schema(min_length = 3, max_length = 254, example = "ada@example.com")]
    pub customer_email: String,
    /// The shopper's name; surrounding white space is removed, and a blank one counts as null.
    #[schema(max_length = 200, pattern = r"^[^\u0000]*$", example = "Ada Lovelace")]
    pub customer_name: Option<String>,
    /// 1 to 1,000 items, as they are stored and returned.
    #[schema(value_type = Vec<Item>, min_items = 1, max_items = 1_000)]
    pub items: Box<RawValue>,
    /// Shipping, taxes and discounts; the default is none.
    #[schema(value_type = Option<Vec<Adjustment>>, max_items = 50)]
    pub adjustments: Box<RawValue>,
    /// The currency of all amounts; the default is the store's (`CURRENCY`).
    #[schema(value_type = Option<String>, pattern = "^[A-Za-z]{3}$", example = "eur")]
    pub currency: Currency,
    /// The sum of the lines and adjustments, in minor units of `currency`.
    #[schema(ignore)]
    pub total_minor: i64,
    /// The shopper's language, a BCP 47 tag.
    #[schema(max_length = 35, pattern = "^[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*$", example = "de-AT")]
    pub locale: Option<String>,
    /// Whether the shopper agreed to receive marketing; null if that is not known.
    pub accepts_marketing: Option<bool>,
    /// Your own data: at most 50 texts with keys of 1 to 40 and values of at most 500 characters.
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    pub metadata: Box<RawValue>,
    /// When the shopper left the cart; not in the future. The default is now.
    pub abandoned_at: Option<DateTime<Utc>>,
    /// A check: if it is sent, it must equal the sum of the lines and adjustments.
    // Compared when the body is read, and not kept: the field exists for the schema.
    #[schema(value_type = Option<f64>)]
    total_value: PhantomData<f64>,
}

impl NewCart {
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
        let customer_name = object.optional_text("customerName", NAME_CHARACTERS);
        // Amounts can't be read in an unknown currency.
        let lines = currency
            .map(|currency| currency.unwrap_or(store_currency))
            .and_then(|currency| Lines::read(object, currency));
        let external_id = object.id("externalId", EXTERNAL_ID_CHARACTERS);
        let locale = locale(object);
        let accepts_marketing = object.boolean("acceptsMarketing");
        let metadata = metadata(object);
        let abandoned_at = object.past_instant("abandonedAt", now);
        let (Some(customer_email), Some(lines), Some(metadata)) = (customer_email, lines, metadata) else {
            return Err(errors);
        };
        let (Ok(items), Ok(adjustments), Ok(metadata)) =
            (to_raw_value(&lines.items), to_raw_value(&lines.adjustments), to_raw_value(&metadata))
        else {
            return Err(vec![FieldError::new("", "can't be stored as JSON")]);
        };
        let cart = Self {
            external_id,
            customer_email,
            customer_name,
            items,
            adjustments,
            currency: lines.currency,
            total_minor: lines.total_minor,
            locale,
            accepts_marketing,
            metadata,
            abandoned_at,
            total_value: PhantomData,
        };
        if canonical(&cart.customer_email) == ERASED_EMAIL && !cart.is_anonymous(&lines) {
            errors.push(FieldError::new("customerEmail", "is reserved for carts whose shopper was erased"));
        }
        if errors.is_empty() { Ok(cart) } else { Err(errors) }
    }

    /// Whether the cart is like an erased one, which can be exported and imported.
    fn is_anonymous(&self, lines: &Lines) -> bool {
        let name = self.customer_name.as_deref();
        name.is_none_or(|name| name == ERASED)
            && self.metadata.get() == "{}"
            && lines.items.iter().all(|item| item.name == ERASED)
            && lines.adjustments.iter().all(|adjustment| adjustment.name == ERASED)
    }
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
    let currency = json::text(value).and_then(|code| code.trim().parse().ok());
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
        object.fail(FIELD, if value.is_none() { "is required" } else { "must be an e-mail address" });
    }
    address.map(String::from)
}

fn locale(object: &mut Object<'_, '_>) -> Option<String> {
    const FIELD: &str = "locale";
    let tag = object.optional_text(FIELD, 1_000)?;
    let locale = tag.parse::<Locale>().map_err(|malformed| object.fail(FIELD, malformed.to_string()));
    locale.ok().map(|locale| locale.to_string())
}

/// At most 50 texts by key. `None` if something is wrong.
fn metadata(object: &mut Object<'_, '_>) -> Option<BTreeMap<String, String>> {
    const FIELD: &str = "metadata";
    let Some(value) = object.get(FIELD) else { return Some(BTreeMap::new()) };
    let read = Fields::of(value).map(|fields| {
        let text = |(key, value): (&str, &RawValue)| Some((key.to_owned(), json::text(value)?.into_owned()));
        fields.iter().map(text).collect::<Option<BTreeMap<String, String>>>()
    });
    let message = match read {
        Some(Some(texts)) => match texts.iter().find_map(|(key, value)| wrong_metadata(key, value)) {
            Some(message) => message,
            None if texts.len() > MAX_METADATA => format!("must have at most {MAX_METADATA} keys"),
            None => return Some(texts),
        },
        _ => "must be an object whose values are strings".to_owned(),
    };
    object.fail(FIELD, message);
    None
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
    /// `None` if something is wrong.
    fn read(object: &mut Object<'_, '_>, currency: Currency) -> Option<Self> {
        let items = match object.get("items") {
            Some(_) => object.list("items", (1, MAX_ITEMS), |item| Item::read(item, currency)),
            None => {
                object.fail("items", "is required");
                None
            }
        };
        let adjustments = match object.get("adjustments") {
            Some(_) => {
                object.list("adjustments", (0, MAX_ADJUSTMENTS), |adjustment| Adjustment::read(adjustment, currency))
            }
            None => Some(Vec::new()),
        };
        let sent = amount(object, "totalValue", currency);
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
mod tests {
    use super::*;
    use crate::carts::fields::MAX_ERRORS;
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
        assert_eq!((cart.customer_email.as_str(), cart.customer_name.as_deref()), ("a@example.com", Some("Ada")));
    }

    #[test]
    fn every_wrong_field_is_named() {
        let errors = parse(&json!({
            "customerEmail": "nobody", "customerName": 7, "abandonedAt": "2027-01-01T00:00:00Z", "status": "expired",
            "items": [{"name": "a\u{0}", "quantity": "2", "price": -1}, 7, {"name": "b", "quantity": 1.5, "price": 0.001}],
            "adjustments": [{"name": "", "amount": 0.001}],
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
                "items[2].price",
                "adjustments[0].name",
                "adjustments[0].amount",
                "abandonedAt",
                "status",
            ]
        );
    }

    fn total(items: Value, adjustments: Value) -> Result<i64, (String, String)> {
        let cart = parse(&json!({"customerEmail": "a@example.com", "items": items, "adjustments": adjustments}));
        cart.map(|cart| cart.total_minor).map_err(|errors| (errors[0].field.clone(), errors[0].message.clone()))
    }

    #[test]
    fn the_total_is_the_sum_of_lines_and_adjustments() {
        let hundred = json!([{"name": "x", "quantity": 2, "price": 50}]);
        let adjustments = json!([{"name": "Discount", "amount": -10.00}, {"name": "Shipping", "amount": 4.90}]);
        assert_eq!(total(hundred.clone(), adjustments), Ok(9_490));
        let too_much = json!([{"name": "Discount", "amount": -100.01}]);
        let message = "must not make the total negative; it is -0.01".to_owned();
        assert_eq!(total(hundred.clone(), too_much), Err(("adjustments".to_owned(), message)));
        assert_eq!(total(hundred, json!([{"name": "Discount", "amount": -100}])), Ok(0));
    }

    #[test]
    fn fractions_need_a_total_that_fits() {
        let line = |quantity: &str, price: &str, more: &str| {
            let items = body(&format!(r#"[{{"name":"Cheese","quantity":{quantity},"price":{price}{more}}}]"#));
            total(items, json!([])).map_err(|(field, _)| field)
        };
        assert_eq!(line("1.5", "19.90", ""), Ok(2_985));
        assert_eq!(line("0.333", "19.90", ""), Err("items[0].price".to_owned()));
        assert_eq!(line("0.333", "19.90", r#","total":6.63"#), Ok(663));
        assert_eq!(line("0.333", "19.90", r#","total":6.65"#), Err("items[0].total".to_owned()));
        assert_eq!(line("3", "0.333333", r#","total":1.00"#), Ok(100));
        // A discount of one cent a piece.
        assert_eq!(line("10", "1.00", r#","total":9.90"#), Ok(990));
        assert_eq!(line("10", "1.00", r#","total":9.89"#), Err("items[0].total".to_owned()));
        assert_eq!(line("1000000", "9999.99999999", ""), Err("items[0].price".to_owned()));
        assert_eq!(line("1000000", "9999.999999", ""), Ok(999_999_999_900));
        assert_eq!(line("1000000", "10000", ""), Err("items[0].price".to_owned()));
    }

    #[test]
    fn a_sent_total_must_be_the_sum() {
        let cart = |total: &str| {
            let line = r#""customerEmail":"a@example.com","items":[{"name":"x","quantity":1,"price":94.9}]"#;
            parse(&body(&format!(r#"{{{line},"totalValue":{total}}}"#)))
        };
        assert!(cart("94.90").is_ok() && cart("94.9").is_ok() && cart("null").is_ok());
        let error = &cart("95").unwrap_err()[0];
        assert_eq!(error.field, "totalValue");
        assert_eq!(error.message, "is 95.00, but the lines and adjustments add up to 94.90");
    }

    #[test]
    fn metadata_is_stored_sorted() {
        let cart = parse(&json!({
            "customerEmail": "a@example.com", "items": [{"name": "x", "quantity": 1, "price": 1}],
            "metadata": {"b": "2", "a": "ü\n"}, "customerName": "  ", "locale": null, "acceptsMarketing": false,
        }));
        let cart = cart.unwrap();
        assert_eq!(cart.metadata.get(), r#"{"a":"ü\n","b":"2"}"#);
        assert_eq!((cart.customer_name, cart.locale, cart.accepts_marketing), (None, None, Some(false)));
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
