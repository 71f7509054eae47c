//! Layout and headers, which all pages share.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use common::api_keys::Scope;
use maud::{DOCTYPE, Markup, html};

use super::{
    assets::{ICON, SCRIPT, STYLE},
    errors::OfPage,
    format::query,
    notice::Notice,
    session::{Operator, Session, TOKEN},
};
use crate::http::{base_path::at, compression::Compressible, error::ApiError};

/// A page loads only resources of its own origin, and nothing can be injected.
const SAFE_HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; \
         form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    (header::CACHE_CONTROL, "no-store"),
    // Not `no-referrer`: browsers would then send forms without an origin.
    (header::REFERRER_POLICY, "same-origin"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("x-robots-tag"), "noindex"),
];

/// The entry of the navigation to which a page belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Overview,
    Carts,
    Jobs,
    Queues,
    Schedules,
    Audit,
}

impl Section {
    const ALL: [(Self, &'static str, &'static str); 6] = [
        (Self::Overview, "/", "Overview"),
        (Self::Carts, "/carts", "Carts"),
        (Self::Jobs, "/jobs", "Jobs"),
        (Self::Queues, "/queues", "Queues"),
        (Self::Schedules, "/schedules", "Schedules"),
        (Self::Audit, "/audit", "Audit log"),
    ];

    /// The section whose list is at this path.
    pub(crate) fn of(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, its, _)| *its == path).map(|(section, ..)| section)
    }
}

/// A page, except for its content.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    pub(crate) title: &'a str,
    pub(crate) section: Section,
    pub(crate) operator: &'a Operator,
    /// Changes after which the page is loaded again, separated by spaces: `carts`, `jobs` or the id
    /// of a cart.
    pub(crate) live: &'a str,
}

impl Page<'_> {
    /// Renders the whole page.
    pub(crate) fn show(&self, body: &Markup) -> Response {
        self.show_as(StatusCode::OK, body)
    }

    /// Renders the whole page with another status.
    pub(crate) fn show_as(&self, status: StatusCode, body: &Markup) -> Response {
        framed(status, self.title, self.operator, Some(self.section), self.live, body)
    }
}

/// A page for operators. See [`Page`] for the arguments.
pub(crate) fn framed(
    status: StatusCode,
    title: &str,
    operator: &Operator,
    section: Option<Section>,
    live: &str,
    body: &Markup,
) -> Response {
    let zone = operator.zone.name();
    let body = html! {
        a.skip href="#main" { "Skip to the content" }
        div.frame {
            header.top {
                a.brand href=(at("/")) {
                    img src=(ICON.address()) alt="" width="28" height="28";
                    span { "Quick Checkout Tracker" }
                }
                nav aria-label="Pages" { ul {
                    @for (each, path, name) in Section::ALL {
                        li { a href=(at(path)) aria-current=[(Some(each) == section).then_some("page")] { (name) } }
                    }
                } }
                @if !live.is_empty() {
                    // For the script. Its place is kept, so that nothing moves once the script shows it.
                    div #live .live.unknown {
                        span #live-state { "Live" }
                        button #live-switch .link type="button" { "Pause" }
                        a #live-reload href="" hidden { "Reload" }
                    }
                }
                form.sign-out method="post" action=(at("/sign-out")) {
                    span.muted.small.wide-only title="The name of the API key" {
                        (operator.by.0) @if !operator.may_change { " (read only)" }
                    }
                    (operator.token_field())
                    button.link type="submit" { "Sign out" }
                }
            }
            @if let Some(notice) = &operator.notice { (notice.show()) }
            main #main tabindex="-1" data-live=(live) data-zone=(zone) data-now=(operator.now.to_rfc3339()) { (body) }
            footer.muted.small {
                span { "Times and days are in " (zone) "." }
                a href=(at("/start")) { "Getting started" }
                a href=(at("/docs")) { "API reference" }
            }
        }
        p #announcements .visually-hidden role="status" aria-live="polite" {}
        script src=(SCRIPT.address()) defer {}
    };
    let mut response = answer(status, &document(title, &body));
    response.extensions_mut().insert(Compressible);
    if operator.notice.is_some()
        && let Some(shown) = Notice::shown()
    {
        response.headers_mut().append(header::SET_COOKIE, shown);
    }
    response
}

