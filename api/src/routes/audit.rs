//! `/api/audit`: what was changed, when, and with which key.

use axum::extract::State;
use chrono::{DateTime, Utc};
use common::audit::{self, Entry};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::{
    auth::scoped_router::ScopedRouter,
    http::{
        body::{Data, Success},
        error::ApiError,
        pagination::{NextLink, next_link},
        query::Parameters,
    },
    state::AppState,
};

const DEFAULT_LIMIT: i64 = 100;

pub(crate) fn router() -> ScopedRouter {
    ScopedRouter::new().operator_or_support(routes!(list))
}

/// An entry of the audit log.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"at": "2026-11-24T09:46:43.605Z", "key": "anna", "action": "cart.deleted", "subject": ["cart_01m84zjdhtftc9p973qfnt3nn0"], "count": 1}))]
struct AuditEntry {
    /// When the change was made.
    at: DateTime<Utc>,
    /// The name of the key; `API_KEY` for the keys in that variable.
    key: String,
    /// What was done. New actions may be added.
    #[schema(example = "cart.deleted")]
    action: String,
    /// Ids of what was changed. Actions on all jobs of a filter have the queues instead, imports
    /// nothing.
    subject: Vec<String>,
    /// Number of carts, jobs or other things that were changed.
    #[schema(minimum = 0)]
    count: i64,
}

impl From<Entry> for AuditEntry {
    fn from(entry: Entry) -> Self {
        let Entry { at, key, action, subject, count, .. } = entry;
        Self { at, key, action, subject, count }
    }
}

/// A part of the audit log.
#[derive(Serialize, ToSchema)]
struct AuditLog {
    /// Newest first.
    entries: Vec<AuditEntry>,
    pagination: Part,
}

/// Pagination of the audit log.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditPart)]
struct Part {
    /// Maximum number of entries in this part.
    limit: i64,
    /// Cursor of the next part; null on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// List the audit log
///
/// Every change that was made with an API key, through the API or the dashboard, newest first. Entries
/// are kept for `RETAIN_AUDIT` (a year), and contain ids but no data of shoppers. Carts that were
/// stored at the same moment with the same key share an entry.
#[utoipa::path(
    get, path = "/audit", operation_id = "listAuditLog", tag = "Operations",
    params(
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "Entries a part; the default is 100."),
        ("cursor" = Option<String>, Query, pattern = "^-?[0-9]{1,16}-[0-9a-f]{32}$", description = "The `nextCursor` of the part before."),
    ),
    responses((status = 200, description = "A part of the log", body = Success<AuditLog>,
        headers(("Link" = String, description = "The address of the next part, with `rel=\"next\"`; absent on the last one.")))),
)]
async fn list(State(state): State<AppState>, parameters: Parameters) -> Result<(NextLink, Data<AuditLog>), ApiError> {
    let limit = parameters.limit_or(DEFAULT_LIMIT)?;
    let after = parameters.parse("cursor", "a pagination.nextCursor of this log", |text| text.parse().ok())?;
    let page = audit::page(&mut state.database.acquire().await?, after, limit).await?;
    let next_cursor = page.next.map(|cursor| cursor.to_string());
    let entries = page.entries.into_iter().map(AuditEntry::from).collect();
    let link = next_link(&parameters, "/api/audit", "cursor", next_cursor.as_deref());
    Ok((link, Data(AuditLog { entries, pagination: Part { limit, next_cursor } })))
}
