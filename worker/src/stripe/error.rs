//! Errors of calls to Stripe, and which of them to retry.

use std::time::Duration;

use common::{http_client, payment_links::checkout::CheckoutCart};
use http::{HeaderMap, StatusCode, header};
use queue::RateLimited;
use serde::Deserialize;

use super::{TIMEOUT, redaction::redact};

/// Delay after a 429 without `Retry-After`.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(2);
/// Maximum `Retry-After`; longer ones are reduced to it.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(10 * 60);
/// Type of the errors for an invalid request.
const INVALID_REQUEST: &str = "invalid_request_error";
/// Code of the errors for an object that does not exist.
const MISSING: &str = "resource_missing";

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StripeError {
    /// Stripe rejected the request; a retry would not help.
    #[error("Stripe refused it: {message}")]
    Refused { status: StatusCode, kind: String, code: String, message: String },
    /// The idempotency key is unusable: it was used with other parameters, or Stripe stored an
    /// error under it and replays that. Another key may work.
    #[error("Stripe can't answer under this idempotency key: {message}")]
    KeySpent { message: String, replayed: bool },
    /// Stripe was not called: no permit of the shared rate limit is available.
    #[error("STRIPE_RATE is used up: {0}")]
    OwnRate(#[from] RateLimited),
    /// Stripe's rate limit was exceeded (429).
    #[error("Stripe asks to slow down (429)")]
    RateLimited { retry_after: Duration },
    /// Stripe is failing, the same request is still running, or the response is not Stripe's (but a
    /// proxy's, for example). Stripe may have executed the request.
    #[error("Stripe answered {status}")]
    Unavailable { status: StatusCode, retry_after: Option<Duration> },
    /// No response. Stripe may have executed the request.
    #[error("no answer from Stripe: {0}")]
    NoAnswer(String),
    /// A well-formed response that does not match the request.
    #[error("Stripe's answer does not match the request: {0}")]
    Unexpected(&'static str),
    /// A response that can't be parsed.
    #[error("Stripe's answer can't be read: {0}")]
    Unreadable(String),
    /// The response exceeds the size limit.
    #[error("Stripe's answer is too large")]
    TooLarge,
}

impl StripeError {
    /// Whether the object does not exist at Stripe. A 404 of a proxy does not count.
    pub(crate) fn is_missing(&self) -> bool {
        self.is_refusal(StatusCode::NOT_FOUND, Some(MISSING))
    }

    /// Whether the session that a list was to start after does not exist at Stripe.
    pub(crate) fn is_unknown_cursor(&self) -> bool {
        self.is_refusal(StatusCode::BAD_REQUEST, Some(MISSING)) || self.is_missing()
    }

    /// Whether Stripe rejected the parameters of the request.
    pub(crate) fn is_invalid_request(&self) -> bool {
        self.is_refusal(StatusCode::BAD_REQUEST, None)
    }

    fn is_refusal(&self, with: StatusCode, of: Option<&str>) -> bool {
        matches!(self, Self::Refused { status, kind, code, .. }
            if *status == with && kind == INVALID_REQUEST && of.is_none_or(|of| code == of))
    }

    /// Redacts the messages, which may quote the request; see [`redact`].
    pub(crate) fn redacted(mut self, key: &str, cart: Option<&CheckoutCart>) -> Self {
        if let Self::Refused { message, .. }
        | Self::KeySpent { message, .. }
        | Self::NoAnswer(message)
        | Self::Unreadable(message) = &mut self
        {
            *message = redact(message, key, cart);
        }
        self
    }
}

impl From<reqwest::Error> for StripeError {
    fn from(error: reqwest::Error) -> Self {
        let timed_out = error.is_timeout();
        Self::NoAnswer(if timed_out { format!("nothing for {TIMEOUT:?}") } else { http_client::message(error) })
    }
}

impl From<StripeError> for crate::JobError {
    fn from(error: StripeError) -> Self {
        let after = match error {
            StripeError::RateLimited { retry_after } => Some(retry_after),
            StripeError::Unavailable { retry_after, .. } => retry_after,
            StripeError::OwnRate(RateLimited::After(after)) => return Self::Snooze { why: error.to_string(), after },
            StripeError::OwnRate(RateLimited::Database(ref error)) => return Self::postgres(error),
            _ => None,
        };
        Self::Retry { why: error.to_string(), after }
    }
}

/// Classifies an error response (<https://docs.stripe.com/error-low-level>).
pub(crate) fn sort_error(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> StripeError {
    #[derive(Deserialize)]
    struct Answer {
        error: Error,
    }
    #[derive(Deserialize)]
    struct Error {
        #[serde(rename = "type")]
        kind: String,
        code: Option<String>,
        message: Option<String>,
    }

    let error = serde_json::from_slice::<Answer>(body).ok().map(|answer| answer.error);
    // Two requests used one object at the same time: no reason to slow down all workers.
    let lock_timeout = error.as_ref().is_some_and(|error| error.code.as_deref() == Some("lock_timeout"));
    let message = error.as_ref().and_then(|error| error.message.clone()).filter(|message| !message.is_empty());
    let message = message.unwrap_or_else(|| format!("it answered {status}"));
    let retry_after = retry_after(headers);
    let replayed = headers.get("idempotent-replayed").is_some_and(|value| value == "true");
    match status {
        StatusCode::TOO_MANY_REQUESTS if lock_timeout => StripeError::Unavailable { status, retry_after },
        StatusCode::TOO_MANY_REQUESTS => {
            StripeError::RateLimited { retry_after: retry_after.unwrap_or(DEFAULT_RETRY_AFTER) }
        }
        _ if status.is_server_error() && replayed => StripeError::KeySpent { message, replayed },
        _ if status.is_server_error() => StripeError::Unavailable { status, retry_after },
        // Includes a request whose idempotency key is in use by one that is still running.
        StatusCode::CONFLICT | StatusCode::REQUEST_TIMEOUT | StatusCode::FAILED_DEPENDENCY => {
            StripeError::Unavailable { status, retry_after }
        }
        _ => match error {
            // Without Stripe's error body, the response may be a proxy's.
            None => StripeError::Unavailable { status, retry_after },
            Some(error) if error.kind == "idempotency_error" => StripeError::KeySpent { message, replayed },
            Some(error) if status == StatusCode::UNAUTHORIZED => StripeError::Refused {
                status,
                kind: error.kind,
                code: "unauthorized".to_owned(),
                message: "Stripe does not accept STRIPE_SECRET_KEY".to_owned(), // Stripe's message repeats a part of the key
            },
            // <https://docs.stripe.com/error-codes>; errors without a code still have a type.
            Some(Error { kind, code, .. }) => {
                StripeError::Refused { status, code: code.unwrap_or_else(|| kind.clone()), kind, message }
            }
        },
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(matches!(
            sort(500, &[("idempotent-replayed", "true")], "{}"),
            StripeError::KeySpent { replayed: true, .. }
        ));
        assert!(matches!(sort(409, &[], json), StripeError::Unavailable { .. }));
        let mismatch = r#"{"error":{"type":"idempotency_error","message":"Keys …"}}"#;
        assert!(matches!(sort(400, &[], mismatch), StripeError::KeySpent { replayed: false, .. }));
        let empty = r#"{"error":{"type":"card_error","message":""}}"#;
        assert!(
            matches!(sort(402, &[], empty), StripeError::Refused { message, .. } if message == "it answered 402 Payment Required")
        );
    }
    #[test]
    fn only_stripes_own_words_refuse_anything() {
        let sort = |status: u16, body: &str| {
            sort_error(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes())
        };
        for body in ["", "<html>Not Found</html>", "{}", r#"{"error":"no"}"#, r#"{"error":{"message":"No."}}"#] {
            for status in [302, 400, 401, 402, 403, 404, 410] {
                assert!(matches!(sort(status, body), StripeError::Unavailable { .. }), "{status} {body}");
            }
        }
        let error = |code: &str| format!(r#"{{"error":{{"type":"invalid_request_error","code":"{code}"}}}}"#);
        assert!(sort(404, &error("resource_missing")).is_missing());
        assert!(!sort(404, &error("url_invalid")).is_missing());
        assert!(!sort(404, r#"{"error":{"type":"invalid_request_error"}}"#).is_missing());
        assert!(!sort(404, r#"{"error":{"type":"api_error","code":"resource_missing"}}"#).is_missing());
        assert!(!sort(400, &error("resource_missing")).is_missing());
        assert!(sort(400, &error("resource_missing")).is_unknown_cursor());
        assert!(sort(400, &error("url_invalid")).is_invalid_request());
        assert!(!sort(403, &error("url_invalid")).is_invalid_request());
    }
}
