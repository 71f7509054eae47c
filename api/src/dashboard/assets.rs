//! Style sheets, scripts and the icon, embedded in the binary. Their names contain a hash of their
//! content, so that browsers can cache them forever.

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};
use sha2::{Digest, Sha256};

use crate::{
    http::{base_path::at, compression::Precompressed, error::ApiError},
    state::AppState,
};

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/assets/{name}", get(show))
}

/// A static file.
#[derive(Debug)]
pub(crate) struct Asset {
    /// The path, without that of `PUBLIC_URL`.
    path: String,
    content: Precompressed,
    content_type: &'static str,
}

impl Asset {
    fn new(stem: &str, extension: &str, content: impl Into<Bytes>, content_type: &'static str) -> Self {
        let content = Precompressed::new(content);
        let hash: String = Sha256::digest(content.plain()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self { path: format!("/assets/{stem}-{hash}.{extension}"), content, content_type }
    }

    /// The address, for a page.
    pub(crate) fn address(&self) -> String {
        at(&self.path)
    }
}

const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

pub(crate) static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("dashboard", "css", include_str!("dashboard.css"), CSS));
pub(crate) static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("dashboard", "js", include_str!("dashboard.js"), JAVASCRIPT));
pub(crate) static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", include_str!("icon.svg"), "image/svg+xml"));
pub(crate) static SWAGGER_UI_STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("swagger-ui", "css", swagger_ui("swagger-ui.css"), CSS));
pub(crate) static SWAGGER_UI: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("swagger-ui", "js", swagger_ui("swagger-ui-bundle.js"), JAVASCRIPT));
pub(crate) static START_SWAGGER_UI: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("docs", "js", include_str!("../openapi/docs.js"), JAVASCRIPT));

/// A file of Swagger UI.
fn swagger_ui(name: &str) -> Bytes {
    let file = utoipa_swagger_ui::serve(name, Arc::new(utoipa_swagger_ui::Config::from("")));
    match file.ok().flatten().map(|file| file.bytes) {
        Some(Cow::Borrowed(bytes)) => Bytes::from_static(bytes),
        Some(Cow::Owned(bytes)) => bytes.into(),
        None => panic!("Swagger UI has no {name}"),
    }
}

async fn show(name: Result<Path<String>, PathRejection>, request: HeaderMap) -> Result<Response, ApiError> {
    let Path(name) = name.map_err(|_| ApiError::not_found("No such file"))?;
    let assets = [&STYLE, &SCRIPT, &ICON, &SWAGGER_UI_STYLE, &SWAGGER_UI, &START_SWAGGER_UI];
    let asset = assets.into_iter().find(|asset| asset.path.strip_prefix("/assets/") == Some(name.as_str()));
    let asset = asset.ok_or_else(|| ApiError::not_found("No such file"))?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    Ok((headers, asset.content.answer(&request)).into_response())
}
