//! `/audit`: what was changed, when, and with which key.

use axum::{Router, extract::State, response::Response, routing::get};
use common::{
    audit::{self, Action, Entry},
    carts::CartId,
};
use maud::{Markup, html};
use uuid::Uuid;

use super::{
    format,
    page::{Page, PageError, Section},
    session::Operator,
};
use crate::{
    http::{base_path::at, error::ApiError, query::Parameters},
    state::AppState,
};

/// Entries per page.
const LIMIT: i64 = 50;
/// Ids shown of an entry; the API has the others.
const IDS: usize = 5;

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/audit", get(show))
}

async fn show(
    State(state): State<AppState>,
    operator: Operator,
    parameters: Result<Parameters, ApiError>,
) -> Result<Response, PageError> {
    let parameters = parameters?;
    let after = parameters.parse("cursor", "a cursor of this page", |text| text.parse().ok())?;
    let page = audit::page(&mut state.database.acquire().await?, after, LIMIT).await?;
    let body = html! {
        div.heading { h1 { "Audit log" } }
        section.card aria-label="Audit log" {
            @if page.entries.is_empty() { p.muted { "No entries." } }
            @else { div.scroll tabindex="0" role="region" aria-label="Entries" { table {
                caption.visually-hidden { "Changes, newest first" }
                thead { tr {
                    th scope="col" { "Time" } th scope="col" { "Key" } th scope="col" { "Action" } th scope="col" { "Subject" }
                } }
                tbody { @for entry in &page.entries { (row(entry, &operator)) } }
            } } }
            @if after.is_some() || page.next.is_some() {
                nav.pages aria-label="Pages of this list" {
                    @if after.is_some() { a.button href=(at("/audit")) { "Newest" } }
                    @if let Some(next) = page.next {
                        a.button rel="next" href={ (at("/audit")) (format::query(&[("cursor", Some(&next.to_string()))])) } { "Older" }
                    }
                }
            }
            p.muted.small { "Changes made with an API key, through the API or this dashboard." }
        }
    };
    Ok(Page { title: "Audit log", section: Section::Audit, operator: &operator, live: "" }.show(&body))
}

fn row(entry: &Entry, operator: &Operator) -> Markup {
    let shown = entry.subject.len().min(IDS);
    let is_deleted = [Action::CartDeleted, Action::JobDiscarded].iter().any(|action| action.as_str() == entry.action);
    html! {
        tr {
            td { (format::moment(entry.at, operator.zone)) }
            td { (entry.key) }
            td { code { (entry.action) } @if entry.count != 1 { " × " (format::count(entry.count)) } }
            td {
                @for id in &entry.subject[..shown] { span.line { (subject(id, is_deleted)) } }
                @if entry.subject.len() > shown { span.muted.small { "and " (entry.subject.len() - shown) " more" } }
            }
        }
    }
}

/// An id, with a link if it is that of a cart or of a job that was not deleted then.
fn subject(id: &str, is_deleted: bool) -> Markup {
    let page =
        if id.parse::<CartId>().is_ok() { Some("/carts/") } else { id.parse::<Uuid>().is_ok().then_some("/jobs/") };
    let page = page.filter(|_| !is_deleted);
    html! {
        @match page {
            Some(page) => a href={ (at(page)) (id) } { code { (id) } },
            None => code { (id) },
        }
    }
}
