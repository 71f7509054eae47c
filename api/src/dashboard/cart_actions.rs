//! Actions on a cart. Each calls the API's own handler; this module has the forms, and confirmation
//! pages for what can't be undone.

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::Response,
    routing::{get, post},
};
use common::carts::{self, Cart, CartId, CartStatus};
use maud::{Markup, html};

use super::{
    cart::{LinkState, Links},
    format,
    guard::{OurForm, go_to},
    page::{Page, PageError, Section},
    session::Operator,
};
use crate::{
    http::{base_path::at, error::ApiError, etag::IfMatch},
    routes::{
        carts::{self as api, CartPath},
        payment_links,
    },
    state::AppState,
};

/// The field of a form that a question has.
const CONFIRMED: &str = "confirmed";

pub(crate) fn router() -> Router<AppState> {
    Router::new()
        .route("/carts/{id}/link", post(make_link))
        .route("/carts/{id}/expire", get(ask_expire).post(expire))
        .route("/carts/{id}/reopen", post(reopen))
        .route("/carts/{id}/recover", get(ask_recover).post(recover))
        .route("/carts/{id}/delete", get(ask_delete).post(delete))
}

/// Waits a second for the link. If the worker takes longer, the page shows the link once it is
/// created.
const WAIT: HeaderValue = HeaderValue::from_static("wait=1");

async fn make_link(
    State(state): State<AppState>,
    path: Result<CartPath, ApiError>,
    form: OurForm,
) -> Result<Response, PageError> {
    let CartPath(id) = path?;
    let headers = HeaderMap::from_iter([(HeaderName::from_static("prefer"), WAIT)]);
    let asked = payment_links::ask(State(state), form.by.clone(), CartPath(id.clone()), headers).await?;
    let text = if asked.status() == StatusCode::OK { "Payment link created." } else { "Payment link requested." };
    Ok(form.done(&format!("/carts/{id}"), text))
}

/// Asks first if a shopper may be about to pay, unless the form is that of the question.
async fn expire(
    State(state): State<AppState>,
    path: Result<CartPath, ApiError>,
    form: OurForm,
) -> Result<Response, PageError> {
    let CartPath(id) = path?;
    let (_, links) = find(&state, &id).await?;
    if links.state.interrupts_shopper() && form.get(CONFIRMED).is_none() {
        return Ok(go_to(&format!("/carts/{id}/expire")));
    }
    let text = match links.state {
        LinkState::PaymentInProgress => {
            "Cart expired. The payment in progress goes on: if the money arrives, the cart is recovered."
        }
        LinkState::Live => "Cart expired. Its checkout at Stripe is being closed.",
        LinkState::Creating => "Cart expired. Its request for a payment link was withdrawn.",
        _ => "Cart expired.",
    };
    change(&state, &id, CartStatus::Expired, &form, text).await
}

async fn reopen(
    State(state): State<AppState>,
    path: Result<CartPath, ApiError>,
    form: OurForm,
) -> Result<Response, PageError> {
    let CartPath(id) = path?;
    let (cart, links) = find(&state, &id).await?;
    let text = if cart.status == CartStatus::Abandoned {
        "This cart is open already."
    } else if links.state == LinkState::PaymentInProgress {
        "Cart reopened."
    } else {
        "Cart reopened. Create a new payment link."
    };
    change(&state, &id, CartStatus::Abandoned, &form, text).await
}

async fn recover(
    State(state): State<AppState>,
    path: Result<CartPath, ApiError>,
    form: OurForm,
) -> Result<Response, PageError> {
    let CartPath(id) = path?;
    let (cart, _) = find(&state, &id).await?;
    let text = match cart.status {
        CartStatus::Recovered => "This cart is recovered already.",
        CartStatus::Abandoned | CartStatus::Expired => "Cart marked as recovered.",
    };
    change(&state, &id, CartStatus::Recovered, &form, text).await
}

async fn change(
    state: &AppState,
    id: &CartId,
    status: CartStatus,
    form: &OurForm,
    text: &str,
) -> Result<Response, PageError> {
    let change = api::change::ChangeRequest::status(status);
    api::change::apply(state, id, &IfMatch::anything(), &change, &form.by.0).await?;
    Ok(form.done(&format!("/carts/{id}"), text))
}

