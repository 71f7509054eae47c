//! The lines of a cart, and its adjustments: shipping, taxes and discounts.

use rust_decimal::{Decimal, prelude::ToPrimitive};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::{
    ToSchema,
    openapi::{ObjectBuilder, Type, schema::Object as ObjectSchema},
};

use super::fields::{Object, REQUIRED};
use crate::{
    json::{self, Fields},
    money::{Amount, Currency, serialize_decimal, signed_amount_schema},
};

/// Maximum characters of the name of an item or an adjustment.
const NAME_CHARACTERS: usize = 500;
/// Maximum number of lines of a cart.
pub const MAX_ITEMS: usize = 1_000;
/// Maximum number of adjustments of a cart.
pub(super) const MAX_ADJUSTMENTS: usize = 50;
/// Maximum quantity of a line.
const MAX_QUANTITY: i64 = 1_000_000;
/// Maximum decimals of a quantity.
const QUANTITY_DECIMALS: u32 = 3;
/// Maximum decimals of a price, which may be a fraction of a minor unit.
const PRICE_DECIMALS: u32 = 6;
/// Maximum characters of a product's number.
const SKU_CHARACTERS: usize = 100;

/// One line of a cart, as it is stored and returned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CartItem)]
pub struct Item {
    /// The product's name; surrounding white space is removed.
    #[schema(
        min_length = 1,
        max_length = 500,
        pattern = r"^[^\u0000]*[^\s\u0000\u0085][^\u0000]*$",
        example = "Teapot"
    )]
    pub name: String,
    /// The number of pieces, or a weight or length: more than 0, at most 1,000,000.
    #[serde(serialize_with = "serialize_decimal")]
    #[schema(schema_with = quantity)]
    pub quantity: Decimal,
    /// The price of one piece, in the cart's currency.
    #[serde(serialize_with = "serialize_decimal")]
    #[schema(schema_with = price)]
    pub price: Decimal,
    /// The total of the line, if it is not quantity × price: rounded, or with a discount of at most
    /// one minor unit a piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<Amount>,
    /// The shop's number of the product.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 100)]
    pub sku: Option<String>,
    /// The product's page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = "uri", max_length = 2_048, example = "https://shop.example/teapot")]
    pub url: Option<String>,
    /// A picture of the product.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = "uri", max_length = 2_048, example = "https://shop.example/teapot.jpg")]
    pub image_url: Option<String>,
}

/// Shipping, a tax, a fee or a discount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = CartAdjustment)]
pub struct Adjustment {
    /// The name, such as Shipping; surrounding white space is removed.
    #[schema(
        min_length = 1,
        max_length = 500,
        pattern = r"^[^\u0000]*[^\s\u0000\u0085][^\u0000]*$",
        example = "Shipping"
    )]
    pub name: String,
    /// The amount in the cart's currency; negative for a discount.
    #[schema(schema_with = signed_amount_schema)]
    pub amount: Amount,
}

fn quantity() -> ObjectSchema {
    let description = "The number of pieces, or a weight or length: more than 0, with at most 3 decimals.";
    number(description).exclusive_minimum(Some(0)).maximum(Some(MAX_QUANTITY)).examples([2]).build()
}

fn price() -> ObjectSchema {
    let description = "The price of one piece in the cart's currency, with at most 6 decimals. quantity × price must be a whole number of minor units, or `total` must be sent.";
    number(description).minimum(Some(0)).examples([49.99]).build()
}

fn number(description: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Number).description(Some(description))
}

impl Item {
    /// Reads a line in `currency`; `None` if a field is wrong.
    pub(super) fn read(object: &mut Object<'_, '_>, currency: Currency) -> Option<Self> {
        let name = object.text("name", NAME_CHARACTERS);
        let quantity = decimal(object, "quantity", QUANTITY_DECIMALS);
        let most = Decimal::from(MAX_QUANTITY);
        let quantity = quantity.and_then(|quantity| {
            let fits = quantity > Decimal::ZERO && quantity <= most;
            if !fits {
                object.fail("quantity", format!("must be more than 0 and at most {MAX_QUANTITY}"));
            }
            fits.then_some(quantity)
        });
        let price = decimal(object, "price", PRICE_DECIMALS);
        let price = price.and_then(|price| {
            let highest = currency.amount(Currency::MAX_MINOR);
            let fits = !price.is_sign_negative() && price <= highest.value();
            if !fits {
                object.fail("price", format!("must be a number from 0 to {highest}"));
            }
            fits.then_some(price)
        });
        let total = amount(object, "total", currency);
        let total_is_wrong = total.is_none() && object.get("total").is_some();
        let (sku, url) = (object.optional_text("sku", SKU_CHARACTERS), object.url("url"));
        let image_url = object.url("imageUrl");
        let (name, quantity, price) = (name?, quantity?, price?);
        let mut price = price.normalize();
        price.rescale(price.scale().max(currency.decimals()));
        let item = Self { name, quantity: quantity.normalize(), price, total, sku, url, image_url };
        if !total_is_wrong {
            item.check_total(object, currency);
        }
        Some(item)
    }

