//! Entity tags (RFC 9110, section 8.8.3): which representation somebody has.
//!
//! A tag is a hash of the answer itself, so it is strong by nature: whatever
//! changes what a client reads, a payment link that ran out included, changes
//! the tag, and nothing else does. No column has to be kept in step.

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

/// An answer with a tag may be kept by the client that got it, and is to be asked for again.
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("private, no-cache");

/// The tag of one representation, without its quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ETag(String);

impl ETag {
    /// Of an answer's body.
    pub(crate) fn of(body: &[u8]) -> Self {
        // Half of the hash: nobody finds two bodies with the same 128 bits.
        Self(URL_SAFE_NO_PAD.encode(&Sha256::digest(body)[..16]))
    }

    /// As a header has it.
    pub(crate) fn header(&self) -> HeaderValue {
        // Base 64 and quotes are good in a header.
        HeaderValue::from_str(&format!("\"{}\"", self.0)).unwrap_or(HeaderValue::from_static("\"\""))
    }

    /// Which of the tags in a list is this one, compressed or not.
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

/// Whether a weak tag counts: for reading it does, for writing it does not.
#[derive(Clone, Copy)]
enum Weak {
    IsGood,
    IsNot,
}

/// All lines of one header; usually there is none.
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

/// `If-None-Match`: what the client has already.
#[derive(Debug)]
pub(crate) struct IfNoneMatch(Lists);

impl<S: Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(Lists::of(parts, header::IF_NONE_MATCH)))
    }
}

impl IfNoneMatch {
    /// The answer with its tag; 304 and nothing more if the client has it.
    pub(crate) fn answer(&self, body: Bytes) -> Response {
        let tag = ETag::of(&body);
        match self.known(&tag) {
            Some(known) => not_modified(known),
            None => tagged(&tag, body),
        }
    }

    /// The tag as the client wrote it, if it is this one.
    pub(crate) fn known(&self, tag: &ETag) -> Option<HeaderValue> {
        let listed = self.0.0.iter().find_map(|list| tag.listed(list, Weak::IsGood));
        let listed = listed.map(|listed| listed.strip_prefix("W/").unwrap_or(listed));
        listed.and_then(|listed| HeaderValue::from_str(listed).ok()).or_else(|| self.0.any().then(|| tag.header()))
    }
}

/// 304, with the tag that the whole answer would have.
pub(crate) fn not_modified(tag: HeaderValue) -> Response {
    (StatusCode::NOT_MODIFIED, [(header::ETAG, tag), (header::CACHE_CONTROL, ASK_AGAIN)]).into_response()
}

/// An answer with its tag.
pub(crate) fn tagged(tag: &ETag, body: Bytes) -> Response {
    ([(header::ETAG, tag.header()), (header::CACHE_CONTROL, ASK_AGAIN)], Rendered(body)).into_response()
}

/// `If-Match`: what the client believes it changes.
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
    /// Nothing in particular is believed.
    pub(crate) fn anything() -> Self {
        Self(Lists(Vec::new()))
    }

    /// Whether there is anything to check. `*` asks for a cart that exists, which every change does anyway.
    pub(crate) fn is_given(&self) -> bool {
        !self.0.0.is_empty() && !self.0.any()
    }

    /// Holds it against what there is.
    ///
    /// # Errors
    /// If the client believed something else.
    pub(crate) fn check(&self, body: &[u8]) -> Result<(), ApiError> {
        let tag = ETag::of(body);
        let fits = self.0.0.iter().any(|list| tag.listed(list, Weak::IsNot).is_some());
        if fits { Ok(()) } else { Err(ApiError::precondition_failed()) }
    }
}

/// A compressed answer has other bytes, and a strong tag tells them apart: its tag says how it is compressed.
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
