//! `/api/carts/import`: stores thousands of carts and reports the result of each line.
//!
//! One task reads the body and checks its lines while the batch before them is stored. The response
//! stores a batch whenever the client has read the results of the one before. So a client that does
//! not read is not read from either, and no Postgres connection is held while nothing is stored.

pub(crate) mod csv;
mod line;
pub(crate) mod lines;
pub(crate) mod reader;
mod text;

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use common::{
    audit::{Action, OpenEntry},
    carts::{self, Cart, import::Stored, new::COMPUTED},
};
use futures_util::{StreamExt, stream};
use serde::Serialize;
use tokio::sync::mpsc;
use utoipa::ToSchema;
use utoipa_axum::routes;

use self::{
    line::CartLine,
    lines::{Format, Lines},
    reader::{Batch, Checked, Piece, Reader},
};
use crate::{
    auth::{keys::Granted, scoped_router::ScopedRouter},
    http::{
        compression::AS_IT_COMES,
        declared::fields::KnownFields,
        error::{self, ApiError},
        preferences::{self, Preferences},
    },
    state::AppState,
};

/// Only errors and the summary are returned, for clients that read nothing before they have sent
/// everything.
const MINIMAL: &str = "return=minimal";
/// How long a batch waits for other transactions that hold its external ids, and how often it tries.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const MAX_ATTEMPTS: usize = 3;

pub(crate) fn router() -> ScopedRouter {
    ScopedRouter::new().write(routes!(import))
}

/// Import carts
///
/// Reports the result of each line. The file may have any size: one cart per line, or CSV
/// (separated by commas, semicolons or tabs) whose header names the columns. `items` is the JSON
/// array in a quoted cell; or each item is a line with `itemName`, `itemQuantity` and `itemPrice`,
/// and consecutive lines with the same `externalId` are one cart. A line that can't be stored has
/// an `error`; the others are stored. A line reported as `created` or `exists` is stored for good.
/// A response without `summary` was cut off: resume after the last line that has a result. Read the
/// response while you send, or request `Prefer: return=minimal`. The body must not be compressed.
/// If a line's `externalId` exists already, the result has that cart's `id`, provided that the key
/// has the scope `read`.
#[utoipa::path(
    post, path = "/carts/import", operation_id = "importCarts", tag = "Import and export",
    params(("Prefer" = Option<String>, Header, description = "`return=minimal`: only errors and the summary are returned. `handling=strict`: unknown fields are errors of their line, and unknown columns return 422 (RFC 7240).", example = "return=minimal")),
    request_body(description = "The schema is that of each line.", content(
        (CartLine = "application/x-ndjson"),
        (String = "text/csv", example = "customerEmail,customerName,items\nada@example.com,Ada,\"[{\"\"name\"\":\"\"Teapot\"\",\"\"quantity\"\":2,\"\"price\"\":49.99}]\"\n"),
    )),
    responses((status = 200, description = "The schema is that of each line.", body = ImportAnswer, content_type = "application/x-ndjson",
        headers(("Preference-Applied" = String, description = "`return=minimal` and `handling=strict`, if requested.")))),
)]
async fn import(State(state): State<AppState>, granted: Granted, request: Request) -> Result<Response, ApiError> {
    let mut lines = Lines::new(Format::of_body(request.headers())?);
    let minimal =
        Preferences::of(request.headers()).get("return").is_some_and(|wanted| wanted.eq_ignore_ascii_case("minimal"));
    // An export has fields that the server computes.
    let strict = request.extensions().get::<KnownFields>().map(|known| known.clone().and(&COMPUTED));
    if strict.is_some() {
        lines.refuse_unknown_columns();
    }
    // One batch waits while another is stored and the next is read.
    let (sender, pieces) = mpsc::channel(1);
    tokio::spawn(Reader::new(lines, state.clone(), sender, strict).run(request.into_body()));
    let may_read = granted.may_read();
    let entry = OpenEntry::new(granted.name, Action::CartsImported, Vec::new(), state.clock.now());
    let totals = ImportTotals::default();
    let mut import = Import { state, pieces, minimal, may_read, entry, totals, last_line: 0, ended: false };
    // If the first batch can't be stored, return an ordinary error response.
    let first = import.next().await?.unwrap_or_default();
    let rest = stream::unfold(import, async |mut import| {
        let answers = match import.next().await {
            Ok(answers) => answers?,
            Err(error) => import.give_up(import.last_line + 1, &error),
        };
        Some((answers, import))
    });
    let answers = stream::iter([first]).chain(rest).map(|answers| Ok::<_, Infallible>(Bytes::from(answers)));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
        (header::CACHE_CONTROL, AS_IT_COMES),
    ];
    let mut response = (headers, Body::from_stream(answers)).into_response();
    if minimal {
        preferences::applied(&mut response, MINIMAL);
    }
    Ok(response)
}

