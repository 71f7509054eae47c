//! The lines of a Checkout Session. Stripe charges their sum, which is always the cart's total.
//!
//! Stripe's lines have whole quantities and whole, positive amounts, and there are at most 100
//! (<https://docs.stripe.com/api/checkout/sessions/create#create_checkout_session-line_items>). A
//! line of the cart that can't be expressed so becomes one piece with the total of the line, and a
//! cart that can't, such as one with a discount, becomes one line with the total of the cart.

use common::{
    carts::items::{Adjustment, Item},
    money::{Currency, Unchargeable},
    payment_links::checkout::CheckoutCart,
};

/// Stripe's maximum number of lines.
const MAX_LINES: usize = 100;
/// Stripe's maximum quantity of a line.
const MAX_QUANTITY: u64 = 999_999;
/// Stripe's maximum of characters of a product's name.
const NAME_CHARACTERS: usize = 250;
/// Maximum characters of a product's description.
const DESCRIPTION_CHARACTERS: usize = 500;

/// A line of a Checkout Session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    /// In Stripe's smallest unit.
    pub(crate) unit_amount: i64,
    pub(crate) quantity: u64,
}

impl Line {
    /// Unit amount × quantity; `None` if it overflows.
    fn total(&self) -> Option<i64> {
        self.unit_amount.checked_mul(i64::try_from(self.quantity).ok()?)
    }
}

/// The sum of the totals; `None` if it overflows.
fn sum(lines: &[Line]) -> Option<i64> {
    lines.iter().try_fold(0_i64, |sum, line| sum.checked_add(line.total()?))
}

/// The lines of the cart's session.
///
/// # Errors
/// If Stripe can't charge the total.
pub(crate) fn lines(cart: &CheckoutCart) -> Result<Vec<Line>, Unchargeable> {
    let total = cart.currency.stripe_amount(cart.total_minor)?;
    let (items, adjustments) =
        (cart.items.as_deref().unwrap_or_default(), cart.adjustments.as_deref().unwrap_or_default());
    let itemized = itemized(items, adjustments, cart.currency).filter(|lines| sum(lines) == Some(total));
    Ok(itemized.unwrap_or_else(|| vec![summary(items, adjustments, cart.currency, total)]))
}

/// A line for each line of the cart; `None` if that is not possible.
fn itemized(items: &[Item], adjustments: &[Adjustment], currency: Currency) -> Option<Vec<Line>> {
    let mut lines: Vec<Line> = items.iter().map(|item| line(item, currency)).collect::<Option<_>>()?;
    for adjustment in adjustments.iter().filter(|adjustment| adjustment.amount.minor() != 0) {
        let minor = adjustment.amount.minor();
        lines.push(one(&adjustment.name, (minor > 0).then_some(minor)?, currency)?);
    }
    if lines.len() > MAX_LINES {
        let more = lines.split_off(MAX_LINES - 1);
        let name = format!("{} more items", more.len());
        lines.push(Line { name, description: None, unit_amount: sum(&more)?, quantity: 1 });
    }
    Some(lines)
}

fn line(item: &Item, currency: Currency) -> Option<Line> {
    let minor = item.minor(currency)?;
    let price = currency.to_minor(item.price);
    if let (Some(quantity @ 1..=MAX_QUANTITY), Some(price)) = (item.pieces(), price)
        && i64::try_from(quantity).ok().and_then(|quantity| quantity.checked_mul(price)) == Some(minor)
        && let Ok(unit_amount) = currency.stripe_amount(price)
    {
        return Some(Line { name: cut(&item.name, NAME_CHARACTERS), description: None, unit_amount, quantity });
    }
    one(&format!("{} × {}", item.quantity, item.name), minor, currency)
}

fn one(name: &str, minor: i64, currency: Currency) -> Option<Line> {
    let unit_amount = currency.stripe_amount(minor).ok()?;
    Some(Line { name: cut(name, NAME_CHARACTERS), description: None, unit_amount, quantity: 1 })
}

/// One line for the whole cart, which names its lines and adjustments with their amounts.
fn summary(items: &[Item], adjustments: &[Adjustment], currency: Currency, unit_amount: i64) -> Line {
    let names: Vec<String> = items.iter().map(|item| format!("{} × {}", item.quantity, item.name)).collect();
    let amount = |item: &Item| item.minor(currency).map(|minor| currency.amount(minor).to_string()).unwrap_or_default();
    let priced = items.iter().zip(&names).map(|(item, name)| format!("{name}: {}", amount(item)));
    let adjusted = adjustments.iter().map(|adjustment| format!("{}: {}", adjustment.name, adjustment.amount));
    let description = priced.chain(adjusted).collect::<Vec<_>>().join(", ");
    Line {
        name: if names.is_empty() { "Cart".to_owned() } else { cut(&names.join(", "), NAME_CHARACTERS) },
        description: (!description.is_empty()).then(|| cut(&description, DESCRIPTION_CHARACTERS)),
        unit_amount,
        quantity: 1,
    }
}

/// At most `most` characters of the text, with an ellipsis at the end if it was cut.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

#[cfg(test)]
mod properties;
