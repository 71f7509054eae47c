//! `/carts/{id}`: one cart and its actions.

use axum::{Router, extract::State, response::Response, routing::get};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use common::{
    carts::{self, Cart, CartStatus, RecoveredBy},
    money::{Currency, Unchargeable},
    payment_links::{self, LinkStatus, PaymentLink, recovery::RecoveryLink},
    timeline,
};
use maud::{Markup, html};

use super::{
    cart_actions::done,
    cart_contents, format,
    page::{self, Page, PageError, Section},
    session::Operator,
    timeline as timeline_section,
};
use crate::{
    http::{base_path::at, error::ApiError, query::Parameters},
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
    let in_progress = payment_links::is_processing(&mut conn, id.as_str()).await?;
    let recovery = payment_links::recovery::find(&mut conn, &id).await?;
    let told = timeline::page(&mut conn, &id, None, timeline_section::LIMIT).await?;
    let told = told.ok_or_else(ApiError::cart_not_found)?;
    let body = html! {
        (page::notice(parameters.get("done").and_then(done)))
        nav.crumbs aria-label="Breadcrumbs" { a href=(at("/carts")) { "Carts" } }
        div.heading {
            div {
                h1 {
                    @match &cart.customer_name { Some(name) => bdi { (name) }, None => span.muted { "No name" } }
                    " " span data-announce="Cart" { (format::cart_status(cart.status)) }
                }
                p.muted { a href=(format::mailto(&cart.customer_email)) { bdi { (cart.customer_email) } } }
            }
            p.value { (format::money(cart.total_value, cart.currency)) }
        }
        div.columns.uneven {
            div.stack {
                (cart_contents::items(&cart))
                (link_panel(&state, &operator, &cart, Links { latest: link.as_ref(), in_progress, recovery: recovery.as_ref() }, now))
            }
            div.stack {
                (actions(&operator, &cart))
                (timeline_section::section(cart.abandoned_at, &told, operator.zone))
                (details(&cart, operator.zone))
                (cart_contents::metadata(&cart))
            }
        }
    };
    // While a link is being made, its progress shows in its job.
    let live = match link.map(|link| link.status) {
        Some(LinkStatus::Pending | LinkStatus::Closing | LinkStatus::Settling) => format!("{id} carts jobs"),
        _ => format!("{id} carts"),
    };
    let title = format::isolated(cart.customer());
    Ok(Page { title: &title, section: Section::Carts, operator: &operator, live: &live }.show(&body))
}

/// How a cart can be paid.
#[derive(Clone, Copy)]
struct Links<'a> {
    /// The newest payment link.
    latest: Option<&'a PaymentLink>,
    /// Whether a payment by any of the cart's links is in progress.
    in_progress: bool,
    recovery: Option<&'a RecoveryLink>,
}

