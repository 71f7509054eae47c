//! `/carts/{id}`: one cart and its actions.

use axum::{Router, extract::State, response::Response, routing::get};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use common::{
    carts::{self, Cart, CartStatus},
    json,
    money::Currency,
    payment_links::{self, LinkStatus, PaymentLink, recovery::RecoveryLink},
    timeline,
};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    cart_actions::done,
    format,
    page::{self, Page, PageError, Section},
    session::Operator,
    timeline as timeline_section,
};
use crate::{
    http::{error::ApiError, query::Parameters},
    routes::carts::CartPath,
    state::AppState,
};

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/carts/{id}", get(show))
}

async fn show(
    State(state): State<AppState>,
    operator: Operator,
    path: Result<CartPath, ApiError>,
    parameters: Result<Parameters, ApiError>,
) -> Result<Response, PageError> {
    let (CartPath(id), parameters, now) = (path?, parameters?, state.clock.now());
    let mut conn = state.lookups.acquire().await?;
    let cart = carts::find(&mut conn, &id, now).await?.ok_or_else(ApiError::cart_not_found)?;
    let link = payment_links::latest(&mut conn, id.as_str()).await?;
    let recovery = payment_links::recovery::find(&mut conn, &id).await?;
    let told = timeline::page(&mut conn, &id, None, timeline_section::LIMIT).await?;
    let told = told.ok_or_else(ApiError::cart_not_found)?;
    let body = html! {
        (page::notice(parameters.get("done").and_then(done)))
        nav.crumbs aria-label="Breadcrumbs" { a href="/carts" { "Carts" } }
        div.heading {
            div {
                h1 { (cart.customer()) " " span data-announce="Cart" { (format::cart_status(cart.status)) } }
                p.muted.ellipsis { a href={ "mailto:" (cart.customer_email) } { (cart.customer_email) } }
            }
            p.value { (format::money(cart.total_value, cart.currency)) }
        }
        div.columns.uneven {
            div.stack {
                (items(&cart))
                (link_panel(&state, &operator, &cart, link.as_ref(), recovery.as_ref(), now))
            }
            div.stack {
                (actions(&operator, &cart))
                (timeline_section::section(cart.abandoned_at, &told, operator.zone))
                (details(&cart, operator.zone))
            }
        }
    };
    // While a link is being made, its progress shows in its job.
    let live = match link.map(|link| link.status) {
        Some(LinkStatus::Pending | LinkStatus::Closing | LinkStatus::Settling) => format!("{id} carts jobs"),
        _ => format!("{id} carts"),
    };
    Ok(Page { title: cart.customer(), section: Section::Carts, operator: &operator, live: &live }.show(&body))
}

/// One of the cart's `items`, as stored.
#[derive(Debug, Deserialize)]
struct Item {
    name: String,
    quantity: i64,
    price: Box<RawValue>,
}

fn items(cart: &Cart) -> Markup {
    // Items are validated when a cart is created, but an operator may have stored anything by SQL.
    let items: Vec<Item> = serde_json::from_str(cart.items.get()).unwrap_or_default();
    let minor = |price: &RawValue| json::number(price).and_then(|price| cart.currency.to_minor(price));
    let amount = |minor: Option<i64>| minor.map(|minor| format::amount(cart.currency.amount(minor)));
    html! {
        section.card aria-labelledby="items" {
            h2 #items { "Items" }
            table {
                caption.visually-hidden { "What is in the cart" }
                thead { tr {
                    th scope="col" { "Item" } th.number scope="col" { "Quantity" }
                    th.number.wide-only scope="col" { "Price" } th.number scope="col" { "Sum" }
                } }
                tbody { @for item in &items { tr {
                    th scope="row" { (item.name) }
                    td.number { (format::count(item.quantity)) }
                    td.number.wide-only { (amount(minor(&item.price)).unwrap_or_default()) }
                    td.number { (amount(minor(&item.price).and_then(|price| price.checked_mul(item.quantity))).unwrap_or_default()) }
                } } }
                tfoot { tr {
                    th scope="row" { "Total" } td {} td.wide-only {}
                    td.number { (total(cart, cart.currency)) }
                } }
            }
        }
    }
}

fn total(cart: &Cart, currency: Currency) -> Markup {
    html! { strong { (format::money(cart.total_value, currency)) } }
}

