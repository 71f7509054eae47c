//! The client of Stripe's API. No other module calls Stripe.
//!
//! Requests use async-stripe's generated types. The transport is implemented here, because
//! async-stripe's client drops `Retry-After`, `Idempotent-Replayed` and the status of an HTML error
//! page, which retries need. Responses of any API version are accepted: only the fields in use are
//! read.

pub(crate) mod call;
pub(crate) mod error;
mod ids;
pub(crate) mod lines;
pub(crate) mod locale;
mod new_session;
mod payment_intent;
pub(crate) mod redaction;
mod retrieve;
pub(crate) mod session;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use common::{
    http_client::{self, HttpClient, ProxyConfig},
    payment_links::KEY_REFUSED,
};
use http::{HeaderMap, Method, StatusCode, header};
use queue::RateLimit;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use stripe_checkout::checkout_session::{ExpireCheckoutSession, ListCheckoutSession};
use stripe_client_core::{RequestBuilder, StripeMethod, StripeRequest, VERSION};
use tracing::Instrument;

use self::{
    call::Call,
    error::{StripeError, sort_error},
};
pub(crate) use self::{
    new_session::NewSession,
    session::{Page, Session, SessionState},
};
use crate::config::livemode;

/// Timeout of a call: longer than Stripe's slowest responses, shorter than a job's time limit.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Maximum size of a response.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// Type and code of an error raised before Stripe was called.
pub(crate) const NOT_ASKED: &str = "request_not_possible";

/// A client of Stripe's API; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Stripe {
    http: HttpClient,
    base: String,
    key: SecretString,
    rate: RateLimit,
    /// Whether Stripe did not accept the key for the last change.
    key_refused: Arc<AtomicBool>,
}

/// Any JSON object.
#[derive(Deserialize)]
struct Anything {}

/// Permit for one call, under the rate limit that all workers share.
#[derive(Debug)]
pub(crate) struct Turn(());

impl Stripe {
    pub(crate) fn new(base: &str, key: SecretString, proxy: &ProxyConfig, rate: RateLimit) -> Self {
        let http = HttpClient::new(base, TIMEOUT, proxy);
        Self { http, base: base.trim_end_matches('/').to_owned(), key, rate, key_refused: Arc::default() }
    }

    /// Whether the key is for live mode (real money); `None` if unknown.
    pub(crate) fn livemode(&self) -> Option<bool> {
        livemode(self.key.expose_secret())
    }

    /// Waits for a permit for one call.
    pub(crate) async fn turn(&self) -> Result<Turn, StripeError> {
        self.rate.turn().await?;
        Ok(Turn(()))
    }

    /// Creates a session, or returns the one created with the same idempotency key. The caller
    /// takes the permit before storing that Stripe is being called.
    pub(crate) async fn create(&self, turn: Turn, new: &NewSession<'_>) -> Result<Session, StripeError> {
        let request = new.request().map_err(not_asked)?;
        let made: Session = self.call(turn, request.build(), Some(new)).await?;
        if !made.is_of(new.cart_id, new.version) {
            return Err(StripeError::Unexpected("the session belongs to another request"));
        }
        Ok(made)
    }

    /// Expires a session, so that it can't be paid.
    pub(crate) async fn expire(&self, session_id: &str) -> Result<Session, StripeError> {
        let request = ExpireCheckoutSession::new(session_id).build();
        self.call(self.turn().await?, request, None).await.and_then(|session| with_id(session, session_id))
    }

