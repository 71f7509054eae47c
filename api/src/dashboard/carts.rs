//! `/carts`: the list of carts, with a search and filters.

use axum::{Router, extract::State, response::Response, routing::get};
use chrono_tz::Tz;
use common::{
    analytics,
    carts::{
        self, Cart, CartId, CartStatus,
        filter::{FEW, Filter},
        list::{CartPage, Sort, SortKey, Start, Totals},
    },
};
use maud::{Markup, html};

use super::{
    cart_filters::Choice,
    carts_at_once::Action,
    format,
    guard::go_to,
    page::{Page, PageError, Section},
    session::Operator,
};
use crate::{
    http::{base_path::at, error::ApiError, pagination, query::Parameters},
    routes::carts::export,
    state::AppState,
};

/// Carts per page.
const LIMIT: i64 = 25;

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/carts", get(show)).route("/carts/export", get(export_csv))
}

async fn show(
    State(state): State<AppState>,
    operator: Operator,
    parameters: Result<Parameters, ApiError>,
) -> Result<Response, PageError> {
    let parameters = parameters?;
    if let Some(id) = named(&state, &parameters).await? {
        return Ok(go_to(&format!("/carts/{id}")));
    }
    let choice = Choice::of(&parameters, operator.zone)?;
    let page = pagination::Page { number: parameters.page()?, limit: LIMIT };
    let mut conn = state.lookups.acquire().await?;
    let totals = carts::list::totals(&mut conn).await?;
    let currencies = analytics::currencies(&mut conn).await?;
    drop(conn);
    let Listed { carts, total, is_exact } = list(&state, &choice, page, &totals).await?;
    let body = html! {
        div.heading {
            h1 { "Carts" }
            div.tools { (search_form(choice.filter.text.as_ref().map(|text| text.as_str()), &choice.hidden(&["q"]))) (choice.form(&currencies)) }
        }
        (statuses(&totals, &choice))
        section.card aria-label="Carts" {
            div.heading {
                p.muted { (counted(&choice, total, is_exact, operator.zone)) }
                @if total > 0 && operator.may_change {
                    a.button href={ (at("/carts/export")) (format::query(&choice.pairs())) } download { "Export CSV" }
                }
            }
            @if totals.of(None) == 0 { (super::start::first_cart(&state.config.shared.public_url)) }
            @else if carts.is_empty() && total > 0 { p.muted { "No such page." } }
            @else if !carts.is_empty() { (selectable(&carts, &choice, &operator)) }
            (format::pages("/carts", &choice.pairs(), page, total))
        }
    };
    Ok(Page { title: "Carts", section: Section::Carts, operator: &operator, live: "carts" }.show(&body))
}

/// The cart whose whole id, or whole id at the shop, was searched for.
async fn named(state: &AppState, parameters: &Parameters) -> Result<Option<CartId>, ApiError> {
    let Some(text) = parameters.get("q").map(str::trim).filter(|text| !text.is_empty()) else { return Ok(None) };
    let mut conn = state.lookups.acquire().await?;
    if let Ok(id) = text.parse::<CartId>()
        && carts::find(&mut conn, &id, state.clock.now()).await?.is_some()
    {
        return Ok(Some(id));
    }
    Ok(carts::search::find_external(&mut conn, text).await?.and_then(|id| id.parse().ok()))
}

/// A page of the list, and its length.
struct Listed {
    carts: Vec<Cart>,
    total: i64,
    /// Whether the list is as long as `total`, not longer.
    is_exact: bool,
}

async fn list(
    state: &AppState,
    choice: &Choice<'_>,
    page: pagination::Page,
    totals: &Totals,
) -> Result<Listed, ApiError> {
    let (filter, start) = (&choice.filter, Start::Offset(page.offset()));
    if filter.is_status_only() && choice.sort == Sort::default() {
        let total = totals.of(filter.status);
        let carts = if page.offset() >= total {
            Vec::new()
        } else {
            let mut conn = state.lookups.acquire().await?;
            carts::list::page(&mut conn, filter.status, start, LIMIT, state.clock.now()).await?.carts
        };
        return Ok(Listed { carts, total, is_exact: true });
    }
    let (_permit, database) = state.dashboard_searches.begin(&state.database).await?;
    let mut tx = carts::filter::begin(&database).await?;
    let mut query = filter.read(&mut tx, choice.sort, state.clock.now()).await?;
    state.upkeep.before_running(&query)?;
    // More are not counted, so that a page is fast at a million carts.
    let counted = query.count_few(&mut tx).await?;
    let CartPage { carts, next } = query.page(&mut tx, start, LIMIT).await?;
    tx.commit().await?;
    // Beyond the counted ones, there is at least the next page.
    let shown = i64::try_from(carts.len()).unwrap_or(0);
    let known = if shown == 0 { 0 } else { page.offset().saturating_add(shown) + i64::from(next.is_some()) };
    Ok(Listed { carts, total: counted.unwrap_or(FEW + 1).max(known), is_exact: counted.is_some() })
}