fn link_panel(
    state: &AppState,
    operator: &Operator,
    cart: &Cart,
    link: Option<&PaymentLink>,
    recovery: Option<&RecoveryLink>,
    now: DateTime<Utc>,
) -> Markup {
    let recovery = recovery.filter(|link| link.expires_at > now && cart.status == CartStatus::Abandoned);
    let live = link.filter(|link| link.is_live(now) && cart.status == CartStatus::Abandoned);
    let pending = link.is_some_and(|link| link.status == LinkStatus::Pending);
    html! {
        section.card aria-labelledby="link" {
            h2 #link { "Payment link" }
            p data-announce="Payment link" { (link_state(link, live.is_some())) }
            @if let Some(recovery) = recovery {
                (copyable("recovery-url", "For the shopper, in a mail", &format!("{}/pay/{}", state.config.shared.public_url, recovery.token)))
                p.muted.small { "Works until " (format::instant(recovery.expires_at, operator.zone)) ", and leads to a checkout that is open." }
            }
            @if let Some((live, url)) = live.and_then(|live| Some((live, live.url.as_ref()?))) {
                (copyable("payment-url", "The checkout at Stripe", url))
                p.muted.small { "Open until " (format::instant(live.session_expires_at, operator.zone)) ". "
                    a #open-checkout href=(url) rel="noreferrer" { "Open it" } }
            }
            @if cart.status == CartStatus::Abandoned && live.is_none() && !pending {
                (operator.button(&format!("/carts/{}/link", cart.id), "primary", "Make a link"))
            }
            @if let Some(link) = link.filter(|link| link.status == LinkStatus::Pending) {
                p { a href={ "/jobs/" (link.job_id) } { "Its job" } }
            }
        }
    }
}

/// The state of the link, in a sentence.
fn link_state(link: Option<&PaymentLink>, live: bool) -> Markup {
    let Some(link) = link else { return html! { span.muted { "No link was requested." } } };
    let refused = |text: &str| html! { (text) @if let Some(why) = link.refusal() { ": " span.problem { (why) } } };
    match link.status {
        LinkStatus::Open if live => html! { "Ready to be paid." },
        LinkStatus::Pending => html! { "Being made …" },
        LinkStatus::Open | LinkStatus::Closed => refused("The last one is closed"),
        LinkStatus::Closing | LinkStatus::Settling => refused("The last one is being closed"),
        LinkStatus::Processing => html! { "A payment is in progress." },
        LinkStatus::Paid => html! { "Paid." },
        LinkStatus::PaymentFailed => html! { "The payment failed. Make a new link." },
        LinkStatus::Failed => refused("It could not be made"),
    }
}

/// A read-only field with text to copy; the button needs JavaScript.
fn copyable(id: &str, label: &str, text: &str) -> Markup {
    html! {
        label.field-label for=(id) { (label) }
        div.copyable {
            input id=(id) type="text" readonly value=(text);
            button.button type="button" data-copy=(id) hidden { "Copy" }
        }
    }
}

fn actions(operator: &Operator, cart: &Cart) -> Markup {
    let path = |action: &str| format!("/carts/{}/{action}", cart.id);
    html! {
        section.card aria-labelledby="actions" {
            h2 #actions { "Actions" }
            div.actions {
                @if cart.status != CartStatus::Recovered { a.button href=(path("recover")) { "Mark recovered" } }
                @match cart.status {
                    CartStatus::Abandoned => (operator.button(&path("expire"), "", "Expire")),
                    CartStatus::Expired => (operator.button(&path("reopen"), "", "Reopen")),
                    CartStatus::Recovered => {}
                }
                a.button.danger href=(path("delete")) { "Delete" }
            }
        }
    }
}

fn details(cart: &Cart, zone: Tz) -> Markup {
    html! {
        section.card aria-labelledby="details" {
            h2 #details { "Details" }
            dl.details {
                dt { "Id" } dd { code { (cart.id) } }
                dt { "Abandoned" } dd { (format::instant(cart.abandoned_at, zone)) }
                dt { "Recovered" } dd { (format::maybe_instant(cart.recovered_at, zone)) }
                dt { "Expired" } dd { (format::maybe_instant(cart.expired_at, zone)) }
                dt { "Stored" } dd { (format::instant(cart.created_at, zone)) }
                dt { "Last change" } dd { (format::instant(cart.updated_at, zone)) }
            }
        }
    }
}
