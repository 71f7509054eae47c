//! `/carts`: the list, by status, and the search.

use axum::{Router, extract::State, response::Response, routing::get};
use common::{
    cart_list::{self, Start, Totals},
    carts::{self, Cart, CartId, CartStatus},
    db::Connection,
};
use maud::{Markup, html};

use super::{
    format,
    guard::{Operator, go_to},
    page::{self, Page, PageError, Section},
};
use crate::{AppState, error::ApiError, pagination, query::Parameters};

/// Carts on a page.
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
    let mut conn = state.by_key.acquire().await?;
    if let Some(wanted) = wanted {
        return match search(&mut conn, wanted).await? {
            Some(id) => Ok(go_to(&format!("/carts/{id}"))),
            None => Ok(nothing_found(&operator, wanted)),
        };
    }
    let page = pagination::Page { number: parameters.page()?, limit: LIMIT };
    let totals = cart_list::totals(&mut conn).await?;
    let total = totals.of(status);
    let found = if page.offset() >= total {
        Vec::new()
    } else {
        cart_list::page(&mut conn, status, Start::Offset(page.offset()), LIMIT, now).await?.carts
    };
    let last = total.unsigned_abs().div_ceil(LIMIT.unsigned_abs()).cast_signed();
    let body = html! {
        (page::notice(parameters.get("deleted").map(|_| "The cart is deleted, and its shopper's data with it.")))
        div.heading { h1 { "Carts" } (search_form("")) }
        (statuses(&totals, status))
        section.card aria-label="Carts" {
            @if found.is_empty() { p.muted { "No carts here." } }
            @else { (table(&found, "Carts, newest first")) }
            (format::pages("/carts", &[("status", status.map(CartStatus::as_str))], page.number, last))
        }
    };
    Ok(Page { title: "Carts", section: Section::Carts, operator: &operator, live: "carts" }.show(&body))
}

/// The cart that somebody means: by its id. A search by e-mail address has its place here.
async fn search(conn: &mut Connection, wanted: &str) -> Result<Option<CartId>, PageError> {
    let Ok(id) = wanted.parse::<CartId>() else { return Ok(None) };
    let there = carts::find_many(conn, &[id.as_str()], chrono::DateTime::UNIX_EPOCH).await?;
    Ok((!there.is_empty()).then_some(id))
}

fn nothing_found(operator: &Operator, wanted: &str) -> Response {
    let body = html! {
        div.heading { h1 { "Carts" } (search_form(wanted)) }
        section.card { p { "No cart is known as " strong { (wanted) } "." } p { a href="/carts" { "All carts" } } }
    };
    Page { title: "Search", section: Section::Carts, operator, live: "" }.show(&body)
}

fn search_form(value: &str) -> Markup {
    html! {
        form.search role="search" method="get" action="/carts" {
            label.visually-hidden for="q" { "Find a cart by its id" }
            input #q type="search" name="q" value=(value) placeholder="cart_…" autocomplete="off" maxlength="320";
            button.button type="submit" { "Find" }
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
                li { a href={ "/carts" (format::query(&[("status", status.map(CartStatus::as_str))])) }
                    aria-current=[(status == chosen).then_some("true")] {
                    (name) " " span.count { (format::count(totals.of(status))) }
                } }
            }
        } }
    }
}

/// Carts as rows, the whole of each a link.
pub(crate) fn table(carts: &[Cart], caption: &str) -> Markup {
    html! {
        table.rows {
            caption.visually-hidden { (caption) }
            thead { tr {
                th scope="col" { "Customer" } th scope="col" { "Status" }
                th.wide-only scope="col" { "Abandoned" } th.number scope="col" { "Value" }
            } }
            tbody { @for cart in carts { tr {
                th scope="row" {
                    a.cover href={ "/carts/" (cart.id) } { (cart.customer_name) }
                    span.muted.small.ellipsis { (cart.customer_email) }
                }
                td { (format::cart_status(cart.status)) }
                td.wide-only { (format::instant(cart.abandoned_at)) }
                td.number { (format::money(cart.total_value, cart.currency)) }
            } } }
        }
    }
}
