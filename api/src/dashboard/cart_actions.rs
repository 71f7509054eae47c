//! Actions on a cart. Each calls the API's own handler; this module has the forms, and confirmation
//! pages for what can't be undone.

use axum::{
    Router,
    extract::State,
    http::HeaderMap,
    response::Response,
    routing::{get, post},
};
use common::carts::{self, Cart, CartId, CartStatus};
use maud::{Markup, html};

use super::{
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

pub(crate) fn router() -> Router<AppState> {
    Router::new()
        .route("/carts/{id}/link", post(make_link))
        .route("/carts/{id}/expire", post(expire))
        .route("/carts/{id}/reopen", post(reopen))
        .route("/carts/{id}/recover", get(ask_recover).post(recover))
        .route("/carts/{id}/delete", get(ask_delete).post(delete))
}

/// The message on the cart's page after an action.
pub(crate) fn done(what: &str) -> Option<&'static str> {
    Some(match what {
        "recovered" => "The cart is recovered.",
        "expired" => "The cart is expired. Nobody can pay for it any more.",
        "abandoned" => "The cart is open again. Make a new link for its shopper.",
        "link" => "The link was requested.",
        _ => return None,
    })
}

/// Waits as long as the API does. If the worker takes longer, the page shows the link once it is
/// made.
async fn make_link(
    State(state): State<AppState>,
    path: Result<CartPath, ApiError>,
    _form: OurForm,
) -> Result<Response, PageError> {
    let CartPath(id) = path?;
    payment_links::ask(State(state), CartPath(id.clone()), HeaderMap::new()).await?;
    Ok(go_to(&format!("/carts/{id}?done=link")))
}

async fn expire(state: State<AppState>, path: Result<CartPath, ApiError>, _: OurForm) -> Result<Response, PageError> {
    change(state, path?.0, CartStatus::Expired).await
}

async fn reopen(state: State<AppState>, path: Result<CartPath, ApiError>, _: OurForm) -> Result<Response, PageError> {
    change(state, path?.0, CartStatus::Abandoned).await
}

async fn recover(state: State<AppState>, path: Result<CartPath, ApiError>, _: OurForm) -> Result<Response, PageError> {
    change(state, path?.0, CartStatus::Recovered).await
}

async fn change(State(state): State<AppState>, id: CartId, status: CartStatus) -> Result<Response, PageError> {
    api::change::apply(&state, &id, &IfMatch::anything(), &api::change::ChangeRequest::status(status)).await?;
    let status = status.as_str();
    Ok(go_to(&format!("/carts/{id}?done={status}")))
}

async fn delete(state: State<AppState>, path: Result<CartPath, ApiError>, _: OurForm) -> Result<Response, PageError> {
    api::delete(state, path?, IfMatch::anything()).await?;
    Ok(go_to("/carts?deleted=1"))
}

async fn ask_recover(
    State(state): State<AppState>,
    operator: Operator,
    path: Result<CartPath, ApiError>,
) -> Result<Response, PageError> {
    let cart = find(&state, path?.0).await?;
    let text = html! { "It counts as recovered by hand from now on, its payment link is closed, and that is final." };
    Ok(question(&operator, &cart, "recover", "Mark this cart as recovered?", &text, ("primary", "Mark recovered")))
}

async fn ask_delete(
    State(state): State<AppState>,
    operator: Operator,
    path: Result<CartPath, ApiError>,
) -> Result<Response, PageError> {
    let cart = find(&state, path?.0).await?;
    let text = html! {
        "The shopper's data goes out of the database, the payment link is closed, and the figures count this cart no more. "
        "It can't be brought back."
    };
    Ok(question(&operator, &cart, "delete", "Delete this cart?", &text, ("danger", "Delete for good")))
}

async fn find(state: &AppState, id: CartId) -> Result<Cart, PageError> {
    let mut conn = state.lookups.acquire().await?;
    Ok(carts::find(&mut conn, &id, state.clock.now()).await?.ok_or_else(ApiError::cart_not_found)?)
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
                (operator.button(&format!("{path}/{action}"), class, button))
                a.button href=(at(&path)) { "Keep it as it is" }
            }
        }
    };
    Page { title, section: Section::Carts, operator, live: "" }.show(&body)
}
