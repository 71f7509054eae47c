//! `/api/carts/export`: all carts, oldest first, in a format that an import accepts.

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use common::{
    carts::{
        self, Cart,
        filter::Filter,
        list::{CartPage, Sort, SortKey, Start},
    },
    clock::Clock,
    db::Database,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use utoipa_axum::routes;

use super::{
    filters::{self, Filters},
    import::{csv, lines::Format},
    searches::Searches,
};
use crate::{
    auth::scoped_router::ScopedRouter,
    http::{error::ApiError, query::Parameters},
    state::AppState,
    upkeep::Upkeep,
};

const OLDEST_FIRST: Sort = Sort { key: SortKey::CreatedAt, descending: false };

/// Tells Excel that a file is UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Carts per statement; a cart has up to 1 MB.
const BATCH: i64 = 250;

pub(crate) fn router() -> ScopedRouter {
    ScopedRouter::new().read(routes!(export))
}

/// Export carts
///
/// All carts, or those that match the filters, oldest first, in a format that an import accepts. A
/// cart never appears twice. A cart that is created or changed meanwhile may be included or not, as
/// it was or as it became. If the export fails, the connection breaks off, so that a partial file
/// does not look complete.
#[utoipa::path(
    get, path = "/carts/export", operation_id = "exportCarts", tag = "Import and export",
    params(
        ("format" = inline(Option<Format>), Query, description = "The default is the first of `Accept` that there is, then ndjson."),
        Filters,
        ("bom" = Option<u8>, Query, minimum = 0, maximum = 1, description = "With csv: 1 begins the file with a byte order mark, so that Excel reads it as UTF-8."),
    ),
    responses((status = 200, description = "All carts. The schema of JSON is that of each line.",
        content((Cart = "application/x-ndjson"), (String = "text/csv", example = "id,externalId,customerEmail\ncart_01m84zjdhtftc9p973qfnt3nn0,order-1001,ada@example.com\n")),
        headers(("Content-Disposition" = String, description = "A name for the file.")))),
)]
async fn export(
    State(state): State<AppState>,
    headers: HeaderMap,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let format = parameters.parse("format", "ndjson or csv", |text| match text {
        "ndjson" => Some(Format::Ndjson),
        "csv" => Some(Format::Csv),
        _ => None,
    })?;
    let format = format.unwrap_or_else(|| accepted(&headers));
    let bom = parameters.parse("bom", "0 or 1", |text| match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    })?;
    if bom.is_some() && format != Format::Csv {
        return Err(ApiError::bad_request("bom can only be sent with format=csv"));
    }
    let filter = filters::parse(&parameters)?;
    begin(&state, filter, format, bom == Some(true)).await
}

/// All carts that match, as CSV for a spreadsheet.
pub(crate) async fn csv(state: &AppState, filter: Filter) -> Result<Response, ApiError> {
    begin(state, filter, Format::Csv, true).await
}

async fn begin(state: &AppState, filter: Filter, format: Format, bom: bool) -> Result<Response, ApiError> {
    let day = state.clock.now().date_naive();
    let (database, clock) = (state.database.clone(), state.clock.clone());
    let (searches, upkeep) = (state.searches.clone(), state.upkeep.clone());
    let mut export =
        Export { database, clock, searches, upkeep, format, filter, start: Start::Offset(0), ended: false };
    // If the first batch can't be read, return an ordinary error response.
    let mut first = match format {
        Format::Ndjson => Vec::new(),
        Format::Csv if bom => [BYTE_ORDER_MARK, &csv::header()].concat(),
        Format::Csv => csv::header(),
    };
    first.extend(export.next().await?.unwrap_or_default());
    // A later error breaks the connection off, so that the file does not look complete.
    let rest = stream::try_unfold(export, async |mut export| Ok(export.next().await?.map(|carts| (carts, export))))
        .map_err(|error: ApiError| {
            tracing::error!(?error, "an export was interrupted");
            std::io::Error::other("the export was interrupted")
        });
    let carts = stream::iter([Ok(first)]).chain(rest).map_ok(Bytes::from);
    let (media_type, extension) = match format {
        Format::Ndjson => ("application/x-ndjson", "ndjson"),
        Format::Csv => ("text/csv; charset=utf-8", "csv"),
    };
    let headers = [
        (header::CONTENT_TYPE, media_type.to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"carts-{day}.{extension}\"")),
    ];
    Ok((headers, Body::from_stream(carts)).into_response())
}

/// The first supported media type in `Accept`; NDJSON if there is none.
fn accepted(headers: &HeaderMap) -> Format {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let media_types = values.flat_map(|value| value.split(',')).filter_map(|range| range.split(';').next());
    let mut formats = media_types.filter_map(|media_type| Format::named(&media_type.trim().to_ascii_lowercase()));
    formats.next().unwrap_or(Format::Ndjson)
}

/// An export in progress. It holds a Postgres connection only while it reads a batch.
struct Export {
    database: Database,
    clock: Clock,
    searches: Searches,
    upkeep: Upkeep,
    format: Format,
    filter: Filter,
    start: Start,
    ended: bool,
}

impl Export {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, ApiError> {
        if self.ended {
            return Ok(None);
        }
        let CartPage { carts, next } = self.batch().await?;
        self.ended = next.is_none();
        if let Some(last) = next {
            self.start = Start::After(last);
        }
        Ok(Some(match self.format {
            Format::Ndjson => json_lines(&carts),
            Format::Csv => csv::records(&carts),
        }))
    }
}

impl Export {
    /// The next carts. Filters may read every cart, so they share the limit of searches.
    async fn batch(&mut self) -> Result<CartPage, ApiError> {
        let (_permit, database) = if self.filter.is_status_only() {
            (None, self.database.clone())
        } else {
            self.searches.begin(&self.database).await.map(|(permit, database)| (Some(permit), database))?
        };
        let mut tx = carts::filter::begin(&database).await?;
        let mut query = self.filter.read(&mut tx, OLDEST_FIRST, self.clock.now()).await?;
        self.upkeep.before_running(&query)?;
        if self.start == Start::Offset(0) && !self.filter.is_status_only() {
            query.count_few(&mut tx).await?;
        }
        let page = query.page(&mut tx, self.start.clone(), BATCH).await?;
        let only_ids = query.into_only_ids();
        tx.commit().await?;
        self.filter.only_ids = only_ids;
        Ok(page)
    }
}

fn json_lines(carts: &[Cart]) -> Vec<u8> {
    let mut out = Vec::with_capacity(carts.len() * 512);
    for cart in carts {
        let begin = out.len();
        // Writing to memory can't fail, and all keys are strings.
        serde_json::to_writer(&mut out, cart).unwrap_or_default();
        // Items stored by SQL may contain line breaks between their tokens.
        for byte in out[begin..].iter_mut().filter(|byte| matches!(**byte, b'\n' | b'\r')) {
            *byte = b' ';
        }
        out.push(b'\n');
    }
    out
}

#[cfg(test)]
mod properties;