/// A line of an import's response: one for each line of the file, then the summary.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum ImportAnswer<'a> {
    Line(ImportedLine<'a>),
    Summary(ImportSummary<'a>),
}

/// The result of a line.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({"line": 1, "status": "created", "id": "cart_01m84zjdhtftc9p973qfnt3nn0"}))]
struct ImportedLine<'a> {
    /// The line's number. For CSV, the header is 1, and a cart with several lines has its first.
    #[schema(minimum = 1)]
    line: u64,
    #[schema(inline)]
    status: LineStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    external_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<error::Body<'a>>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum LineStatus {
    Created,
    Exists,
    Error,
}

/// Totals of an import.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ImportTotals {
    /// Lines that have a result; empty lines have none. A cart with several lines counts once.
    lines: u64,
    created: u64,
    exists: u64,
    errors: u64,
    /// Present if the import stopped early.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    incomplete: bool,
    /// The line to resume from, if the import stopped early: the result of every line before it is
    /// final.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_line: Option<u64>,
    /// Why the import stopped early.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<String>,
}

/// The last line of an import's response.
#[derive(Serialize, ToSchema)]
struct ImportSummary<'a> {
    summary: &'a ImportTotals,
}

/// An import in progress.
struct Import {
    state: AppState,
    pieces: mpsc::Receiver<Piece>,
    minimal: bool,
    /// Whether results may contain the ids of carts that existed before.
    may_read: bool,
    /// The import's entry in the audit log.
    entry: OpenEntry,
    totals: ImportTotals,
    last_line: u64,
    ended: bool,
}