fn counted(choice: &Choice<'_>, total: i64, is_exact: bool, zone: Tz) -> Markup {
    let words = choice.words(zone);
    html! {
        @if !is_exact { "More than " (format::count(FEW)) } @else { (format::count(total)) }
        @if total == 1 { " cart" } @else { " carts" }
        @if let Some(text) = &choice.filter.text { " for “" bdi { (text.as_str()) } "”" }
        @for word in &words { " · " (word) }
        @if !words.is_empty() || choice.filter.text.is_some() { " · " a href=(at("/carts")) { "Clear" } }
    }
}

/// The search of the list. `filters` are inputs that keep its other filters.
pub(crate) fn search_form(text: Option<&str>, filters: &Markup) -> Markup {
    html! {
        form.search role="search" method="get" action=(at("/carts")) {
            (filters)
            label.visually-hidden for="q" { "Search carts by name, email, order number or cart ID" }
            input #q type="search" name="q" value=[text] placeholder="Name, email, order or cart ID" autocomplete="off" minlength="2" maxlength="254" dir="auto";
            button.button type="submit" { "Search" }
        }
    }
}

/// The statuses to choose from; the other filters stay.
fn statuses(totals: &Totals, choice: &Choice<'_>) -> Markup {
    let counts = choice.filter.text.is_none() && !choice.has_filters();
    let choices = [
        (None, "All"),
        (Some(CartStatus::Abandoned), "Abandoned"),
        (Some(CartStatus::Recovered), "Recovered"),
        (Some(CartStatus::Expired), "Expired"),
    ];
    html! {
        nav aria-label="Status" { ul.tabs {
            @for (status, name) in choices {
                li { a href={ (at("/carts")) (format::query(&choice.with_status(status))) }
                    aria-current=[(status == choice.filter.status).then_some("true")] {
                    (name) @if counts { " " span.count { (format::count(totals.of(status))) } }
                } }
            }
        } }
    }
}

/// Sends the carts that match, all of them, as CSV.
async fn export_csv(
    State(state): State<AppState>,
    operator: Operator,
    parameters: Result<Parameters, ApiError>,
) -> Result<Response, PageError> {
    operator.check_may_change()?;
    let parameters = parameters?;
    let filter: Filter = Choice::of(&parameters, operator.zone)?.filter;
    Ok(export::csv(&state, filter).await?)
}

/// The table; for operators with a box for each cart, and the actions on those that are checked.
fn selectable(carts: &[Cart], choice: &Choice<'_>, operator: &Operator) -> Markup {
    if !operator.may_change {
        return table(carts, "Carts", choice.date, operator.zone, false);
    }
    html! {
        form method="get" action=(at("/carts/selected")) {
            (choice.hidden(&[]))
            (table(carts, "Carts", choice.date, operator.zone, true))
            div.actions.below {
                @for action in Action::ALL.into_iter().filter(|action| carts.iter().any(|cart| action.fits(cart))) {
                    button.button type="submit" name="action" value=(action.name()) { (action.button()) }
                }
            }
        }
    }
}

/// A table of carts; each whole row is a link.
pub(crate) fn table(carts: &[Cart], caption: &str, date: SortKey, zone: Tz, boxes: bool) -> Markup {
    let heading = match date {
        SortKey::AbandonedAt => "Abandoned",
        SortKey::RecoveredAt => "Recovered",
        SortKey::CreatedAt | SortKey::TotalValue => "Created",
    };
    let shown = |cart: &Cart| match date {
        SortKey::AbandonedAt => Some(cart.abandoned_at),
        SortKey::RecoveredAt => cart.recovered_at,
        SortKey::CreatedAt | SortKey::TotalValue => Some(cart.created_at),
    };
    html! {
        table.rows {
            caption.visually-hidden { (caption) }
            thead { tr {
                th scope="col" { "Customer" } th scope="col" { "Status" }
                th.wide-only scope="col" { (heading) } th.number scope="col" { "Value" }
            } }
            tbody { @for cart in carts { tr id={ "row-" (cart.id) } {
                th scope="row" { div.picked {
                    @if boxes {
                        input.above type="checkbox" name="id" value=(cart.id) aria-label={ "Select " (cart.customer()) };
                    }
                    div {
                        a.cover dir="auto" href={ (at("/carts/")) (cart.id) } { (cart.customer()) }
                        div.parts.muted.small {
                            span.narrow-only { (heading) " " (format::maybe_instant(shown(cart), zone)) }
                            @if cart.customer_name.is_some() { span.ellipsis dir="auto" { (cart.customer_email) } }
                            @if let Some(id) = &cart.external_id { span.ellipsis { span.wide-only { "Shop's ID " } bdi { (id) } } }
                        }
                    }
                } }
                td { (format::cart_status(cart.status)) }
                td.wide-only { (format::maybe_instant(shown(cart), zone)) }
                td.number { (format::money(cart.total_value, cart.currency)) }
            } } }
        }
    }
}
