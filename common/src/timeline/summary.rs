//! Describes events in English.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::EventKind;
use crate::json;

/// One sentence for people, with no more information than the codes have.
pub(super) fn of(
    kind: EventKind,
    why: Option<&str>,
    link: Option<i32>,
    details: &BTreeMap<String, Box<RawValue>>,
) -> String {
    let link = link.unwrap_or_default();
    let detail =
        |name: &str| details.get(name).map(|value| json::text(value).map_or(value.get().to_owned(), Into::into));
    let money = || match (detail("amount"), detail("currency")) {
        (Some(amount), Some(currency)) => format!("{amount} {}", currency.to_ascii_uppercase()),
        _ => "an unknown amount".to_owned(),
    };
    let attempts = || detail("attempts").unwrap_or_default();
    match (kind, why) {
        (EventKind::Created, Some("import")) => "Stored by an import".to_owned(),
        (EventKind::Created, _) => "Stored".to_owned(),
        (EventKind::Changed, _) => format!("Changed: {}", fields(details)),
        (EventKind::RecoveryLinkOpened, why) => format!("The shopper opened the recovery link: {}", found(why)),
        (EventKind::LinkRequested, Some("shopper")) => {
            format!("Payment link {link} was requested by the shopper through the recovery link")
        }
        (EventKind::LinkRequested, Some("replacement")) => {
            format!("Payment link {link} was requested to replace the previous one")
        }
        (EventKind::LinkRequested, _) => format!("Payment link {link} was requested"),
        (EventKind::LinkMade, _) => format!("Payment link {link} was made"),
        (EventKind::LinkNotMade, why) => format!("Payment link {link} was not made: {}", refused(why, &attempts())),
        (EventKind::PaymentProcessing, _) => format!("A payment by link {link} is in progress"),
        (EventKind::PaymentFailed, _) => format!("The payment by link {link} failed"),
        (EventKind::PaymentReceived, _) => format!("The payment by link {link} arrived"),
        (EventKind::NotRecovered, _) => {
            format!(
                "The payment by link {link} recovered nothing: the cart was recovered before. Is it to be refunded?"
            )
        }
        (EventKind::NotExpired, Some("payment_under_way")) => "Did not expire: a payment is in progress".to_owned(),
        (EventKind::NotExpired, _) => match detail("until") {
            Some(until) => format!("Did not expire: its recovery link is good until {until}"),
            None => "Did not expire: its recovery link is still good".to_owned(),
        },
        (EventKind::Expired, why) => format!("Expired{}", by(why)),
        (EventKind::Recovered, why) => format!("Recovered{}", by(why)),
        (EventKind::Reopened, why) => format!("Reopened{}", by(why)),
        (EventKind::LinkWithdrawn, _) => format!("The request for payment link {link} was withdrawn"),
        (EventKind::SessionClosed, _) => {
            format!("The session of payment link {link} is closed and can't be paid any more")
        }
        (EventKind::Refunded, _) => format!("{} of the payment by link {link} was refunded", money()),
        (EventKind::RefundFailed, _) => {
            format!("A refund of {} failed or was cancelled: the payment by link {link} has it again", money())
        }
        (EventKind::DisputeOpened, _) => format!("The shopper disputes {} of the payment by link {link}", money()),
        (EventKind::DisputeWon, _) => {
            format!("The dispute about {} of the payment by link {link} was closed, and the money stays", money())
        }
        (EventKind::DisputeLost, _) => {
            format!("The dispute about {} of the payment by link {link} was lost", money())
        }
    }
}

/// `items, adjustments and currency`
fn fields(details: &BTreeMap<String, Box<RawValue>>) -> String {
    let list = details.get("fields").and_then(|fields| json::list(fields)).unwrap_or_default();
    let names: Vec<String> = list.into_iter().filter_map(json::text).map(|name| words(&name)).collect();
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => "nothing that is known".to_owned(),
    }
}

/// The label of a field: `customerEmail` → `customer email`.
fn words(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            words.push(' ');
        }
        words.push(letter.to_ascii_lowercase());
    }
    words
}

fn found(why: Option<&str>) -> &'static str {
    match why {
        Some("checkout") => "it led to the checkout",
        Some("new_checkout") => "a new checkout is being made",
        Some("not_chargeable") => "Stripe can't charge its total",
        Some("checkout_refused") => "Stripe refused a checkout a moment ago",
        Some("payment_under_way") => "a payment is in progress",
        Some("recovered") => "the cart was paid before",
        Some("expired") => "the cart has expired",
        Some("link_expired") => "it has expired",
        _ => "its result is unknown",
    }
}

fn refused(why: Option<&str>, attempts: &str) -> String {
    match why {
        Some("attempts_exhausted") => format!("given up after {attempts} attempts"),
        Some("job_cancelled") => "its job was cancelled".to_owned(),
        Some("job_lost") => "its job was lost".to_owned(),
        Some("cart_not_payable") => "the cart can't be paid any more".to_owned(),
        Some("payment_under_way") => "a payment is in progress".to_owned(),
        Some("idempotency_key_spent") => "Stripe can't answer under its idempotency key".to_owned(),
        Some("request_not_possible") => "the request to Stripe could not be built".to_owned(),
        Some("foreign_checkout") => "its page is not at Stripe".to_owned(),
        Some("cart_changed") => "the cart changed after the link was requested".to_owned(),
        Some("other_amount" | "other_currency" | "other_mode" | "other_livemode" | "status") => {
            "Stripe's session does not match the request".to_owned()
        }
        Some("email_invalid") => "Stripe does not accept the shopper's address".to_owned(),
        Some(code) => format!("Stripe refused it ({code})"),
        None => "for an unknown reason".to_owned(),
    }
}

fn by(why: Option<&str>) -> &'static str {
    match why {
        Some("age") => ": it was left for too long",
        Some("operator") => " by hand",
        Some("payment") => " by a payment",
        Some("import") => " before it was imported",
        Some("api") => ": the shop sent it again",
        Some("sql") => " by hand, in the database",
        _ => "",
    }
}
