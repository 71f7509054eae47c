//! Pagination of lists.

use axum::http::{HeaderName, HeaderValue, header};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::{base_path::at, error::ApiError, query::Parameters};

/// A requested page: its number, from 1, and the number of entries per page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    /// Which page; the default is 1.
    #[param(rename = "page", value_type = Option<i64>, minimum = 1, maximum = 9_223_372_036_854_775_807_isize)]
    pub(crate) number: i64,
    /// Entries per page; the default is 10, and 100 in exports.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 100)]
    pub(crate) limit: i64,
}

impl Page {
    pub(crate) fn of(parameters: &Parameters) -> Result<Self, ApiError> {
        Ok(Self { number: parameters.page()?, limit: parameters.limit()? })
    }

    /// Number of entries before this page.
    pub(crate) fn offset(self) -> i64 {
        (self.number - 1).saturating_mul(self.limit)
    }

    /// Number of pages that `total` entries fill.
    pub(crate) fn pages(self, total: i64) -> i64 {
        total.max(0).unsigned_abs().div_ceil(self.limit.unsigned_abs()).cast_signed()
    }
}

/// The `Link` header of the next page (RFC 8288); `None` on the last one.
pub(crate) type NextLink = Option<[(HeaderName, HeaderValue); 1]>;

/// The link to the next page of the list at `path`: the request's parameters, with `name` (`cursor`
/// or `page`) set to `next`.
pub(crate) fn next_link(parameters: &Parameters, path: &str, name: &str, next: Option<&str>) -> NextLink {
    let others = parameters.pairs().filter(|(name, value)| !["cursor", "page"].contains(name) && !value.is_empty());
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(others).append_pair(name, next?).finish();
    let link = HeaderValue::from_str(&format!("<{}?{query}>; rel=\"next\"", at(path)));
    Some([(header::LINK, link.ok()?)])
}

/// `pagination` of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pagination {
    #[schema(minimum = 1, example = 1)]
    page: i64,
    #[schema(minimum = 1, maximum = 100, example = 10)]
    limit: i64,
    #[schema(minimum = 0, example = 1)]
    total: i64,
    #[schema(minimum = 0, example = 1)]
    total_pages: i64,
    /// Cursor of the next page: null on the last page, absent if the list has no cursors.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    next_cursor: Option<Option<String>>,
}

impl Pagination {
    pub(crate) fn new(page: Page, total: i64) -> Self {
        Self { page: page.number, limit: page.limit, total, total_pages: page.pages(total), next_cursor: None }
    }

    /// Adds `nextCursor`, which is null on the last page.
    pub(crate) fn with_cursor(self, next: Option<String>) -> Self {
        Self { next_cursor: Some(next), ..self }
    }
}
