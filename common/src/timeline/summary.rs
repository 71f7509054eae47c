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
    let key = || detail("key").map(|key| format!(" by {key}")).unwrap_or_default();
    let attempts = || detail("attempts").unwrap_or_default();
    match (kind, why) {
        (EventKind::Created, Some("import")) => format!("Imported{}", key()),
        (EventKind::Created, _) => match detail("key") {
            Some(key) => format!("Received via API from {key}"),
            None => "Received via API".to_owned(),
        },
        (EventKind::Changed, _) => format!("Changed{}: {}", key(), fields(details)),
        (EventKind::RecoveryLinkOpened, why) => format!("The shopper opened the recovery link: {}", found(why)),
        (EventKind::LinkRequested, Some("shopper")) => {
            format!("Payment link {link} requested by the shopper through the recovery link")
        }
        (EventKind::LinkRequested, Some("replacement")) => {
            format!("Payment link {link} requested to replace the previous one")
        }
        (EventKind::LinkRequested, _) => format!("Payment link {link} requested{}", key()),
        (EventKind::LinkMade, _) => format!("Payment link {link} created"),
        (EventKind::LinkNotMade, why) => {
            format!("Payment link {link} could not be created: {}", refused(why, &attempts()))
        }
        (EventKind::PaymentProcessing, _) => format!("Payment processing (link {link})"),
        (EventKind::PaymentFailed, _) => format!("Payment failed (link {link})"),
        (EventKind::PaymentReceived, _) => format!("Payment received (link {link})"),
        (EventKind::NotRecovered, _) => {
            format!("Payment received (link {link}), but the cart was already recovered: check whether to refund it")
        }
        (EventKind::NotExpired, Some("payment_under_way")) => "Not expired: a payment is in progress".to_owned(),
        (EventKind::NotExpired, _) => match detail("until") {
            Some(until) => format!("Not expired: its recovery link is valid until {until}"),
            None => "Not expired: its recovery link is still valid".to_owned(),
        },
        (EventKind::Expired, why) => format!("Expired{}", by(why, &key())),
        (EventKind::Recovered, Some("operator")) => format!("Marked recovered{}", by(why, &key())),
        (EventKind::Recovered, why) => format!("Recovered{}", by(why, &key())),
        (EventKind::Reopened, why) => format!("Reopened{}", by(why, &key())),
        (EventKind::LinkWithdrawn, _) => format!("Request for payment link {link} withdrawn"),
        (EventKind::SessionClosed, _) => {
            format!("Payment link {link} deactivated")
        }
        (EventKind::Refunded, _) => format!("{} refunded (link {link})", money()),
        (EventKind::RefundFailed, _) => {
            format!("Refund of {} failed or was cancelled (link {link})", money())
        }
        (EventKind::DisputeOpened, _) => format!("Dispute opened about {} (link {link})", money()),
        (EventKind::DisputeWon, _) => {
            format!("Dispute about {} closed in the shop's favor (link {link})", money())
        }
        (EventKind::DisputeLost, _) => {
            format!("Dispute about {} lost (link {link})", money())
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
        None => "unknown fields".to_owned(),
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
        Some("new_checkout") => "a new checkout is being created",
        Some("not_chargeable") => "Stripe can't charge the total",
        Some("checkout_refused") => "Stripe refused a checkout a moment ago",
        Some("payment_under_way") => "a payment is in progress",
        Some("recovered") => "already paid",
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
        Some("cart_not_payable") => "the cart can no longer be paid".to_owned(),
        Some("payment_under_way") => "a payment is in progress".to_owned(),
        Some("idempotency_key_spent") => "Stripe can't respond for its idempotency key".to_owned(),
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

/// `key` is ` by ` and the name of the API key, or empty.
fn by<'k>(why: Option<&str>, key: &'k str) -> &'k str {
    match why {
        Some("operator") if !key.is_empty() => key,
        Some("age") => ": abandoned for too long",
        Some("operator") => " manually",
        Some("payment") => " by payment",
        Some("import") => " before the import",
        Some("api") => ": the shop sent it again",
        Some("sql") => " manually, in the database",
        _ => "",
    }
}