    /// quantity × price, in minor units of `currency`, which may be a fraction.
    fn exact_minor(&self, currency: Currency) -> Decimal {
        // At most 13 digits and 6 decimals times 7 digits and 3 decimals: this neither overflows nor
        // rounds.
        self.price * Decimal::from(10_i64.pow(currency.decimals())) * self.quantity
    }

    fn check_total(&self, object: &mut Object<'_, '_>, currency: Currency) {
        let exact = self.exact_minor(currency);
        let (product, unit) = ((self.price * self.quantity).normalize(), currency.amount(1));
        match self.total.map(Amount::minor) {
            None if !exact.is_integer() => object.fail(
                "price",
                format!(
                    "quantity × price is {product}, which is not a multiple of {unit} {currency}; send the total of the line as total",
                ),
            ),
            Some(total) if (exact - Decimal::from(total)).abs() > self.quantity.max(Decimal::ONE) => {
                object.fail("total", format!("must be quantity × price, {product}, within {unit} {currency} for each piece"))
            }
            _ => {}
        }
        if self.minor(currency).is_none() {
            object.fail("price", format!("quantity × price must be at most {}", currency.amount(Currency::MAX_MINOR)));
        }
    }

    /// The quantity as a number of pieces; `None` if it is a fraction.
    pub fn pieces(&self) -> Option<u64> {
        self.quantity.is_integer().then(|| self.quantity.to_u64()).flatten()
    }

    /// The total of the line in minor units; `None` if it is above [`Currency::MAX_MINOR`].
    pub fn minor(&self, currency: Currency) -> Option<i64> {
        let minor = match self.total {
            Some(total) => total.minor(),
            None => self.exact_minor(currency).to_i64()?,
        };
        (minor <= Currency::MAX_MINOR).then_some(minor)
    }
}

impl Adjustment {
    /// Reads an adjustment in `currency`; `None` if a field is wrong.
    pub(super) fn read(object: &mut Object<'_, '_>, currency: Currency) -> Option<Self> {
        let name = object.text("name", NAME_CHARACTERS);
        if object.get("amount").is_none() {
            object.fail("amount", REQUIRED);
        }
        let amount = signed_amount(object, "amount", currency);
        Some(Self { name: name?, amount: amount? })
    }
}

/// A number with at most `decimals` decimals; `None` if it is wrong.
fn decimal(object: &mut Object<'_, '_>, name: &str, decimals: u32) -> Option<Decimal> {
    let Some(value) = object.get(name) else {
        object.fail(name, REQUIRED);
        return None;
    };
    let number = json::number(value);
    match number {
        None => object.fail(name, not_a_number(value)),
        Some(number) if number.normalize().scale() > decimals => {
            object.fail(name, format!("must have at most {decimals} decimals"));
        }
        Some(number) => return Some(if number.is_zero() { Decimal::ZERO } else { number }),
    }
    None
}

/// The message for a value that is not a number, or has too many digits for one.
fn not_a_number(value: &RawValue) -> &'static str {
    if json::text(value).is_some() { "must be a number, not a string" } else { "must be a number" }
}

/// An optional amount of at least 0.
fn amount(object: &mut Object<'_, '_>, name: &str, currency: Currency) -> Option<Amount> {
    let amount = signed_amount(object, name, currency)?;
    if amount.minor() < 0 {
        object.fail(name, "must not be negative");
        return None;
    }
    Some(amount)
}

pub(super) fn signed_amount(object: &mut Object<'_, '_>, name: &str, currency: Currency) -> Option<Amount> {
    let value = object.get(name)?;
    let number = json::number(value);
    let minor = number.and_then(|number| currency.to_minor(number));
    let highest = currency.amount(Currency::MAX_MINOR);
    let message = match (number, minor, currency.decimals()) {
        (_, Some(minor), _) if minor.abs() <= Currency::MAX_MINOR => return Some(currency.amount(minor)),
        (None, ..) => not_a_number(value).to_owned(),
        (Some(number), ..) if number.abs() > highest.value() => format!("must be at most {highest}"),
        (.., 0) => format!("must have no decimals in {currency}"),
        (.., decimals) => format!("must have at most {decimals} decimals in {currency}"),
    };
    object.fail(name, message);
    None
}

/// The stored lines of a cart; `None` if other programs wrote something that the product would not.
pub fn stored_items(items: &RawValue, currency: Currency) -> Option<Vec<Item>> {
    stored(items, |object| Item::read(object, currency))
}

/// The stored adjustments of a cart; `None` as for [`stored_items`].
pub fn stored_adjustments(adjustments: &RawValue, currency: Currency) -> Option<Vec<Adjustment>> {
    stored(adjustments, |object| Adjustment::read(object, currency))
}

fn stored<T>(list: &RawValue, read: impl Fn(&mut Object<'_, '_>) -> Option<T>) -> Option<Vec<T>> {
    let mut errors = Vec::new();
    let element = |value| read(&mut Object::new(&Fields::of(value)?, "", &mut errors));
    let read: Option<Vec<T>> = json::list(list)?.into_iter().map(element).collect();
    read.filter(|_| errors.is_empty())
}
