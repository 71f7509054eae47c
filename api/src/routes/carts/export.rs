//! `/api/carts/export`: all carts, oldest first, in a format that an import accepts.

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use common::{
    carts::{self, Cart, CartStatus, export::Position},
    clock::Clock,
    db::Database,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use utoipa_axum::routes;

use super::import::{csv, lines::Format};
use crate::{
    auth::scoped_router::ScopedRouter,
    http::{
        error::ApiError,
        query::{DATE_OR_INSTANT, DateOrInstant, Parameters, date_or_instant},
    },
    state::AppState,
};

/// Tells Excel that a file is UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Carts per statement; a cart has up to 1 MB.
const BATCH: i64 = 250;

pub(crate) fn router() -> ScopedRouter {
    ScopedRouter::new().read(routes!(export))
}

/// Export carts
///
/// Oldest first, in a format that an import accepts. A cart never appears twice. A cart that is
/// created or changed meanwhile may be included or not, as it was or as it became. If the export
/// fails, the connection breaks off, so that a partial file does not look complete.
#[utoipa::path(
    get, path = "/carts/export", operation_id = "exportCarts", tag = "Import and export",
    params(
        ("format" = inline(Option<Format>), Query, description = "The default is the first of `Accept` that there is, then ndjson."),
        ("status" = Option<CartStatus>, Query, description = "Only with this status."),
        ("from" = inline(Option<DateOrInstant>), Query, description = "Only those created then or later."),
        ("to" = inline(Option<DateOrInstant>), Query, description = "Only those created before."),
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
    let status = parameters.parse("status", "abandoned, recovered or expired", |text| text.parse().ok())?;
    let from = parameters.parse("from", DATE_OR_INSTANT, date_or_instant)?;
    let position = Position::start(status, from, parameters.parse("to", DATE_OR_INSTANT, date_or_instant)?);
    let day = state.clock.now().date_naive();
    let mut export =
        Export { database: state.database.clone(), clock: state.clock.clone(), format, position, ended: false };
    // If the first batch can't be read, return an ordinary error response.
    let mut first = match format {
        Format::Ndjson => Vec::new(),
        Format::Csv if bom == Some(true) => [BYTE_ORDER_MARK, &csv::header()].concat(),
        Format::Csv => csv::header(),
    };
    first.extend(export.next().await?.unwrap_or_default());
    // A later error breaks the connection off, so that the file does not look complete.
    let rest = stream::try_unfold(export, async |mut export| Ok(export.next().await?.map(|carts| (carts, export))))
        .inspect_err(|error: &sqlx::Error| tracing::error!(%error, "an export was interrupted"));
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
    format: Format,
    position: Position,
    ended: bool,
}

impl Export {
    async fn next(&mut self) -> sqlx::Result<Option<Vec<u8>>> {
        if self.ended {
            return Ok(None);
        }
        let mut conn = self.database.acquire().await?;
        let carts = carts::export::batch(&mut conn, &self.position, BATCH, self.clock.now()).await?;
        drop(conn);
        if let Some(last) = carts.last() {
            self.position.advance(last);
        }
        self.ended = i64::try_from(carts.len()).is_ok_and(|carts| carts < BATCH);
        Ok(Some(match self.format {
            Format::Ndjson => json_lines(&carts),
            Format::Csv => csv::records(&carts),
        }))
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