    /// Lists at most `limit` sessions created between `from` and `to`, newest first, starting after
    /// the session with the id `after`.
    pub(crate) async fn sessions(
        &self,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Page, StripeError> {
        let made = stripe_types::RangeBoundsTs {
            gte: Some(from.timestamp()),
            lte: Some(to.timestamp()),
            ..stripe_types::RangeBoundsTs::default()
        };
        let mut request = ListCheckoutSession::new().created(stripe_types::RangeQueryTs::Bounds(made)).limit(limit);
        if let Some(after) = after {
            request = request.starting_after(after);
        }
        self.call(self.turn().await?, request.build(), None).await
    }

    /// Checks that Stripe accepts the key, by listing one session.
    pub(crate) async fn check_key(&self) -> Result<(), StripeError> {
        let request = ListCheckoutSession::new().limit(1).build();
        let Anything {} = self.call(self.turn().await?, request, None).await?;
        Ok(())
    }

    /// Whether the key may create sessions; creates none. Stripe refuses a mode that does not exist
    /// with 400, and a key without the permission with 403 before it looks at the parameters
    /// (<https://docs.stripe.com/api/errors>, <https://docs.stripe.com/keys/restricted-api-keys>).
    pub(crate) async fn may_create(&self) -> Result<bool, StripeError> {
        #[derive(Serialize)]
        struct Invalid {
            mode: &'static str,
        }

        let request = RequestBuilder::new(StripeMethod::Post, "/checkout/sessions").form(&Invalid { mode: "none" });
        match self.call(self.turn().await?, request, None).await {
            Ok(Anything {}) => Err(StripeError::Unexpected("a request without a mode was accepted")),
            Err(StripeError::Refused { status: StatusCode::BAD_REQUEST, .. }) => Ok(true),
            Err(StripeError::Refused { status: StatusCode::FORBIDDEN, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes a call and redacts its error. `new` is set if the call creates a session.
    async fn call<T: for<'de> Deserialize<'de>>(
        &self,
        turn: Turn,
        request: RequestBuilder,
        new: Option<&NewSession<'_>>,
    ) -> Result<T, StripeError> {
        let answer = self.send(turn, request, new.map(|new| new.idempotency_key.as_str())).await;
        answer.map_err(|error| error.redacted(self.key.expose_secret(), new.map(|new| new.cart)))
    }

    async fn send<T: for<'de> Deserialize<'de>>(
        &self,
        _: Turn,
        request: RequestBuilder,
        idempotency_key: Option<&str>,
    ) -> Result<T, StripeError> {
        let request = self.http_request(request, idempotency_key)?;
        let is_change = request.method() == Method::POST;
        let call = Call::begin(request.method(), request.url().path());
        let received = self.receive(request).instrument(call.span()).await;
        let (status, headers, body) = received.map_err(|error| match error {
            StripeError::NoAnswer(why) => StripeError::NoAnswer(self.http.name_proxy(why)),
            other => other,
        })?;
        call.answered(status);
        if !status.is_success() {
            let error = sort_error(status, &headers, &body);
            if let StripeError::RateLimited { retry_after } = error {
                self.slow_everybody_down(retry_after).await;
            }
            // Logged once, not for each job that waits.
            if is_change && error.is_key_refused() && !self.key_refused.swap(true, Ordering::Relaxed) {
                tracing::error!(%status, "{KEY_REFUSED}; jobs wait until it does");
            }
            return Err(error);
        }
        if is_change && self.key_refused.swap(false, Ordering::Relaxed) {
            tracing::info!("Stripe accepts STRIPE_SECRET_KEY again");
        }
        // serde's message may quote the response, which contains the shopper's e-mail address.
        serde_json::from_slice(&body)
            .map_err(|error| StripeError::Unreadable(format!("line {}, column {}", error.line(), error.column())))
    }

    async fn receive(&self, request: reqwest::Request) -> Result<(StatusCode, HeaderMap, Vec<u8>), StripeError> {
        let mut response = self.http.inner().execute(request).await?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > ANSWER_BYTES {
                return Err(StripeError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok((response.status(), std::mem::take(response.headers_mut()), body))
    }

    /// Stops the calls of all workers for `pause`, because Stripe limits the account.
    async fn slow_everybody_down(&self, pause: Duration) {
        tracing::warn!(?pause, "Stripe asks to slow down; all workers do");
        if let Err(error) = self.rate.hold_back(pause).await {
            tracing::warn!(%error, "could not slow down the other workers");
        }
    }

    fn http_request(
        &self,
        request: RequestBuilder,
        idempotency_key: Option<&str>,
    ) -> Result<reqwest::Request, StripeError> {
        let method = match request.method {
            StripeMethod::Get => Method::GET,
            StripeMethod::Post => Method::POST,
            StripeMethod::Delete => Method::DELETE,
        };
        let query = request.query.map(|query| format!("?{query}")).unwrap_or_default();
        let mut http = self
            .http
            .inner()
            .request(method, format!("{}/v1{}{query}", self.base, request.path))
            .bearer_auth(self.key.expose_secret())
            .header("stripe-version", VERSION.as_str());
        if let Some(key) = idempotency_key {
            http = http.header("idempotency-key", key);
        }
        if let Some(form) = request.body {
            http = http.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(in_order(form));
        }
        http.build().map_err(|error| {
            let why = http_client::message(error);
            not_asked(format!("the request can't be written: {why}; is STRIPE_SECRET_KEY a key?"))
        })
    }
}

/// Returns the session if it has the requested id.
fn with_id(session: Session, id: &str) -> Result<Session, StripeError> {
    if session.id == id { Ok(session) } else { Err(StripeError::Unexpected("the session has another id")) }
}

fn not_asked(message: String) -> StripeError {
    let (kind, code) = (NOT_ASKED.to_owned(), NOT_ASKED.to_owned());
    StripeError::Refused { status: StatusCode::BAD_REQUEST, kind, code, param: None, message }
}

/// Sorts the parameters of a form. Maps are serialised in any order, and a retry with an
/// idempotency key must send the same request.
fn in_order(form: String) -> String {
    let mut parameters: Vec<&str> = form.split('&').collect();
    parameters.sort_unstable();
    parameters.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_in_order() {
        assert_eq!(in_order("b[x]=2&a=1&b[a]=3".to_owned()), "a=1&b[a]=3&b[x]=2");
    }
}
