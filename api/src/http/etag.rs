//! Entity tags (RFC 9110, section 8.8.3), which identify a representation.
//!
//! A tag is a hash of the response body, so it is strong: it changes if and only if the response
//! does, for example when a payment link expires. No column has to be kept in step.

use std::convert::Infallible;

use axum::{
    body::Bytes,
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use common::api_keys::Scope;
use sha2::{Digest, Sha256};

use super::{body::Rendered, error::ApiError};
use crate::auth::keys::Granted;

/// The client may cache a response, but must revalidate it.
pub(crate) const REVALIDATE: HeaderValue = HeaderValue::from_static("private, no-cache");

/// The tag of one representation, without its quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ETag(String);

impl ETag {
    /// The tag of a response body.
    pub(crate) fn of(body: &[u8]) -> Self {
        // Half of the hash: 128 bits are enough to rule out collisions.
        Self(URL_SAFE_NO_PAD.encode(&Sha256::digest(body)[..16]))
    }

    /// The tag as a header value, in quotes.
    pub(crate) fn header(&self) -> HeaderValue {
        // Base64 and quotes are valid in a header.
        HeaderValue::from_str(&format!("\"{}\"", self.0)).unwrap_or(HeaderValue::from_static("\"\""))
    }

    /// The first tag in the list that matches, compressed or not.
    fn listed<'a>(&self, list: &'a HeaderValue, weak: Weak) -> Option<&'a str> {
        let tags = list.to_str().ok()?.split(',').map(str::trim);
        tags.into_iter().find(|tag| {
            let tag = match weak {
                Weak::IsGood => tag.strip_prefix("W/").unwrap_or(tag),
                Weak::IsNot => tag,
            };
            let opaque = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            opaque.is_some_and(|tag| tag == self.0 || tag.split_once('.').is_some_and(|(tag, _)| tag == self.0))
        })
    }
}

/// Whether weak tags match: they do for reads, not for writes.
#[derive(Clone, Copy)]
enum Weak {
    IsGood,
    IsNot,
}

/// All values of one header; usually there is none.
#[derive(Debug)]
struct Lists(Vec<HeaderValue>);

impl Lists {
    fn of(parts: &Parts, name: HeaderName) -> Self {
        Self(parts.headers.get_all(name).iter().cloned().collect())
    }

    fn any(&self) -> bool {
        self.0.iter().any(|list| list.as_bytes().trim_ascii() == b"*")
    }
}

/// `If-None-Match`: the representation that the client has.
#[derive(Debug)]
pub(crate) struct IfNoneMatch(Lists);

impl<S: Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(Lists::of(parts, header::IF_NONE_MATCH)))
    }
}

impl IfNoneMatch {
    /// The tagged response, or 304 without a body if the client has it.
    pub(crate) fn answer(&self, body: Bytes) -> Response {
        let tag = ETag::of(&body);
        match self.known(&tag) {
            Some(known) => not_modified(known),
            None => tagged(&tag, body),
        }
    }

    /// The matching tag as the client sent it, without `W/`; `tag` itself for `*`; `None` if none
    /// matches.
    pub(crate) fn known(&self, tag: &ETag) -> Option<HeaderValue> {
        let listed = self.0.0.iter().find_map(|list| tag.listed(list, Weak::IsGood));
        let listed = listed.map(|listed| listed.strip_prefix("W/").unwrap_or(listed));
        listed.and_then(|listed| HeaderValue::from_str(listed).ok()).or_else(|| self.0.any().then(|| tag.header()))
    }
}

/// 304 with the tag of the full response.
pub(crate) fn not_modified(tag: HeaderValue) -> Response {
    (StatusCode::NOT_MODIFIED, [(header::ETAG, tag), (header::CACHE_CONTROL, REVALIDATE)]).into_response()
}

/// A response with its tag.
pub(crate) fn tagged(tag: &ETag, body: Bytes) -> Response {
    ([(header::ETAG, tag.header()), (header::CACHE_CONTROL, REVALIDATE)], Rendered(body)).into_response()
}

/// `If-Match`: the representation that the client expects to change.
#[derive(Debug)]
pub(crate) struct IfMatch(Lists);

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    /// A tag is a hash of the whole cart, so a key without the scope `read` could test guesses of
    /// the shopper's fields with it.
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let given = Self(Lists::of(parts, header::IF_MATCH));
        let granted = Granted::from_request_parts(parts, state).await?;
        if given.is_given() && !granted.may_read() { Err(ApiError::forbidden(Scope::Read)) } else { Ok(given) }
    }
}

impl IfMatch {
    /// No precondition.
    pub(crate) fn anything() -> Self {
        Self(Lists(Vec::new()))
    }

    /// Whether there is a tag to check. `*` only requires that the cart exists, as every change
    /// does anyway.
    pub(crate) fn is_given(&self) -> bool {
        !self.0.0.is_empty() && !self.0.any()
    }

    /// Checks the precondition against the current representation.
    ///
    /// # Errors
    /// 412 if no tag matches.
    pub(crate) fn check(&self, body: &[u8]) -> Result<(), ApiError> {
        let tag = ETag::of(body);
        let fits = self.0.0.iter().any(|list| tag.listed(list, Weak::IsNot).is_some());
        if fits { Ok(()) } else { Err(ApiError::precondition_failed()) }
    }
}

/// Adds the content encoding to the tag: a compressed response has other bytes, so its strong tag
/// must differ.
pub(crate) fn name_encoding(headers: &mut HeaderMap) {
    let Some(encoding) = headers.get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok()) else { return };
    let tag = headers.get(header::ETAG).and_then(|value| value.to_str().ok()).and_then(|tag| tag.strip_suffix('"'));
    if let Some(tag) = tag.and_then(|tag| HeaderValue::from_str(&format!("{tag}.{encoding}\"")).ok()) {
        headers.insert(header::ETAG, tag);
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(text: &str) -> Lists {
        Lists(vec![text.parse().unwrap()])
    }

    #[test]
    fn a_list_of_tags_is_understood() {
        let tag = ETag::of(b"a cart");
        let own = tag.header().to_str().unwrap().to_owned();
        let plain = own.trim_matches('"');
        for known in
            [own.clone(), format!("\"x\", {own}"), format!("W/{own}"), "*".to_owned(), format!("\"{plain}.br\"")]
        {
            assert!(IfNoneMatch(lists(&known)).known(&tag).is_some(), "{known}");
        }
        for unknown in
            ["\"x\"".to_owned(), plain.to_owned(), format!("\"{plain}"), format!("\"x{plain}\""), String::new()]
        {
            assert!(IfNoneMatch(lists(&unknown)).known(&tag).is_none(), "{unknown}");
            assert!(IfMatch(lists(&unknown)).check(b"a cart").is_err(), "{unknown}");
        }
        assert!(IfMatch(lists(&own)).check(b"a cart").is_ok() && IfMatch(lists(&own)).check(b"another").is_err());
        assert!(IfMatch(lists(&format!("W/{own}"))).check(b"a cart").is_err(), "a change needs a strong tag");
        assert!(!IfMatch(lists("*")).is_given() && !IfMatch(Lists(Vec::new())).is_given());
    }

    #[test]
    fn a_compressed_answer_has_a_tag_of_its_own() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ETAG, HeaderValue::from_static("\"abc\""));
        name_encoding(&mut headers);
        assert_eq!(headers[header::ETAG], "\"abc\"");
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        name_encoding(&mut headers);
        assert_eq!(headers[header::ETAG], "\"abc.gzip\"");
    }
}
