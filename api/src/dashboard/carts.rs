//! `/carts`: the list of carts by status, and the search.

use axum::{Router, extract::State, response::Response, routing::get};
use chrono_tz::Tz;
use common::carts::{
    self, Cart, CartId, CartStatus,
    list::{Start, Totals},
    search::EmailToFind,
};
use maud::{Markup, html};

use super::{
    format,
    guard::go_to,
    page::{Page, PageError, Section},
    session::Operator,
};
use crate::{
    http::{base_path::at, error::ApiError, pagination, query::Parameters},
    state::AppState,
};

/// Carts per page.
const LIMIT: i64 = 25;

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/carts", get(show))
}

async fn show(
    State(state): State<AppState>,
    operator: Operator,
    parameters: Result<Parameters, ApiError>,
) -> Result<Response, PageError> {
    let (parameters, now) = (parameters?, state.clock.now());
    let status: Option<CartStatus> =
        parameters.parse("status", "abandoned, recovered or expired", |text| text.parse().ok())?;
    let wanted = parameters.get("q").map(str::trim).filter(|wanted| !wanted.is_empty());
    let page = pagination::Page { number: parameters.page()?, limit: LIMIT };
    if let Some(wanted) = wanted {
        return search(&state, &operator, wanted, page).await;
    }
    let mut conn = state.lookups.acquire().await?;
    let totals = carts::list::totals(&mut conn).await?;
    let total = totals.of(status);
    let found = if page.offset() >= total {
        Vec::new()
    } else {
        carts::list::page(&mut conn, status, Start::Offset(page.offset()), LIMIT, now).await?.carts
    };
    let body = html! {
        div.heading { h1 { "Carts" } (search_form("")) }
        (statuses(&totals, status))
        section.card aria-label="Carts" {
            @if found.is_empty() { p.muted { (if total > 0 { "No such page." } else if status.is_none() { "No carts yet." } else { "No carts with this status." }) } }
            @if totals.of(None) == 0 { (super::start::first_cart(&state.config.shared.public_url)) }
            @else { (table(&found, "Carts, newest first", operator.zone)) }
            (format::pages("/carts", &[("status", status.map(CartStatus::as_str))], page, total))
        }
    };
    Ok(Page { title: "Carts", section: Section::Carts, operator: &operator, live: "carts" }.show(&body))
}

/// Redirects to the cart with this id or the shop's id, or lists the carts with this e-mail address.
async fn search(
    state: &AppState,
    operator: &Operator,
    wanted: &str,
    page: pagination::Page,
) -> Result<Response, PageError> {
    let now = state.clock.now();
    let mut lookups = state.lookups.acquire().await?;
    if let Ok(id) = wanted.parse::<CartId>()
        && carts::find(&mut lookups, &id, now).await?.is_some()
    {
        return Ok(go_to(&format!("/carts/{id}")));
    }
    if let Some(id) = carts::search::find_external(&mut lookups, wanted).await? {
        return Ok(go_to(&format!("/carts/{id}")));
    }
    drop(lookups);
    let found = match wanted.parse::<EmailToFind>() {
        Ok(email) => {
            let (start, mut conn) = (Start::Offset(page.offset()), state.database.acquire().await?);
            Some(carts::search::by_email(&mut conn, &email, None, start, page.limit, now).await?)
        }
        Err(_) => None,
    };
    let body = html! {
        div.heading { h1 { "Carts" } (search_form(wanted)) }
        section.card {
            @match found.filter(|found| found.total > 0) {
                Some(found) => {
                    p { (format::count(found.total)) @if found.total == 1 { " cart for " } @else { " carts for " } strong { bdi { (wanted) } } ". " a href=(at("/carts")) { "All carts" } }
                    (table(&found.page.carts, "Carts that were found, newest first", operator.zone))
                    (format::pages("/carts", &[("q", Some(wanted))], page, found.total))
                }
                None => {
                    p { "No cart matches " strong { bdi { (wanted) } } ". Enter a full email address, cart ID or shop's ID." }
                    p { a href=(at("/carts")) { "All carts" } }
                }
            }
        }
    };
    Ok(Page { title: "Search", section: Section::Carts, operator, live: "" }.show(&body))
}

fn search_form(value: &str) -> Markup {
    html! {
        form.search role="search" method="get" action=(at("/carts")) {
            label.visually-hidden for="q" { "Search carts by ID, the shop's ID or email" }
            input #q type="search" name="q" value=(value) placeholder="Cart ID or email" autocomplete="off" maxlength="254" dir="auto";
            button.button type="submit" { "Search" }
        }
    }
}

fn statuses(totals: &Totals, chosen: Option<CartStatus>) -> Markup {
    let choices = [
        (None, "All"),
        (Some(CartStatus::Abandoned), "Abandoned"),
        (Some(CartStatus::Recovered), "Recovered"),
        (Some(CartStatus::Expired), "Expired"),
    ];
    html! {
        nav aria-label="Status" { ul.tabs {
            @for (status, name) in choices {
                li { a href={ (at("/carts")) (format::query(&[("status", status.map(CartStatus::as_str))])) }
                    aria-current=[(status == chosen).then_some("true")] {
                    (name) " " span.count { (format::count(totals.of(status))) }
                } }
            }
        } }
    }
}

/// A table of carts; each whole row is a link.
pub(crate) fn table(carts: &[Cart], caption: &str, zone: Tz) -> Markup {
    html! {
        table.rows {
            caption.visually-hidden { (caption) }
            thead { tr {
                th scope="col" { "Customer" } th scope="col" { "Status" }
                th.wide-only scope="col" { "Abandoned" } th.number scope="col" { "Value" }
            } }
            tbody { @for cart in carts { tr id={ "row-" (cart.id) } {
                th scope="row" {
                    a.cover dir="auto" href={ (at("/carts/")) (cart.id) } { (cart.customer()) }
                    div.parts.muted.small {
                        span.narrow-only { (format::instant(cart.abandoned_at, zone)) }
                        @if cart.customer_name.is_some() { span.ellipsis dir="auto" { (cart.customer_email) } }
                        @if let Some(id) = &cart.external_id { span.ellipsis { span.wide-only { "Shop's ID " } bdi { (id) } } }
                    }
                }
                td { (format::cart_status(cart.status)) }
                td.wide-only { (format::instant(cart.abandoned_at, zone)) }
                td.number { (format::money(cart.total_value, cart.currency)) }
            } } }
        }
    }
}