impl Operator {
    /// The hidden field with the CSRF token.
    pub(crate) fn token_field(&self) -> Markup {
        html! { input type="hidden" name=(TOKEN) value=(self.session.form_token); }
    }

    /// A form with a single button; `action` is a path of the dashboard. Nothing for a key that may not
    /// change anything.
    pub(crate) fn button(&self, action: &str, class: &str, text: &str) -> Markup {
        html! {
            // A live update tells forms apart by their ids.
            @if self.may_change { form id={ "do" (action.replace('/', "-")) } method="post" action=(at(action)) {
                (self.token_field())
                button class={ "button " (class) } type="submit" { (text) }
            } }
        }
    }

    /// # Errors
    /// 403 for a key that may not change anything.
    pub(crate) fn check_may_change(&self) -> Result<(), ApiError> {
        if self.may_change { Ok(()) } else { Err(ApiError::forbidden(Scope::Operator)) }
    }
}

fn document(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Quick Checkout Tracker" }
                link rel="icon" href=(ICON.address()) type="image/svg+xml";
                link rel="stylesheet" href=(STYLE.address());
            }
            body { (body) }
        }
    }
}

fn answer(status: StatusCode, document: &Markup) -> Response {
    let mut response = (status, Html(document.0.clone())).into_response();
    add_headers(&mut response);
    response
}

fn add_headers(response: &mut Response) {
    for (name, value) in SAFE_HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
}

/// A page for visitors who are not signed in.
pub(crate) fn bare(status: StatusCode, title: &str, body: &Markup) -> Response {
    let body = html! {
        div.frame {
            header.top.bare {
                span.brand { img src=(ICON.address()) alt="" width="28" height="28"; span { "Quick Checkout Tracker" } }
            }
            main #main tabindex="-1" { (body) }
        }
        p #announcements .visually-hidden role="status" aria-live="polite" {}
        script src=(SCRIPT.address()) defer {}
    };
    answer(status, &document(title, &body))
}

/// Redirects to a path of the dashboard.
pub(crate) fn redirect(path: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    add_headers(&mut response);
    let location = HeaderValue::from_str(&at(path)).unwrap_or(HeaderValue::from_static("/"));
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// Redirects to a path of the dashboard, whose page shows the notice once.
pub(crate) fn redirect_with(path: &str, notice: &Notice, session: &Session, secure: bool) -> Response {
    let mut response = redirect(path);
    if let Some(cookie) = notice.cookie(session, secure) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// Why a page can't be shown.
#[derive(Debug)]
pub(crate) enum PageError {
    /// The visitor is not signed in; the path to return to after signing in.
    SignIn(Option<String>),
    /// The page must load itself once more.
    Again,
    /// An error of the API.
    Api(ApiError),
}

impl<E: Into<ApiError>> From<E> for PageError {
    fn from(error: E) -> Self {
        Self::Api(error.into())
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        match self {
            Self::SignIn(next) => {
                let next = next.as_deref().filter(|next| *next != "/");
                redirect(&format!("/sign-in{}", query(&[("next", next)])))
            }
            Self::Again => answer(
                StatusCode::OK,
                &html! { (DOCTYPE) html lang="en" { head {
                    meta charset="utf-8"; meta http-equiv="refresh" content="0"; title { "One moment" }
                } body { p { "One moment …" } } } },
            ),
            Self::Api(error) => {
                let mut response = error.into_response();
                response.extensions_mut().insert(OfPage);
                response
            }
        }
    }
}
