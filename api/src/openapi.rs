//! The OpenAPI 3.1 document. It is collected from the routes themselves, so that none is left out,
//! and serialized once.

mod examples;
mod page;
mod standard;

use std::sync::{Arc, OnceLock};

use axum::{
    Extension,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::Response,
};
use utoipa::openapi::{OpenApi, ServerBuilder};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(crate) use standard::{Described, ask_for_key, declare};

pub(crate) use crate::http::error::Envelope as Error;
use crate::{
    http::{
        base_path::BasePath,
        compression::Precompressed,
        declared,
        etag::{self, ETag, IfNoneMatch},
    },
    state::AppState,
};

/// The document and its page, ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    json: Written,
    /// Written on first use: the page names Swagger UI's files by their hashes.
    page: Arc<OnceLock<Written>>,
}

#[derive(Debug, Clone)]
struct Written {
    body: Precompressed,
    tag: ETag,
}

impl Written {
    fn new(text: String) -> Self {
        let body = Precompressed::new(text);
        Self { tag: ETag::of(body.plain()), body }
    }

    fn answer(&self, known: &IfNoneMatch, request: &HeaderMap) -> Response {
        if let Some(known) = known.known(&self.tag) {
            return etag::not_modified(known);
        }
        let (headers, body) = self.body.answer(request);
        let mut response = etag::tagged(&self.tag, body);
        response.headers_mut().extend(headers);
        response
    }
}

impl Document {
    /// The servers are `PUBLIC_URL`, and the host that the document came from, below `base`.
    pub(crate) fn of(mut document: OpenApi, public_url: &str, base: &BasePath) -> Self {
        let server = |url: &str, text| ServerBuilder::new().url(url).description(Some(text)).build();
        let here = if base.is_empty() { "/" } else { base.as_str() };
        document.servers = Some(vec![server(public_url, "`PUBLIC_URL`"), server(here, "The host of this document")]);
        Self { json: Written::new(written(&document)), page: Arc::default() }
    }
}

/// The document as JSON.
pub(crate) fn written(document: &OpenApi) -> String {
    // Serializing the document can't fail, and without it nothing could be relied on.
    document.to_json().unwrap_or_else(|error| panic!("the document can't be written: {error}"))
}

/// The route of the document, which needs no key.
pub(crate) fn document_router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(declared::refuse_others(routes!(document)))
}

/// The route of the documentation page.
pub(crate) fn page_router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(show_page))
}

/// Get the OpenAPI document
///
/// Describes every endpoint, for programs (OpenAPI 3.1). Requires no API key.
#[utoipa::path(
    get, path = "/api/openapi.json", operation_id = "showDocument", tag = "Documentation",
    params(("If-None-Match" = Option<String>, Header, description = "The `ETag` of what you have: if nothing changed the answer is 304.")),
    responses(
        (status = 200, description = "An OpenAPI 3.1 document", body = std::collections::BTreeMap<String, serde_json::Value>,
            headers(("ETag" = String, description = "Of this document; strong.")), example = json!({"openapi": "3.1.0"})),
        (status = 304, description = "You have it already", headers(("ETag" = String, description = "Of what you have."))),
    ),
)]
async fn document(Extension(document): Extension<Document>, known: IfNoneMatch, headers: HeaderMap) -> Response {
    document.json.answer(&known, &headers)
}

/// Get the documentation page
///
/// Shows the OpenAPI document to people, and sends requests (Swagger UI).
#[utoipa::path(
    get, path = "/docs", operation_id = "showDocumentation", tag = "Documentation",
    params(("If-None-Match" = Option<String>, Header, description = "The `ETag` of what you have: if nothing changed the answer is 304.")),
    responses(
        (status = 200, description = "A page for people", body = String, content_type = "text/html",
            headers(("ETag" = String, description = "Of this page; strong."))),
        (status = 304, description = "You have it already", headers(("ETag" = String, description = "Of what you have."))),
    ),
)]
async fn show_page(Extension(document): Extension<Document>, known: IfNoneMatch, headers: HeaderMap) -> Response {
    const SAFE: [(HeaderName, &str); 5] = [
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (header::CONTENT_SECURITY_POLICY, page::CONTENT_SECURITY_POLICY),
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    let page = document.page.get_or_init(|| Written::new(page::render()));
    let mut response = page.answer(&known, &headers);
    for (name, value) in SAFE {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