async fn delete(
    state: State<AppState>,
    path: Result<CartPath, ApiError>,
    form: OurForm,
) -> Result<Response, PageError> {
    api::delete(state, form.by.clone(), path?, IfMatch::anything()).await?;
    Ok(form.done("/carts", "Cart deleted, with the shopper's data."))
}

async fn ask_recover(
    State(state): State<AppState>,
    operator: Operator,
    path: Result<CartPath, ApiError>,
) -> Result<Response, PageError> {
    operator.check_may_change()?;
    let (cart, links) = find(&state, &path?.0).await?;
    if cart.status == CartStatus::Recovered {
        return Ok(go_to(&format!("/carts/{}", cart.id)));
    }
    let text = html! {
        "The cart will count as recovered and its payment link will be closed. You can't undo this." (still_paying(&links))
    };
    Ok(question(&operator, &cart, "recover", "Mark this cart as recovered?", &text, ("primary", "Mark recovered")))
}

async fn ask_expire(
    State(state): State<AppState>,
    operator: Operator,
    path: Result<CartPath, ApiError>,
) -> Result<Response, PageError> {
    operator.check_may_change()?;
    let (cart, links) = find(&state, &path?.0).await?;
    if cart.status != CartStatus::Abandoned {
        return Ok(go_to(&format!("/carts/{}", cart.id)));
    }
    let text = match links.state {
        LinkState::PaymentInProgress => {
            "A payment is in progress. Expiring the cart doesn't stop it: if the money arrives, the cart is recovered."
        }
        LinkState::Live => "The shopper may be paying right now. The checkout at Stripe will be closed.",
        LinkState::Creating => "A payment link is being created. It will be withdrawn.",
        _ => "The cart has no open checkout.",
    };
    Ok(question(&operator, &cart, "expire", "Expire this cart?", &html! { (text) }, ("danger", "Expire cart")))
}

async fn ask_delete(
    State(state): State<AppState>,
    operator: Operator,
    path: Result<CartPath, ApiError>,
) -> Result<Response, PageError> {
    operator.check_may_change()?;
    let (cart, links) = find(&state, &path?.0).await?;
    let text = html! {
        "This permanently deletes the shopper's data, closes the payment link and removes the cart from your figures."
        (still_paying(&links))
    };
    Ok(question(&operator, &cart, "delete", "Delete this cart?", &text, ("danger", "Delete permanently")))
}

/// What none of the actions stops.
fn still_paying(links: &Links) -> Markup {
    html! {
        @if links.state == LinkState::PaymentInProgress {
            " " strong { "A payment is in progress, which this doesn't stop: the money may still arrive at Stripe." }
        }
    }
}

async fn find(state: &AppState, id: &CartId) -> Result<(Cart, Links), PageError> {
    let (mut conn, now) = (state.lookups.acquire().await?, state.clock.now());
    let cart = carts::find(&mut conn, id, now).await?.ok_or_else(ApiError::cart_not_found)?;
    let links = Links::read(&mut conn, id, &cart, now).await?;
    Ok((cart, links))
}

fn question(
    operator: &Operator,
    cart: &Cart,
    action: &str,
    title: &str,
    text: &Markup,
    (class, button): (&str, &str),
) -> Response {
    let path = format!("/carts/{}", cart.id);
    let body = html! {
        section.card.narrow {
            h1 { (title) }
            p { strong { bdi { (cart.customer()) } } ", " (format::money(cart.total_value, cart.currency)) }
            p.muted { (text) }
            div.actions {
                form method="post" action=(at(&format!("{path}/{action}"))) {
                    (operator.token_field())
                    input type="hidden" name=(CONFIRMED) value="yes";
                    button class={ "button " (class) } type="submit" { (button) }
                }
                a.button href=(at(&path)) { "Cancel" }
            }
        }
    };
    Page { title, section: Section::Carts, operator, live: "" }.show(&body)
}
