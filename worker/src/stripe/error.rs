//! Errors of calls to Stripe, and which of them to retry.

use std::time::Duration;

use common::{
    http_client,
    payment_links::{KEY_REFUSED, Remedy, checkout::CheckoutCart},
};
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
/// Code of the errors for an e-mail address that Stripe does not accept.
const EMAIL_INVALID: &str = "email_invalid";
/// Delay before a job runs again for which Stripe did not accept the key.
pub(crate) const KEY_REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StripeError {
    /// Stripe rejected the request; a retry would not help, unless [`Self::is_key_refused`].
    #[error("{}", refusal(*.status, .message))]
    Refused { status: StatusCode, kind: String, code: String, param: Option<String>, message: String },
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

    /// Whether the key is unknown, revoked or expired (401), or lacks a right that the call needs
    /// (403): <https://docs.stripe.com/api/errors>. The operator can mend the key; the call had no
    /// effect.
    pub(crate) fn is_key_refused(&self) -> bool {
        matches!(self, Self::Refused { status: StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, .. })
    }

    /// Whether every other call would fail for the same reason now: a refused key, or a rate that is
    /// used up.
    pub(crate) fn is_about_all_calls(&self) -> bool {
        self.is_key_refused() || matches!(self, Self::RateLimited { .. } | Self::OwnRate(_))
    }

    /// The change with which Stripe accepts another request; `None` if no request helps.
    /// `with_email` is whether the refused request contained the shopper's address.
    pub(crate) fn remedy(&self, with_email: bool) -> Option<Remedy> {
        match self {
            Self::KeySpent { .. } => Some(Remedy::NewKey),
            Self::Refused { code, param, .. } if self.is_invalid_request() => match param.as_deref() {
                Some("expires_at") => Some(Remedy::NewExpiry),
                Some("customer_email") if with_email => Some(Remedy::WithoutEmail),
                _ if code == EMAIL_INVALID && with_email => Some(Remedy::WithoutEmail),
                _ => None,
            },
            _ => None,
        }
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
            ref error if error.is_key_refused() => {
                return Self::Snooze { why: error.to_string(), after: KEY_REFUSED_PAUSE };
            }
            _ => None,
        };
        Self::Retry { why: error.to_string(), after }
    }
}

/// Describes a refusal, for a key that Stripe does not accept with what the operator should do.
fn refusal(status: StatusCode, message: &str) -> String {
    let advice = match status {
        StatusCode::UNAUTHORIZED => "set a valid key and restart the workers",
        StatusCode::FORBIDDEN => "give the key this right in Stripe's dashboard, or set another one",
        _ => return format!("Stripe refused it: {message}"),
    };
    format!("{KEY_REFUSED} ({}): {message}; {advice}", status.as_u16())
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
        param: Option<String>,
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
            // <https://docs.stripe.com/error-codes>; errors without a code still have a type.
            Some(Error { kind, code, param, .. }) => {
                StripeError::Refused { status, code: code.unwrap_or_else(|| kind.clone()), kind, param, message }
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
    fn refusals_that_another_request_heals_are_recognized() {
        let remedy = |status: u16, error: &str| {
            let body = format!(r#"{{"error":{{"type":"invalid_request_error",{error}}}}}"#);
            let error = sort_error(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes());
            (error.remedy(true), error.remedy(false))
        };
        let email = r#""code":"email_invalid","param":"customer_email""#;
        assert_eq!(remedy(400, email), (Some(Remedy::WithoutEmail), None));
        assert_eq!(remedy(400, r#""code":"email_invalid""#), (Some(Remedy::WithoutEmail), None));
        assert_eq!(remedy(400, r#""param":"customer_email""#), (Some(Remedy::WithoutEmail), None));
        assert_eq!(remedy(400, r#""param":"expires_at""#), (Some(Remedy::NewExpiry), Some(Remedy::NewExpiry)));
        for no in [r#""param":"locale""#, r#""param":"automatic_tax[enabled]""#, r#""code":"amount_too_small""#] {
            assert_eq!(remedy(400, no), (None, None), "{no}");
        }
        for status in [401, 402, 403, 404, 500] {
            assert_eq!(remedy(status, email), (None, None), "{status}");
        }
    }

    #[test]
    fn a_key_that_stripe_refuses_is_no_refusal_of_the_request() {
        for (status, advice) in [(401, "restart the workers"), (403, "Stripe's dashboard")] {
            let body = br#"{"error":{"type":"invalid_request_error","message":"No."}}"#;
            let error = sort_error(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body);
            let text = error.to_string();
            assert!(text.starts_with(&format!("{KEY_REFUSED} ({status}): No.; ")) && text.contains(advice), "{text}");
            let waits = crate::JobError::from(error);
            assert!(matches!(waits, crate::JobError::Snooze { .. }), "it costs no attempt: {waits:?}");
        }
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
