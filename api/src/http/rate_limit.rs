//! Limits the requests per minute: of one client address, and for the pages of one recovery token.

use std::{
    hash::Hash,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::{IntoResponse, Response},
};
use governor::{
    DefaultKeyedRateLimiter, Quota,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
};
use ipnet::IpNet;

use super::{client, error::ApiError};
use crate::config::ApiConfig;

/// The limit of pages for one recovery token: a waiting page reloads twenty times a minute.
const PAGES_PER_MINUTE: NonZeroU32 = NonZeroU32::new(60).unwrap();
/// Number of requests after which idle keys are forgotten.
const FORGET_EVERY: u32 = 10_000;

/// The remaining quota, and the limit (draft-ietf-httpapi-ratelimit-headers).
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const MINUTE: u64 = 60;

#[derive(Clone)]
pub(crate) struct RateLimiter {
    limit: Option<Arc<Limit<IpAddr>>>,
    trusted_proxies: Arc<[IpNet]>,
    /// The `RateLimit-Policy` header, the same for all clients.
    policy: HeaderValue,
}

/// Counts the requests per minute of each key. Keys that have their whole quota again are forgotten
/// now and then, so that memory is bounded by the keys of about a minute.
struct Limit<K: Hash + Eq + Clone> {
    per_minute: NonZeroU32,
    limiter: DefaultKeyedRateLimiter<K, StateInformationMiddleware>,
    counted: AtomicU32,
}

/// A key's quota after a request.
#[derive(Debug, Clone, Copy)]
struct Remaining {
    /// Requests left now.
    requests: u32,
    /// Seconds until the whole quota is available again; if nothing is left, until one request is.
    seconds: u64,
}

impl<K: Hash + Eq + Clone> Limit<K> {
    fn new(per_minute: NonZeroU32) -> Self {
        let limiter = DefaultKeyedRateLimiter::keyed(Quota::per_minute(per_minute)).with_middleware();
        Self { per_minute, limiter, counted: AtomicU32::new(0) }
    }

    /// Counts a request; `Err` if it exceeds the limit.
    fn count(&self, key: &K) -> Result<Remaining, Remaining> {
        if self.counted.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            self.limiter.retain_recent();
        }
        match self.limiter.check_key(key) {
            Ok(state) => {
                let requests = state.remaining_burst_capacity();
                let used = u64::from(self.per_minute.get().saturating_sub(requests));
                Ok(Remaining { requests, seconds: (used * MINUTE).div_ceil(self.per_minute.get().into()) })
            }
            Err(not_until) => {
                let wait = not_until.wait_time_from(DefaultClock::default().now());
                let seconds = wait.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX);
                Err(Remaining { requests: 0, seconds })
            }
        }
    }
}

impl RateLimiter {
    pub(crate) fn new(config: &ApiConfig) -> Self {
        let per_minute = NonZeroU32::new(config.rate_limit_per_minute);
        let policy = format!("\"default\";q={};w={MINUTE}", config.rate_limit_per_minute);
        Self {
            limit: per_minute.map(|per_minute| Arc::new(Limit::new(per_minute))),
            trusted_proxies: config.trusted_proxies.clone().into(),
            // Digits and letters are valid in a header.
            policy: HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("\"default\"")),
        }
    }
}

/// Limits the requests for pages of one recovery token, whoever sends them: many shoppers may share
/// one address.
pub(crate) struct TokenLimiter(Option<Limit<String>>);

/// Omits the tokens.
impl std::fmt::Debug for TokenLimiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenLimiter").finish_non_exhaustive()
    }
}

impl TokenLimiter {
    pub(crate) fn new(config: &ApiConfig) -> Self {
        Self((config.rate_limit_per_minute > 0).then(|| Limit::new(PAGES_PER_MINUTE)))
    }

    /// Counts a request for a page of a token that was issued. Other tokens are not counted, because
    /// anyone can make them up.
    ///
    /// # Errors
    /// The seconds to wait, if the request exceeds the limit.
    pub(crate) fn count(&self, token: &str) -> Result<(), u64> {
        let Some(limit) = &self.0 else { return Ok(()) };
        limit.count(&token.to_owned()).map(drop).map_err(|remaining| remaining.seconds)
    }
}

/// Counts the request before any other processing; rejects it with 429 if it exceeds the limit.
pub(crate) async fn limit(
    State(limiter): State<RateLimiter>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    limit_or(ApiError::into_response, &limiter, peer, request, next).await
}

/// Like [`limit`], with `refuse` to render the rejection.
pub(crate) async fn limit_or(
    refuse: fn(ApiError) -> Response,
    limiter: &RateLimiter,
    peer: SocketAddr,
    request: Request,
    next: Next,
) -> Response {
    let Some(limit) = &limiter.limit else { return next.run(request).await };
    let counted = limit.count(&client::of(peer.ip(), request.headers(), &limiter.trusted_proxies));
    let (mut response, Remaining { requests, seconds }) = match counted {
        Ok(remaining) => (next.run(request).await, remaining),
        Err(remaining) => (refuse(ApiError::rate_limited(remaining.seconds)), remaining),
    };
    let headers = response.headers_mut();
    headers.insert(RATE_LIMIT_POLICY, limiter.policy.clone());
    if let Ok(value) = HeaderValue::from_str(&format!("\"default\";r={requests};t={seconds}")) {
        headers.insert(RATE_LIMIT, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_limited_one_by_one() {
        let limiter = TokenLimiter(Some(Limit::new(PAGES_PER_MINUTE)));
        assert!((0..PAGES_PER_MINUTE.get()).all(|_| limiter.count("busy").is_ok()));
        assert_eq!(limiter.count("busy"), Err(1));
        assert!(limiter.count("another").is_ok());
        assert!(!format!("{limiter:?}").contains("busy"));
    }
}
