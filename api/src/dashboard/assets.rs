//! The style sheet, script and icon, embedded in the binary. Their names contain a hash of their
//! content, so that browsers can cache them forever.

use std::sync::LazyLock;

use axum::{
    Router,
    extract::{Path, rejection::PathRejection},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};
use sha2::{Digest, Sha256};

use crate::{http::error::ApiError, state::AppState};

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/assets/{name}", get(show))
}

/// A static file.
#[derive(Debug)]
pub(crate) struct Asset {
    /// URL path.
    pub(crate) path: String,
    content: &'static str,
    content_type: &'static str,
}

impl Asset {
    fn new(stem: &str, extension: &str, content: &'static str, content_type: &'static str) -> Self {
        let hash: String =
            Sha256::digest(content.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self { path: format!("/assets/{stem}-{hash}.{extension}"), content, content_type }
    }
}

pub(crate) static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("dashboard", "css", include_str!("dashboard.css"), "text/css; charset=utf-8"));
pub(crate) static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("dashboard", "js", include_str!("dashboard.js"), "text/javascript; charset=utf-8"));
pub(crate) static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", include_str!("icon.svg"), "image/svg+xml"));

async fn show(name: Result<Path<String>, PathRejection>) -> Result<Response, ApiError> {
    let Path(name) = name.map_err(|_| ApiError::not_found("No such file"))?;
    let assets = [&*STYLE, &*SCRIPT, &*ICON];
    let asset = assets.into_iter().find(|asset| asset.path.strip_prefix("/assets/") == Some(name.as_str()));
    let asset = asset.ok_or_else(|| ApiError::not_found("No such file"))?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    Ok((headers, asset.content).into_response())
}
