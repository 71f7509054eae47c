//! Compresses responses with gzip or br for clients that accept it.
//!
//! A compressor holds hundreds of kilobytes until its response is read. So only responses to
//! authenticated clients are compressed as they are sent ([`Compressible`]); public content is
//! compressed once ([`Precompressed`]), or not at all.

use std::{
    io::Write,
    sync::{Arc, OnceLock},
};

use axum::{
    body::Bytes,
    http::{Extensions, HeaderMap, HeaderValue, StatusCode, Version, header},
    response::Response,
};
use flate2::{Compression, write::GzEncoder};
use tower_http::compression::{
    CompressionLayer, Predicate,
    predicate::{NotForContentType, SizeAbove},
};

/// Smaller responses fit into one packet uncompressed.
const WORTH_IT_BYTES: u16 = 1024;

/// `Cache-Control: no-transform` (RFC 9111), for a response that is read while it is being written:
/// no compressor may buffer it, here or in a proxy.
pub(crate) const AS_IT_COMES: HeaderValue = HeaderValue::from_static("no-store, no-transform");

/// Marks a response that may be compressed as it is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Compressible;

/// Compresses responses. [`with_own_tag`] must be outside of it.
pub(crate) fn layer() -> CompressionLayer<impl Predicate> {
    let worth_it = SizeAbove::new(WORTH_IT_BYTES).and(NotForContentType::SSE).and(may_be_transformed);
    CompressionLayer::new().gzip(true).br(true).compress_when(worth_it)
}

fn may_be_transformed(_: StatusCode, _: Version, headers: &HeaderMap, extensions: &Extensions) -> bool {
    let control = headers.get(header::CACHE_CONTROL).and_then(|value| value.to_str().ok());
    extensions.get::<Compressible>().is_some() && !control.is_some_and(|control| control.contains("no-transform"))
}

/// Gives a compressed response another `ETag`.
pub(crate) fn with_own_tag<B>(mut response: Response<B>) -> Response<B> {
    super::etag::name_encoding(response.headers_mut());
    response
}

/// A constant text, compressed on first use.
#[derive(Debug, Clone)]
pub(crate) struct Precompressed {
    plain: Bytes,
    gzip: Arc<OnceLock<Option<Bytes>>>,
}

impl Precompressed {
    pub(crate) fn new(text: impl Into<Bytes>) -> Self {
        Self { plain: text.into(), gzip: Arc::default() }
    }

    /// The uncompressed text.
    pub(crate) fn plain(&self) -> &Bytes {
        &self.plain
    }

    /// The body in an encoding that the client accepts, and the headers for it.
    pub(crate) fn answer(&self, request: &HeaderMap) -> (HeaderMap, Bytes) {
        let mut headers = HeaderMap::from_iter([(header::VARY, HeaderValue::from(header::ACCEPT_ENCODING))]);
        let gzip = accepts_gzip(request).then(|| self.gzip.get_or_init(|| gzip(&self.plain).ok()).clone());
        let Some(gzip) = gzip.flatten() else { return (headers, self.plain.clone()) };
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        (headers, gzip)
    }
}

fn gzip(text: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text)?;
    encoder.finish().map(Bytes::from)
}

/// Whether `gzip` is listed, and not with `q=0` (RFC 9110, 12.5.3).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|coding| {
        let (name, quality) = coding.split_once(';').unwrap_or((coding, ""));
        let refused = quality.trim().strip_prefix("q=").is_some_and(|quality| quality.parse() == Ok(0.0));
        name.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_if_accepted() {
        let text = Precompressed::new("teapot ".repeat(1000));
        let sent = |accepts: &str| {
            let (headers, body) =
                text.answer(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, accepts.parse().unwrap())]));
            assert_eq!(headers[header::VARY], "accept-encoding");
            let is_gzip = headers.contains_key(header::CONTENT_ENCODING);
            assert_eq!(is_gzip, body.len() < 200, "{accepts}");
            is_gzip
        };
        for accepts in ["gzip", "br, gzip", "GZIP;q=0.5", "deflate,gzip ; q=1"] {
            assert!(sent(accepts), "{accepts}");
        }
        for refuses in ["", "br", "gzip;q=0", "gzip; q=0.000", "xgzip", "*"] {
            assert!(!sent(refuses), "{refuses}");
        }
    }
}
