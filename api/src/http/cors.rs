//! CORS: only pages of the origins in `CORS_ORIGINS` may call the API.

use std::time::Duration;

use axum::{
    Router,
    http::{HeaderName, HeaderValue, Method, header},
};
use common::config::has_plain_host;
use tower_http::cors::{AllowOrigin, CorsLayer};
use url::Url;

/// How long a browser may cache a preflight response.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// Parses an origin such as `https://shop.example`: a scheme, a host and an optional port, as
/// browsers send it.
pub(crate) fn parse_origin(text: &str) -> Option<HeaderValue> {
    let origin = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && has_plain_host(url))?;
    // Origins are compared byte by byte, so only the form that browsers send is accepted: in lower
    // case, without a default port, and nothing else.
    let plain = origin.origin().ascii_serialization() == text;
    plain.then(|| HeaderValue::from_str(text).ok()).flatten()
}

/// Allows pages of `origins` to call the routes; changes nothing if there are none.
pub(crate) fn allow<S: Clone + Send + Sync + 'static>(origins: &[HeaderValue], router: Router<S>) -> Router<S> {
    if origins.is_empty() {
        return router;
    }
    let sent = ["x-api-key", "idempotency-key", "prefer", "x-request-id", "traceparent"].map(HeaderName::from_static);
    let read = ["ratelimit", "ratelimit-policy", "x-request-id", "preference-applied"].map(HeaderName::from_static);
    let layer = CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins.iter().cloned()))
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers(
            sent.into_iter()
                .chain([header::AUTHORIZATION, header::CONTENT_TYPE, header::IF_MATCH, header::IF_NONE_MATCH])
                .collect::<Vec<_>>(),
        )
        .expose_headers(
            read.into_iter()
                .chain([header::ETAG, header::LINK, header::LOCATION, header::RETRY_AFTER, header::CONTENT_DISPOSITION])
                .collect::<Vec<_>>(),
        )
        .max_age(REMEMBERED);
    router.layer(layer)
}

#[cfg(test)]
mod tests {
    use super::parse_origin;

    #[test]
    fn origins_are_written_as_browsers_do() {
        for good in ["https://shop.example", "http://localhost:5173", "https://[::1]:8443"] {
            assert!(parse_origin(good).is_some(), "{good}");
        }
        for bad in [
            "*",
            "null",
            "shop.example",
            "https://shop.example/",
            "https://shop.example/x",
            "ftp://x",
            "https://",
            "https://a@b",
            "https://Shop.example",
            "https://x?y",
            "https://x:99999",
            "https://x:443",
            "https://x..y",
            "https://x y",
            "https://x\"",
            "https://ü.example",
        ] {
            assert!(parse_origin(bad).is_none(), "{bad}");
        }
    }
}