impl Import {
    /// Stores the next batch and returns the results of its lines; then the summary; then `None`.
    ///
    /// # Errors
    /// 400 or 422 if a CSV header is missing or invalid; 500 or 503 if carts can't be stored and no
    /// line has a result yet.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, ApiError> {
        if self.ended {
            return Ok(None);
        }
        match self.pieces.recv().await {
            Some(Piece::Batch(batch)) => self.store(batch).await.map(Some),
            Some(Piece::End) => Ok(Some(self.end())),
            Some(Piece::Cut(reason)) => Ok(Some(self.stop(self.last_line + 1, reason))),
            Some(Piece::Refused(error)) => Err(error),
            None => Err(ApiError::internal("the task that reads an import panicked")),
        }
    }

    async fn store(&mut self, batch: Batch) -> Result<Vec<u8>, ApiError> {
        let stored = self.store_carts(&batch.carts).await;
        let nothing_was_answered = self.totals.lines == 0;
        let mut out = Vec::with_capacity(batch.lines.len() * 80);
        for line in &batch.lines {
            match (&line.cart, &stored) {
                (Ok(index), Ok(stored)) => self.answer_stored(&mut out, line, &stored[*index], &batch.carts[*index]),
                (Ok(_), Err(error)) | (Err(error), _) => self.answer_error(&mut out, line, error),
            }
        }
        match stored {
            Ok(_) => Ok(out),
            Err(error) if nothing_was_answered => Err(error),
            Err(error) => {
                let not_stored = batch.lines.iter().find(|line| line.cart.is_ok()).map(|line| line.number);
                out.extend(self.give_up(not_stored.unwrap_or(self.last_line), &error));
                Ok(out)
            }
        }
    }

    /// Stores the carts in one transaction, which holds its connection no longer than that.
    async fn store_carts(&self, carts: &[Cart]) -> Result<Vec<Stored>, ApiError> {
        if carts.is_empty() {
            return Ok(Vec::new());
        }
        for _ in 1..MAX_ATTEMPTS {
            match self.try_to_store(carts).await {
                Err(error) if error.is_locked() => {}
                done => return done,
            }
        }
        self.try_to_store(carts).await
    }

    async fn try_to_store(&self, carts: &[Cart]) -> Result<Vec<Stored>, ApiError> {
        let mut tx = self.state.database.begin_with_lock_wait(LOCK_WAIT).await?;
        let stored = carts::import::store(&mut tx, carts, self.entry.key()).await?;
        let created = stored.iter().filter(|stored| matches!(stored, Stored::Created)).count();
        if created > 0 {
            self.entry.add(&mut tx, i64::try_from(created).unwrap_or(i64::MAX)).await?;
        }
        tx.commit().await?;
        Ok(stored)
    }

    fn answer_stored(&mut self, out: &mut Vec<u8>, line: &Checked, stored: &Stored, cart: &Cart) {
        let (status, id, external_id) = match stored {
            Stored::Created => (LineStatus::Created, Some(cart.id.as_str()), None),
            Stored::Exists(id) => {
                (LineStatus::Exists, self.may_read.then_some(id.as_str()), cart.external_id.as_deref())
            }
        };
        match stored {
            Stored::Created => self.totals.created += 1,
            Stored::Exists(_) => self.totals.exists += 1,
        }
        self.answered(line);
        if !self.minimal {
            let line = line.number;
            write(out, &ImportAnswer::Line(ImportedLine { line, status, id, external_id, error: None }));
        }
    }

    fn answer_error(&mut self, out: &mut Vec<u8>, line: &Checked, error: &ApiError) {
        self.totals.errors += 1;
        self.answered(line);
        let (line, status, error) = (line.number, LineStatus::Error, Some(error.body()));
        write(out, &ImportAnswer::Line(ImportedLine { line, status, id: None, external_id: None, error }));
    }

    fn answered(&mut self, line: &Checked) {
        self.totals.lines += 1;
        self.last_line = line.last;
    }

    /// Ends the import after an internal error.
    fn give_up(&mut self, next_line: u64, error: &ApiError) -> Vec<u8> {
        tracing::error!(cause = error.cause(), "an import was interrupted");
        self.stop(next_line, error.body().message)
    }

    /// Ends the import early.
    fn stop(&mut self, next_line: u64, reason: &str) -> Vec<u8> {
        (self.totals.incomplete, self.totals.next_line) = (true, Some(next_line));
        self.totals.reason = Some(reason.to_owned());
        self.end()
    }

    fn end(&mut self) -> Vec<u8> {
        self.ended = true;
        self.pieces.close(); // stops the reader
        let ImportTotals { lines, created, exists, errors, incomplete, .. } = self.totals;
        tracing::info!(lines, created, exists, errors, incomplete, "import");
        let mut out = Vec::new();
        write(&mut out, &ImportAnswer::Summary(ImportSummary { summary: &self.totals }));
        out
    }
}

fn write(out: &mut Vec<u8>, answer: &ImportAnswer<'_>) {
    // Writing to memory can't fail, and all keys are strings.
    serde_json::to_writer(&mut *out, answer).unwrap_or_default();
    out.push(b'\n');
}
