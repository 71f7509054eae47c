//! `/carts/selected`: actions on the carts that were checked in the list, after a page that shows
//! their number.

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue},
    response::Response,
    routing::get,
};
use common::carts::{self, Cart, CartId, CartStatus};
use maud::html;

use super::{
    cart_filters, format,
    guard::OurForm,
    page::{Page, PageError, Section},
    selection::{self, Tally},
    session::Operator,
};
use crate::{
    auth::keys::By,
    http::{base_path::at, error::ApiError, etag::IfMatch, query::Parameters},
    routes::{
        carts::{self as api, CartPath, change::ChangeRequest},
        payment_links,
    },
    state::AppState,
};

const PREFER: HeaderName = HeaderName::from_static("prefer");

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/carts/selected", get(ask).post(act))
}

/// What can be done to several carts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Link,
    Expire,
    Delete,
}

impl Action {
    /// All actions, in the order of their buttons.
    pub(crate) const ALL: [Self; 3] = [Self::Link, Self::Expire, Self::Delete];

    /// Its name in forms.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Expire => "expire",
            Self::Delete => "delete",
        }
    }

    /// Its name on buttons.
    pub(crate) fn verb(self) -> &'static str {
        match self {
            Self::Link => "Create payment links",
            Self::Expire => "Expire",
            Self::Delete => "Delete",
        }
    }

    /// What the button under the list says.
    pub(crate) fn button(self) -> &'static str {
        match self {
            Self::Link => "Create payment links …",
            Self::Expire => "Expire selected …",
            Self::Delete => "Delete selected …",
        }
    }

    /// What happens to the carts, after their number.
    fn effect(self) -> &'static str {
        match self {
            Self::Link => {
                " will get a payment link, unless a payment is in progress or Stripe can't charge the total. A link that works already stays."
            }
            Self::Expire => " will expire, and their open checkouts will be closed. A payment in progress goes on.",
            Self::Delete => {
                " will be deleted permanently with the shoppers' data, and no longer count in your figures."
            }
        }
    }

    fn class(self) -> &'static str {
        if self == Self::Link { "primary" } else { "danger" }
    }

    /// Whether the cart's status allows the action.
    pub(crate) fn fits(self, cart: &Cart) -> bool {
        self == Self::Delete || cart.status == CartStatus::Abandoned
    }

    async fn run(self, state: State<AppState>, by: By, id: CartId) -> Result<(), ApiError> {
        match self {
            Self::Link => {
                let at_once = HeaderMap::from_iter([(PREFER, HeaderValue::from_static("respond-async"))]);
                payment_links::ask(state, by, CartPath(id), at_once).await.map(drop)
            }
            Self::Expire => {
                let change = ChangeRequest::status(CartStatus::Expired);
                api::change::apply(&state, &id, &IfMatch::anything(), &change, &by.0).await.map(drop)
            }
            Self::Delete => api::delete(state, by, CartPath(id), IfMatch::anything()).await.map(drop),
        }
    }
}

/// What is true of some carts after an action. Some may have had a link, or been expired, before.
fn done(action: Action, count: usize) -> String {
    match action {
        Action::Link => {
            format!("{} requested or already active", format::counted(count, "payment link", "payment links"))
        }
        Action::Expire => format!("{} expired", format::counted(count, "cart is", "carts are")),
        Action::Delete => format!("{} deleted", counted(count)),
    }
}

/// The action and the ids in a query string or a form.
fn selected<'p>(action: Option<&str>, ids: impl Iterator<Item = &'p str>) -> Result<(Action, Vec<CartId>), ApiError> {
    let action = action.and_then(|text| Action::ALL.into_iter().find(|action| action.name() == text));
    let action = action.ok_or_else(|| ApiError::bad_request("action must be link, expire or delete"))?;
    Ok((action, selection::ids(ids, "cart", "carts")?))
}

async fn ask(
    State(state): State<AppState>,
    operator: Operator,
    parameters: Result<Parameters, ApiError>,
) -> Result<Response, PageError> {
    operator.check_may_change()?;
    let parameters = parameters?;
    let (action, ids) = selected(parameters.get("action"), parameters.all("id"))?;
    let filters = cart_filters::pairs(|name| parameters.get(name));
    let texts: Vec<&str> = ids.iter().map(CartId::as_str).collect();
    let found = carts::find_many(&mut state.lookups.acquire().await?, &texts, state.clock.now()).await?;
    let fitting: Vec<&Cart> = found.iter().filter(|cart| action.fits(cart)).collect();
    let (matched, others, missing) = (fitting.len(), found.len() - fitting.len(), ids.len() - found.len());
    let body = html! {
        section.card.narrow {
            h1 { (action.verb()) }
            p.value-line { strong { (counted(matched)) } (action.effect()) }
            @if ids.is_empty() { p.muted { "No cart is selected." } }
            @if others > 0 { p.muted { (counted(others)) " not included: only abandoned carts are." } }
            @if missing > 0 { p.muted { (counted(missing)) " not found." } }
            div.actions {
                @if matched > 0 {
                    @let button = format!("{}: {}", action.verb(), counted(matched));
                    (selection::form(&operator, "/carts/selected", action.name(), fitting.iter().map(|cart| &cart.id), &format::kept(&filters), (action.class(), &button)))
                }
                a.button href={ (at("/carts")) (format::query(&filters)) } { "Back to carts" }
            }
        }
    };
    Ok(Page { title: action.verb(), section: Section::Carts, operator: &operator, live: "" }.show(&body))
}

/// Acts on each cart by itself. Those for which the API refuses the action are left alone.
async fn act(State(state): State<AppState>, form: OurForm) -> Result<Response, PageError> {
    let (action, ids) = selected(form.get("action"), form.all("id"))?;
    let mut tally = Tally::default();
    for id in ids {
        tally.add(action.run(State(state.clone()), form.by.clone(), id).await)?;
    }
    let list = format!("/carts{}", format::query(&cart_filters::pairs(|name| form.get(name))));
    Ok(form.done(&list, &format!("{}.{}", done(action, tally.changed), tally.rest(counted))))
}

/// `3 carts`
fn counted(count: usize) -> String {
    format::counted(count, "cart", "carts")
}
