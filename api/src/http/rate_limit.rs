//! Limits the requests per minute of one client address.

use std::{
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

/// Number of requests after which idle addresses are forgotten.
const FORGET_EVERY: u32 = 10_000;

/// The remaining quota, and the limit (draft-ietf-httpapi-ratelimit-headers).
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const MINUTE: u64 = 60;

#[derive(Clone)]
pub(crate) struct RateLimiter {
    limit: Option<Limit>,
    trusted_proxies: Arc<[IpNet]>,
    seen: Arc<AtomicU32>,
}

#[derive(Clone)]
struct Limit {
    per_minute: NonZeroU32,
    limiter: Arc<DefaultKeyedRateLimiter<IpAddr, StateInformationMiddleware>>,
    /// The `RateLimit-Policy` header, the same for all clients.
    policy: HeaderValue,
}

impl Limit {
    fn new(per_minute: NonZeroU32) -> Self {
        let limiter = DefaultKeyedRateLimiter::keyed(Quota::per_minute(per_minute)).with_middleware();
        let policy = format!("\"default\";q={per_minute};w={MINUTE}");
        // Digits and letters are valid in a header.
        let policy = HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("\"default\""));
        Self { per_minute, limiter: Arc::new(limiter), policy }
    }
}

/// A client's quota after a request.
#[derive(Debug, Clone, Copy)]
struct ClientQuota {
    /// Requests left now.
    remaining: u32,
    /// Seconds until the whole quota is available again; if nothing is left, until one request is.
    seconds: u64,
}

impl RateLimiter {
    pub(crate) fn new(config: &ApiConfig) -> Self {
        let limit = NonZeroU32::new(config.rate_limit_per_minute).map(Limit::new);
        Self { limit, trusted_proxies: config.trusted_proxies.clone().into(), seen: Arc::default() }
    }

    /// Counts a request; `Err` if it exceeds the limit.
    fn count(&self, limit: &Limit, client: IpAddr) -> Result<ClientQuota, ClientQuota> {
        if self.seen.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            limit.limiter.retain_recent();
        }
        match limit.limiter.check_key(&client) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let used = u64::from(limit.per_minute.get().saturating_sub(remaining));
                Ok(ClientQuota { remaining, seconds: (used * MINUTE).div_ceil(limit.per_minute.get().into()) })
            }
            Err(not_until) => {
                let wait = not_until.wait_time_from(DefaultClock::default().now());
                let seconds = wait.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX);
                Err(ClientQuota { remaining: 0, seconds })
            }
        }
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
    let counted = limiter.count(limit, client::of(peer.ip(), request.headers(), &limiter.trusted_proxies));
    let (mut response, ClientQuota { remaining, seconds }) = match counted {
        Ok(quota) => (next.run(request).await, quota),
        Err(quota) => (refuse(ApiError::rate_limited(quota.seconds)), quota),
    };
    let headers = response.headers_mut();
    headers.insert(RATE_LIMIT_POLICY, limit.policy.clone());
    if let Ok(value) = HeaderValue::from_str(&format!("\"default\";r={remaining};t={seconds}")) {
        headers.insert(RATE_LIMIT, value);
    }
    response
}
