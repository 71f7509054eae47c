//! gzip and br, for whoever asks, where it is worth it.

use axum::{
    Router,
    http::{Extensions, HeaderMap, HeaderValue, StatusCode, Version, header},
    response::Response,
};
use tower::ServiceBuilder;
use tower_http::compression::{
    CompressionLayer, Predicate,
    predicate::{NotForContentType, SizeAbove},
};

/// Smaller answers fit into a packet as they are.
const WORTH_IT_BYTES: u16 = 1024;

/// `Cache-Control: no-transform` (RFC 9111): what is read while it is being
/// written must not wait in a compressor, here or in a proxy.
pub(crate) const AS_IT_COMES: HeaderValue = HeaderValue::from_static("no-store, no-transform");

/// Puts compression before all routes of a router.
pub(crate) fn compressed<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    let worth_it = SizeAbove::new(WORTH_IT_BYTES).and(NotForContentType::SSE).and(may_be_transformed);
    let layer = CompressionLayer::new().gzip(true).br(true).compress_when(worth_it);
    router.layer(ServiceBuilder::new().map_response(with_own_tag).layer(layer))
}

fn may_be_transformed(_: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions) -> bool {
    let control = headers.get(header::CACHE_CONTROL).and_then(|value| value.to_str().ok());
    !control.is_some_and(|control| control.contains("no-transform"))
}

fn with_own_tag<B>(mut response: Response<B>) -> Response<B> {
    crate::etag::name_encoding(response.headers_mut());
    response
}
