//! Validates the parameters of new sessions, by
//! <https://docs.stripe.com/api/checkout/sessions/create> and Stripe's OpenAPI specification.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    Charge,
    currencies::{is_supported, maximum, minimum, multiple},
    form::Parameters,
    options::options,
    refusal::Refusal,
    sessions::{Line, PaymentStatus, Session, SessionStatus},
};
use crate::postgres::random_word;

const LOCALES: &[&str] = &[
    "auto", "bg", "cs", "da", "de", "el", "en", "en-GB", "es", "es-419", "et", "fi", "fil", "fr", "fr-CA", "hr", "hu",
    "id", "it", "ja", "ko", "lt", "lv", "ms", "mt", "nb", "nl", "pl", "pt", "pt-BR", "ro", "ru", "sk", "sl", "sv",
    "th", "tr", "vi", "zh", "zh-HK", "zh-TW",
];
const NAME_CHARACTERS: usize = 250;
const DESCRIPTION_CHARACTERS: usize = 1_000;
const PRODUCT_DESCRIPTION_CHARACTERS: usize = 40_000;
const LINES: usize = 100;

/// Validates the parameters as Stripe does.
pub(super) fn new_session(parameters: &Parameters, now: DateTime<Utc>) -> Result<Session, Refusal> {
    let mut unread = parameters.clone();
    if unread.remove("mode").as_deref() != Some("payment") {
        return Err(Refusal::invalid("You must specify `mode`; this fake Stripe knows `payment`."));
    }
    let success_url = text(&mut unread, "success_url", 5_000)?;
    let success_url = success_url.ok_or_else(|| Refusal::invalid("Missing required param: success_url."))?;
    let client_reference_id = text(&mut unread, "client_reference_id", 200)?;
    let customer_email = customer_email(&mut unread)?;
    let locale = locale(&mut unread)?;
    let options = options(&mut unread)?;
    let expires_at = expiry(unread.remove("expires_at"), now)?;
    let metadata = metadata(&mut unread, "metadata")?;
    let payment_intent_metadata = self::metadata(&mut unread, "payment_intent_data[metadata]")?;
    let payment_intent_description = text(&mut unread, "payment_intent_data[description]", DESCRIPTION_CHARACTERS)?;
    let (lines, currency) = lines(&mut unread)?;
    if let Some(unknown) = unread.keys().next() {
        return Err(
            Refusal::with_code("parameter_unknown", format!("Received unknown parameter: {unknown}")).about(unknown)
        );
    }
    let amount_total = total(&lines, &currency)?;
    Ok(Session {
        id: format!("cs_test_{}", random_word()),
        status: SessionStatus::Open,
        payment_status: PaymentStatus::Unpaid,
        amount_total,
        amount_discount: 0,
        amount_tax: 0,
        currency,
        lines,
        client_reference_id,
        customer_email,
        locale,
        options,
        metadata,
        payment_intent_metadata,
        payment_intent_description,
        payment_intent: None,
        charged_at: None,
        paid_at: None,
        is_debit: false,
        payment_failed: false,
        success_url,
        created: now,
        expires_at,
        mode: "payment".to_owned(),
        livemode: false,
        charge: Charge::default(),
    })
}

/// An optional text. Stripe reads an empty one as an attempt to unset the parameter.
fn text(unread: &mut Parameters, name: &str, most: usize) -> Result<Option<String>, Refusal> {
    let Some(text) = unread.remove(name) else { return Ok(None) };
    if text.is_empty() {
        let message = format!("You passed an empty string for '{name}', which can't be unset.");
        return Err(Refusal::with_code("parameter_invalid_empty", message).about(name));
    }
    if text.chars().count() > most {
        let message = format!("Invalid string: {text:.10}…; must be at most {most} characters");
        return Err(Refusal::invalid(message).about(name));
    }
    Ok(Some(text))
}

/// Stripe refuses addresses outside ASCII, with quotes and with misplaced dots, and repeats them.
fn customer_email(unread: &mut Parameters) -> Result<Option<String>, Refusal> {
    let email = text(unread, "customer_email", 512)?;
    let is_dotted = |text: &str| text.split('.').all(|part| !part.is_empty());
    let is_valid = |email: &str| {
        email.rsplit_once('@').is_some_and(|(local, domain)| {
            email.is_ascii() && !email.contains('"') && is_dotted(local) && is_dotted(domain) && domain.contains('.')
        })
    };
    match email {
        Some(email) if !is_valid(&email) => {
            let message = format!("Invalid email address: {email}");
            Err(Refusal::with_code("email_invalid", message).about("customer_email"))
        }
        email => Ok(email),
    }
}

