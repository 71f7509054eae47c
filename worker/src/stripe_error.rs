//! Why a call to Stripe gave nothing: what heals, and what does not.

use std::time::Duration;

use common::checkout::CheckoutCart;
use http::{HeaderMap, StatusCode, header};
use queue::NoTurn;
use serde::Deserialize;

/// Where Stripe says "slow down" without saying for how long.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(2);
/// How long a `Retry-After` is believed.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(10 * 60);

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StripeError {
    /// The request itself is wrong; asking again would not help.
    #[error("Stripe refused it: {message}")]
    Refused { status: StatusCode, code: String, message: String },
    /// This idempotency key leads nowhere: it was used with other parameters,
    /// or Stripe stored an error under it and replays that. Another key may do.
    #[error("Stripe can't answer under this idempotency key: {message}")]
    KeySpent { message: String },
    /// Not asked: the rate that all workers share has no turn for now.
    #[error("no turn: {0}")]
    NoTurn(#[from] NoTurn),
    /// Slow down.
    #[error("Stripe asks to slow down (429)")]
    RateLimited { retry_after: Duration },
    /// Stripe is ill, or the same request is still running.
    #[error("Stripe answered {status}")]
    Unavailable { status: StatusCode, retry_after: Option<Duration> },
    /// No answer: whether Stripe did it is unknown.
    #[error("no answer from Stripe: {0}")]
    NoAnswer(String),
    /// A well-formed answer that is not about the request.
    #[error("Stripe's answer does not match the request: {0}")]
    Unexpected(&'static str),
    /// An answer that makes no sense.
    #[error("Stripe's answer can't be read: {0}")]
    Unreadable(String),
}

impl StripeError {
    /// Stripe's messages may repeat what they were asked ("Invalid email address:
    /// …"), and are kept, logged and answered: what is the shopper's is taken out.
    pub(crate) fn without_personal_data(mut self, cart: &CheckoutCart) -> Self {
        if let Self::Refused { message, .. } | Self::KeySpent { message } = &mut self {
            *message = redact(message, cart);
        }
        self
    }
}

/// Item names shorter than this would take parts of ordinary words with them, and tell nothing.
const SHORTEST_TELLING_NAME: usize = 4;

fn redact(message: &str, cart: &CheckoutCart) -> String {
    let names = cart.items.iter().map(|item| item.name.as_str()).filter(|name| name.len() >= SHORTEST_TELLING_NAME);
    let known = names.fold(message.replace(&cart.customer_email, "…"), |text, name| text.replace(name, "…"));
    without_addresses(&known)
}

/// In whatever form Stripe writes an address: no word with an @ passes.
fn without_addresses(message: &str) -> String {
    let words = message.split(' ').map(|word| if word.contains('@') || word.contains("%40") { "…" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

impl From<StripeError> for crate::JobError {
    fn from(error: StripeError) -> Self {
        let after = match error {
            StripeError::RateLimited { retry_after } => Some(retry_after),
            StripeError::Unavailable { retry_after, .. } => retry_after,
            StripeError::NoTurn(NoTurn::After(after)) => return Self::Snooze { why: error.to_string(), after },
            StripeError::NoTurn(NoTurn::Database(ref error)) => return Self::postgres(error),
            _ => None,
        };
        // Who closes a session does not know its cart any more, and so not what to look for.
        Self::Retry { why: without_addresses(&error.to_string()), after }
    }
}

/// Tells what heals from what does not (<https://docs.stripe.com/error-low-level>).
pub(crate) fn sort_error(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> StripeError {
    #[derive(Deserialize)]
    struct Answer {
        error: Error,
    }
    #[derive(Deserialize)]
    struct Error {
        #[serde(rename = "type")]
        kind: Option<String>,
        code: Option<String>,
        message: Option<String>,
    }

    let error = serde_json::from_slice::<Answer>(body).ok().map(|answer| answer.error);
    let kind = error.as_ref().and_then(|error| error.kind.clone()).unwrap_or_default();
    // Two requests met at one object: no reason for everybody to slow down.
    let lock_timeout = error.as_ref().is_some_and(|error| error.code.as_deref() == Some("lock_timeout"));
    // <https://docs.stripe.com/error-codes>; what has none has a type.
    let code = error.as_ref().and_then(|error| error.code.clone().or_else(|| error.kind.clone()));
    let code = code.unwrap_or_else(|| format!("http_{}", status.as_u16()));
    let message = error.and_then(|error| error.message).unwrap_or_else(|| format!("it answered {status}"));
    let retry_after = retry_after(headers);
    let replayed = headers.get("idempotent-replayed").is_some_and(|value| value == "true");
    match status {
        StatusCode::TOO_MANY_REQUESTS if lock_timeout => StripeError::Unavailable { status, retry_after },
        StatusCode::TOO_MANY_REQUESTS => {
            StripeError::RateLimited { retry_after: retry_after.unwrap_or(DEFAULT_RETRY_AFTER) }
        }
        _ if status.is_server_error() && replayed => StripeError::KeySpent { message },
        _ if status.is_server_error() => StripeError::Unavailable { status, retry_after },
        // The same key is in use right now: the first request is still running.
        StatusCode::CONFLICT | StatusCode::REQUEST_TIMEOUT | StatusCode::FAILED_DEPENDENCY => {
            StripeError::Unavailable { status, retry_after }
        }
        _ if kind == "idempotency_error" => StripeError::KeySpent { message },
        StatusCode::UNAUTHORIZED => StripeError::Refused {
            status,
            code: "unauthorized".to_owned(),
            message: "Stripe does not accept STRIPE_SECRET_KEY".to_owned(), // its own message repeats a part of the key
        },
        _ => StripeError::Refused { status, code, message },
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use common::{carts::CartStatus, checkout::CheckoutItem, money::Currency, payment_links::Expected};

    use super::*;

    #[test]
    fn messages_tell_nothing_of_the_shopper() {
        let item = |name: &str| CheckoutItem { name: name.to_owned(), quantity: 1, price_minor: 1 };
        let cart = CheckoutCart {
            customer_email: "\"ada l\"@example.com".to_owned(),
            items: vec![item("Mug for Ada"), item("a")],
            currency: Currency::USD,
            status: CartStatus::Abandoned,
            recovery_token: String::new(),
            expected: Expected::default(),
        };
        let text = "Invalid address: \"ada l\"@example.com (Ada@Example.com, ada%40x) for 'Mug for Ada' a day";
        assert_eq!(redact(text, &cart), "Invalid address: … … … for '…' a day");
    }

    #[test]
    fn who_does_not_know_the_cart_keeps_no_address_either() {
        let message = "No such customer: ada@example.com".to_owned();
        let error =
            StripeError::Refused { status: StatusCode::BAD_REQUEST, code: "resource_missing".to_owned(), message };
        let crate::JobError::Retry { why, .. } = error.into() else { panic!("closing is tried again") };
        assert_eq!(why, "Stripe refused it: No such customer: …");
    }

    #[test]
    fn errors_are_sorted() {
        let sort = |status: u16, headers: &[(&'static str, &'static str)], body: &str| {
            let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            sort_error(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes())
        };
        let json = r#"{"error":{"type":"invalid_request_error","message":"No."}}"#;
        assert!(
            matches!(sort(400, &[], json), StripeError::Refused { code, message, .. } if code == "invalid_request_error" && message == "No.")
        );
        assert!(matches!(
            sort(429, &[("retry-after", "7")], ""),
            StripeError::RateLimited { retry_after } if retry_after == Duration::from_secs(7)
        ));
        assert!(matches!(sort(502, &[], "<html>"), StripeError::Unavailable { .. }));
        assert!(matches!(sort(500, &[("idempotent-replayed", "true")], "{}"), StripeError::KeySpent { .. }));
        assert!(matches!(sort(409, &[], json), StripeError::Unavailable { .. }));
        let mismatch = r#"{"error":{"type":"idempotency_error","message":"Keys …"}}"#;
        assert!(matches!(sort(400, &[], mismatch), StripeError::KeySpent { .. }));
    }
}
