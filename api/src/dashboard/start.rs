//! `/start`: a shop's first steps, each with the request to send, and which of them work.

use axum::{Router, extract::State, http::StatusCode, response::Response, routing::get};
use chrono::Days;
use common::{
    api_keys::Scope,
    db::Connection,
    first_steps::{FirstSteps, first_steps},
    refused_webhooks::{self, Refused},
};
use maud::{Markup, html};

use super::{
    format,
    page::{self, PageError},
    session::Operator,
};
use crate::{http::base_path::at, state::AppState};

/// Days for which refused webhooks are shown, as under "Needs attention".
const REFUSED_DAYS: u64 = 7;
/// The events to subscribe to at Stripe; `docs/operations.md` says what each is for.
const EVENTS: [&str; 9] = [
    "checkout.session.completed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.async_payment_failed",
    "checkout.session.expired",
    "payment_intent.succeeded",
    "charge.refunded",
    "charge.dispute.created",
    "charge.dispute.closed",
    "refund.failed",
];

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/start", get(show))
}

async fn show(State(state): State<AppState>, operator: Operator) -> Result<Response, PageError> {
    let mut conn = state.database.acquire().await?;
    let steps = first_steps(&mut conn).await?;
    let refused = refused(&mut conn, &operator).await?;
    let may_write = state.keys.known(operator.session.key).is_some_and(|key| key.scopes.has(Scope::Write));
    let url = &state.config.shared.public_url;
    let body = html! {
        div.heading { h1 { "Getting started" } }
        ol.steps {
            (step("key", "API key", may_write, &key(may_write)))
            (step("cart", "First cart", steps.newest_cart.is_some(), &first_cart(url)))
            (step("link", "First payment link", steps.has_session, &first_link(url, &steps)))
            (step("webhook", "Webhook at Stripe", steps.last_webhook_at.is_some(), &webhook(url, &steps, refused, &operator)))
        }
    };
    Ok(page::framed(StatusCode::OK, "Getting started", &operator, None, "carts jobs", &body))
}

async fn refused(conn: &mut Connection, operator: &Operator) -> sqlx::Result<Option<Refused>> {
    let since = operator.now.date_naive().checked_sub_days(Days::new(REFUSED_DAYS - 1)).unwrap_or_default();
    refused_webhooks::since(conn, since).await
}

/// A step, with a check mark once it works.
fn step(id: &str, title: &str, works: bool, body: &Markup) -> Markup {
    html! {
        li.card id={ "step-" (id) } {
            h2 {
                (title) " "
                span data-announce=(title) {
                    @if works { span.badge.done { span aria-hidden="true" { "✓ " } "Works" } }
                    @else { span.badge { "To do" } }
                }
            }
            (body)
        }
    }
}

fn key(may_write: bool) -> Markup {
    html! {
        @if may_write { p { "The key with which you signed in may store carts. Give your shop a key of its own:" } }
        @else { p { "The key with which you signed in may not store carts. Create one that may:" } }
        (format::command("create-key", "api keys add shop --scope read,write"))
        p.muted.small { "It prints the key once. With " code { "cargo run" } " or Docker Compose, use a key of " code { "API_KEY" } " instead." }
    }
}

/// The request that stores a first cart.
pub(crate) fn first_cart(public_url: &str) -> Markup {
    let curl = format!(
        "curl -X POST {public_url}/api/carts -H 'x-api-key: YOUR_KEY' -H 'content-type: application/json' \
         -d '{{\"customerEmail\": \"ada@example.com\", \"customerName\": \"Ada Lovelace\", \
         \"items\": [{{\"name\": \"Teapot\", \"quantity\": 2, \"price\": 49.99}}]}}'"
    );
    html! {
        p { "Send an abandoned cart:" }
        (format::command("store-cart", &curl))
        p.muted.small { a href=(at("/docs")) { "API reference" } " · Import older carts with " code { "POST /api/carts/import" } "." }
    }
}

fn first_link(public_url: &str, steps: &FirstSteps) -> Markup {
    let id = steps.newest_cart.as_deref().unwrap_or("CART_ID");
    let curl = format!("curl -X POST {public_url}/api/carts/{id}/payment-link -H 'x-api-key: YOUR_KEY'");
    html! {
        p { "Request the cart's link. The response has " code { "recoveryUrl" } ", the address for your emails:" }
        (format::command("request-link", &curl))
        @if let Some(id) = &steps.newest_cart { p { a href={ (at("/carts/")) (id) } { "The newest cart" } } }
        @if !steps.has_session { p.muted.small {
            "Works once Stripe has created a checkout. Until then, the cart's page and "
            a href=(at("/jobs?queue=payment-links")) { "its jobs" } " show what is missing."
        } }
    }
}

fn webhook(public_url: &str, steps: &FirstSteps, refused: Option<Refused>, operator: &Operator) -> Markup {
    html! {
        p { "Add a webhook endpoint in Stripe's dashboard, with this address and these events, and set its secret as " code { "STRIPE_WEBHOOK_SECRET" } ":" }
        (format::command("webhook-url", &format!("{public_url}/api/webhooks/stripe")))
        ul.events { @for event in EVENTS { li { code { (event) } } } }
        @match steps.last_webhook_at {
            Some(at) => p.muted.small { "The last webhook of Stripe's arrived " (format::relative(at, operator.now, operator.zone)) "." },
            None => p.muted.small { "Works once a verified webhook has arrived, for example after a payment." },
        }
        @if let Some(refused) = refused.filter(|refused| steps.last_webhook_at.is_none_or(|at| at < refused.last_at)) {
            p.problem {
                (format::count(refused.count)) @if refused.count == 1 { " webhook" } @else { " webhooks" }
                " failed verification within seven days, the last " (format::relative(refused.last_at, operator.now, operator.zone))
                ". If Stripe sent them, STRIPE_WEBHOOK_SECRET doesn't match."
            }
        }
    }
}