fn link_panel(state: &AppState, operator: &Operator, cart: &Cart, links: Links<'_>, now: DateTime<Utc>) -> Markup {
    let abandoned = cart.status == CartStatus::Abandoned;
    let refusal = cart.currency.check_chargeable(cart.total_value.minor()).err().filter(|_| abandoned);
    let link = links.latest;
    let recovery = links.recovery.filter(|link| link.expires_at > now && abandoned && refusal.is_none());
    let live = link.filter(|link| link.is_live(now) && abandoned);
    let pending = link.is_some_and(|link| link.status == LinkStatus::Pending);
    let startable = abandoned && live.is_none() && !pending && !links.in_progress;
    html! {
        section.card aria-labelledby="link" {
            h2 #link { "Payment link" }
            p data-announce="Payment link" { (link_state(links, live.is_some())) }
            @if let Some(recovery) = recovery {
                (copyable("recovery-url", "For the shopper, in a mail", &recovery.url(&state.config.shared.public_url)))
                p.muted.small { "Works until " (format::instant(recovery.expires_at, operator.zone)) ", and leads to the open checkout, or else to a new one." }
            }
            @if let Some((live, url)) = live.and_then(|live| Some((live, live.url.as_ref()?))) {
                (copyable("payment-url", "The checkout at Stripe", url))
                p.muted.small { "Open until " (format::instant(live.session_expires_at, operator.zone)) ". "
                    a #open-checkout href=(url) rel="noreferrer" { "Open it" } }
            }
            @match refusal {
                Some(why) => p { (unchargeable(&why, cart.currency)) },
                None => @if startable { (operator.button(&format!("/carts/{}/link", cart.id), "primary", "Make a link")) },
            }
            @if let Some(link) = link.filter(|link| link.status == LinkStatus::Pending) {
                p { a href={ (at("/jobs/")) (link.job_id) } { "Its job" } }
            }
        }
    }
}

/// The state of the link, in a sentence.
fn link_state(links: Links<'_>, live: bool) -> Markup {
    let Some(link) = links.latest else { return html! { span.muted { "No link was requested." } } };
    if links.in_progress {
        return html! { "A payment is in progress." };
    }
    let refused = |text: &str| html! { (text) @if let Some(why) = link.refusal() { ": " bdi.problem { (why) } } };
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

/// The reason why Stripe can't charge the total.
fn unchargeable(why: &Unchargeable, currency: Currency) -> String {
    let code = currency.code().to_ascii_uppercase();
    match why {
        Unchargeable::Currency(_) => format!("Stripe does not charge {code}, so that no link can be made."),
        Unchargeable::TooLittle(minimum) => {
            format!(
                "The total is below Stripe's minimum of {}, so that no link can be made.",
                currency.format(*minimum)
            )
        }
        Unchargeable::TooMuch(maximum) => {
            format!(
                "The total is above Stripe's maximum of {}, so that no link can be made.",
                currency.format(*maximum)
            )
        }
        Unchargeable::TooFine => {
            format!("Stripe takes two decimals of {code}, and the total has three, so that no link can be made.")
        }
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
                @if cart.status != CartStatus::Recovered { a.button href=(at(&path("recover"))) { "Mark recovered" } }
                @match cart.status {
                    CartStatus::Abandoned => (operator.button(&path("expire"), "", "Expire")),
                    CartStatus::Expired => (operator.button(&path("reopen"), "", "Reopen")),
                    CartStatus::Recovered => {}
                }
                a.button.danger href=(at(&path("delete"))) { "Delete" }
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
                dt { "Shop's id" } dd { (written(cart.external_id.as_deref())) }
                dt { "Language" } dd { (written(cart.locale.as_deref())) }
                dt { "Marketing" } dd { (consent(cart.accepts_marketing)) }
                dt { "Abandoned" } dd { (format::instant(cart.abandoned_at, zone)) }
                dt { "Recovered" } dd {
                    (format::maybe_instant(cart.recovered_at, zone))
                    @if let Some(by) = cart.recovered_by { span.muted.line { (recovered_by(by)) } }
                }
                dt { "Expired" } dd { (format::maybe_instant(cart.expired_at, zone)) }
                dt { "Stored" } dd { (format::instant(cart.created_at, zone)) }
                dt { "Last change" } dd { (format::instant(cart.updated_at, zone)) }
            }
        }
    }
}

/// A text of the shop, or a dash.
fn written(text: Option<&str>) -> Markup {
    html! { @match text { Some(text) => bdi { (text) }, None => span.muted { "–" } } }
}

fn consent(accepts_marketing: Option<bool>) -> &'static str {
    match accepts_marketing {
        Some(true) => "Agreed",
        Some(false) => "Not agreed",
        None => "Not known",
    }
}

fn recovered_by(by: RecoveredBy) -> &'static str {
    match by {
        RecoveredBy::Payment => "by payment",
        RecoveredBy::Manual => "by hand",
        RecoveredBy::Import => "imported",
    }
}
