//! Layout, headers and error pages, which all pages share.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, html};

use super::{
    assets::{ICON, SCRIPT, STYLE},
    format::query,
    session::{Operator, TOKEN},
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
}

impl Section {
    const ALL: [(Self, &'static str, &'static str); 5] = [
        (Self::Overview, "/", "Overview"),
        (Self::Carts, "/carts", "Carts"),
        (Self::Jobs, "/jobs", "Jobs"),
        (Self::Queues, "/queues", "Queues"),
        (Self::Schedules, "/schedules", "Schedules"),
    ];
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
        let mut response = answer(
            StatusCode::OK,
            &document(
                self.title,
                &html! {
                    a.skip href="#main" { "Skip to the content" }
                    div.frame {
                        header.top {
                            a.brand href=(at("/")) {
                                img src=(ICON.address()) alt="" width="28" height="28";
                                span { "Quick Checkout Tracker" }
                            }
                            nav aria-label="Pages" { ul {
                                @for (section, path, name) in Section::ALL {
                                    li { a href=(at(path)) aria-current=[(section == self.section).then_some("page")] { (name) } }
                                }
                            } }
                            form.sign-out method="post" action=(at("/sign-out")) {
                                (self.operator.token_field())
                                button.link type="submit" { "Sign out" }
                            }
                        }
                        main #main tabindex="-1" data-live=(self.live) { (body) }
                        footer.muted.small { "Times and days are in " (self.operator.zone.name()) "." }
                    }
                    p #announcements .visually-hidden role="status" aria-live="polite" {}
                    script src=(SCRIPT.address()) defer {}
                },
            ),
        );
        response.extensions_mut().insert(Compressible);
        response
    }
}

impl Operator {
    /// The hidden field with the CSRF token.
    pub(crate) fn token_field(&self) -> Markup {
        html! { input type="hidden" name=(TOKEN) value=(self.session.form_token); }
    }

    /// A form with a single button; `action` is a path of the dashboard.
    pub(crate) fn button(&self, action: &str, class: &str, text: &str) -> Markup {
        html! {
            form method="post" action=(at(action)) {
                (self.token_field())
                button class={ "button " (class) } type="submit" { (text) }
            }
        }
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
pub(crate) fn bare(status: StatusCode, title: &str, body: Markup) -> Response {
    let body = html! {
        header.top.bare {
            span.brand { img src=(ICON.address()) alt="" width="28" height="28"; span { "Quick Checkout Tracker" } }
        }
        main #main tabindex="-1" { (body) }
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

/// A message above the page about the action that was just done.
pub(crate) fn notice(text: Option<&str>) -> Markup {
    html! { @if let Some(text) = text { p.notice role="status" { (text) } } }
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
            Self::Api(error) => say(error),
        }
    }
}

/// Renders an API error as a page.
fn say(error: ApiError) -> Response {
    let message = error.body().message.to_owned();
    let told = error.into_response();
    let status = told.status();
    let title = match status {
        StatusCode::NOT_FOUND => "Not there",
        StatusCode::CONFLICT => "That does not go",
        StatusCode::TOO_MANY_REQUESTS => "Too many requests",
        StatusCode::SERVICE_UNAVAILABLE => "One moment, please",
        status if status.is_server_error() => "Something went wrong",
        _ => "That was not understood",
    };
    let body = html! {
        section.card.narrow {
            h1 { (title) }
            p dir="auto" { (message) }
            p { a.button href=(at("/")) { "To the overview" } }
        }
    };
    let mut response = bare(status, title, body);
    if let Some(wait) = told.headers().get(header::RETRY_AFTER) {
        response.headers_mut().insert(header::RETRY_AFTER, wait.clone());
    }
    // Pass the cause on to the request log.
    response.extensions_mut().extend(told.extensions().clone());
    response
}