fn locale(unread: &mut Parameters) -> Result<Option<String>, Refusal> {
    match unread.remove("locale") {
        Some(locale) if !LOCALES.contains(&locale.as_str()) => {
            Err(Refusal::invalid(format!("Invalid locale: must be one of {}", LOCALES.join(", "))).about("locale"))
        }
        locale => Ok(locale),
    }
}

fn expiry(given: Option<String>, now: DateTime<Utc>) -> Result<DateTime<Utc>, Refusal> {
    let Some(given) = given else { return Ok(now + TimeDelta::hours(24)) };
    let at = given.parse().ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    let refusal = |message: &str| Refusal::invalid(message).about("expires_at");
    let at = at.ok_or_else(|| refusal(&format!("Invalid integer: {given}")))?;
    if at < now + TimeDelta::minutes(30) - TimeDelta::seconds(1) {
        return Err(refusal("The `expires_at` timestamp must be at least 30 minutes from Checkout Session creation."));
    }
    if at > now + TimeDelta::hours(24) {
        return Err(refusal("The `expires_at` timestamp must be less than 24 hours from Checkout Session creation."));
    }
    Ok(at)
}

fn metadata(unread: &mut Parameters, prefix: &str) -> Result<BTreeMap<String, String>, Refusal> {
    let start = format!("{prefix}[");
    let names: Vec<String> = unread.keys().filter(|name| name.starts_with(&start)).cloned().collect();
    let mut metadata = BTreeMap::new();
    for name in names {
        let value = unread.remove(&name).unwrap_or_default();
        let key = name[start.len()..].trim_end_matches(']').to_owned();
        if key.chars().count() > 40 || value.chars().count() > 500 {
            return Err(Refusal::invalid("Metadata keys have up to 40 characters, values up to 500"));
        }
        metadata.insert(key, value);
    }
    if metadata.len() > 50 {
        return Err(Refusal::invalid("You can have up to 50 keys of metadata"));
    }
    Ok(metadata)
}

fn lines(unread: &mut Parameters) -> Result<(Vec<Line>, String), Refusal> {
    let mut lines = Vec::new();
    let mut currency: Option<String> = None;
    while let Some(quantity) = unread.remove(&format!("line_items[{}][quantity]", lines.len())) {
        let price = format!("line_items[{}][price_data]", lines.len());
        let this = required(unread, &format!("{price}[currency]"), 3)?;
        if !is_supported(&this) || currency.as_ref().is_some_and(|currency| *currency != this) {
            return Err(Refusal::invalid(format!("Invalid currency: {this}")));
        }
        let unit_amount = required(unread, &format!("{price}[unit_amount]"), 20)?;
        let unit_amount = whole(&unit_amount, 0, maximum(&this))?;
        if unit_amount % multiple(&this) != 0 {
            let message = format!("Invalid amount: in {this} it must be a multiple of {}", multiple(&this));
            return Err(Refusal::invalid(message));
        }
        let product = format!("{price}[product_data]");
        lines.push(Line {
            name: required(unread, &format!("{product}[name]"), NAME_CHARACTERS)?,
            description: text(unread, &format!("{product}[description]"), PRODUCT_DESCRIPTION_CHARACTERS)?,
            quantity: whole(&quantity, 1, 999_999)?,
            unit_amount,
        });
        currency = Some(this);
    }
    match currency {
        Some(currency) if lines.len() <= LINES => Ok((lines, currency)),
        Some(_) => Err(Refusal::invalid(format!("Checkout in `payment` mode takes at most {LINES} line items"))),
        None => Err(Refusal::invalid("Missing required param: line_items.")),
    }
}

fn required(unread: &mut Parameters, name: &str, most: usize) -> Result<String, Refusal> {
    text(unread, name, most)?.ok_or_else(|| Refusal::invalid(format!("Missing required param: {name}.")))
}

fn whole(text: &str, least: i64, most: i64) -> Result<i64, Refusal> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| Refusal::invalid(format!("Invalid integer: {text}")))
}

/// The sum of the lines, within the bounds of the currency.
fn total(lines: &[Line], currency: &str) -> Result<i64, Refusal> {
    let sums = lines.iter().map(|line| line.unit_amount.checked_mul(line.quantity));
    let total = sums.sum::<Option<i64>>().unwrap_or(i64::MAX);
    let (least, most) = (minimum(currency), maximum(currency));
    if total < least {
        let message = format!("The Checkout Session's total amount due must add up to at least {least} {currency}");
        return Err(Refusal::with_code("amount_too_small", message));
    }
    if total > most {
        let message = format!("The Checkout Session's total amount due must add up to at most {most} {currency}");
        return Err(Refusal::with_code("amount_too_large", message));
    }
    Ok(total)
}

#[cfg(test)]
mod tests;
