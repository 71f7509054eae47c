//! Errors as pages, for browsers. Operators keep the frame and the way back; an action that was
//! refused leads back to its page, which says why. Clients of the API get the envelope.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::Response,
};
use maud::{Markup, html};

use super::{
    format, guard,
    notice::Notice,
    page::{self, Section},
    session::Operator,
};
use crate::{
    http::{base_path::at, error::Message, request_log::REQUEST_ID},
    pages::pay,
    state::AppState,
};

/// In a response's extensions: the error is one of a page, whatever the client accepts.
#[derive(Debug, Clone)]
pub(crate) struct OfPage;

/// Renders errors as pages: those of pages, and others outside of `/api` for clients that accept
/// HTML.
pub(crate) async fn as_pages(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path == "/api" || path.starts_with("/api/") {
        return next.run(request).await;
    }
    let asked =
        Asked { method: request.method().clone(), uri: request.uri().clone(), headers: request.headers().clone() };
    let told = next.run(request).await;
    let of_page = told.extensions().get::<OfPage>().is_some();
    match told.extensions().get::<Message>() {
        Some(Message(message)) if of_page || accepts_html(&asked.headers) => {
            let message = message.clone();
            asked.answer(&state, told, &message, of_page).await
        }
        _ => told,
    }
}

/// Whether the client names HTML, as browsers do when they open an address.
fn accepts_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_html = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("text/html"));
        is_html && !parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)))
    })
}

/// The request that failed.
struct Asked {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Asked {
    async fn answer(&self, state: &AppState, told: Response, message: &str, of_page: bool) -> Response {
        let path = self.uri.path();
        if path == "/pay" || path.starts_with("/pay/") {
            return pay::unknown(state, &self.headers);
        }
        // Without the session, if it can't be read either.
        let operator = guard::operator(state, &self.headers).await.ok().flatten();
        let mut response = match (&operator, told.status()) {
            (Some(operator), StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::BAD_GATEWAY)
                if self.method == Method::POST =>
            {
                let secure = guard::is_https(state, &self.headers);
                page::redirect_with(&self.back().0, &Notice::problem(message), &operator.session, secure)
            }
            _ => self.page(operator.as_ref(), &told, message, of_page),
        };
        for name in [header::RETRY_AFTER, header::ALLOW] {
            if let Some(value) = told.headers().get(&name) {
                response.headers_mut().insert(name, value.clone());
            }
        }
        // Pass the cause on to the request log.
        response.extensions_mut().extend(told.extensions().clone());
        response
    }

    fn page(&self, operator: Option<&Operator>, told: &Response, message: &str, of_page: bool) -> Response {
        let status = told.status();
        let title = match status {
            StatusCode::NOT_FOUND if of_page => message,
            StatusCode::NOT_FOUND => "Page not found",
            StatusCode::FORBIDDEN => "Not allowed",
            StatusCode::CONFLICT => "Not possible right now",
            StatusCode::TOO_MANY_REQUESTS => "Too many requests",
            StatusCode::SERVICE_UNAVAILABLE => "Temporarily unavailable",
            status if status.is_server_error() => "Something went wrong",
            _ => "Invalid request",
        };
        let (back, name) = self.back();
        let body = html! {
            section.card.narrow {
                h1 dir="auto" { (title) }
                p dir="auto" { (text(status, message, told.headers().get(header::RETRY_AFTER), of_page)) }
                @if status.is_server_error() { (request_id(&self.headers)) }
                div.actions {
                    @if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) && self.method == Method::GET {
                        a.button.primary href=(at(&self.uri.to_string())) { "Try again" }
                    }
                    @if operator.is_some() { a.button href=(at(&back)) { "Back to " (name) } }
                    @else if path_is_sign_in(&self.uri) { a.button href=(at("/sign-in")) { "Back to sign-in" } }
                    @else { a.button href=(at("/")) { "Sign in" } }
                }
            }
        };
        match operator {
            Some(operator) => page::framed(status, title, operator, section(self.uri.path()), "", &body),
            None => page::bare(status, title, &body),
        }
    }

    /// The page to which an error leads back: that of the form, or the list. Its path and its name.
    fn back(&self) -> (String, String) {
        let mut segments: Vec<&str> = self.uri.path().trim_matches('/').split('/').collect();
        if self.method == Method::POST || segments.len() > 2 {
            segments.pop(); // the action
        } else {
            segments.truncate(1);
            if self.uri.query().is_none() && self.uri.path().trim_matches('/') == segments[0] {
                segments.clear();
            }
        }
        match segments.as_slice() {
            ["carts"] => ("/carts".to_owned(), "carts".to_owned()),
            ["carts", id] => (format!("/carts/{id}"), "the cart".to_owned()),
            ["jobs"] => ("/jobs".to_owned(), "jobs".to_owned()),
            ["jobs", id] => (format!("/jobs/{id}"), "the job".to_owned()),
            [name @ ("queues" | "schedules"), ..] => (format!("/{name}"), (*name).to_owned()),
            ["audit"] => ("/audit".to_owned(), "the audit log".to_owned()),
            _ => ("/".to_owned(), "overview".to_owned()),
        }
    }
}

fn path_is_sign_in(uri: &Uri) -> bool {
    uri.path() == "/sign-in"
}

/// What the title does not say.
fn text(status: StatusCode, message: &str, retry_after: Option<&HeaderValue>, of_page: bool) -> Markup {
    let seconds = retry_after.and_then(|seconds| seconds.to_str().ok()).unwrap_or("a few");
    html! {
        @match status {
            StatusCode::NOT_FOUND if of_page => "It may have been deleted, or the address is incomplete.",
            StatusCode::NOT_FOUND => "There is no page at this address.",
            StatusCode::TOO_MANY_REQUESTS => { "Try again in " (seconds) " s." },
            StatusCode::INTERNAL_SERVER_ERROR => "This is an error of the server, not yours.",
            StatusCode::METHOD_NOT_ALLOWED => "This address only receives forms.",
            _ => { (message.trim_end_matches('.')) "." },
        }
    }
}

/// The id under which the log has the cause.
fn request_id(headers: &HeaderMap) -> Markup {
    let id = headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
    html! {
        p.muted.small { "The log has the cause under this request ID:" }
        p.copyable { code #request-id { (id) } (format::copy_button("request-id", "the request ID")) }
    }
}

fn section(path: &str) -> Option<Section> {
    Section::of(&format!("/{}", path.trim_start_matches('/').split('/').next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(method: Method, uri: &str) -> (String, String) {
        Asked { method, uri: uri.parse().unwrap(), headers: HeaderMap::new() }.back()
    }

    #[test]
    fn errors_lead_back_to_the_form_or_the_list() {
        for (method, uri, path, name) in [
            (Method::POST, "/carts/cart_1/expire", "/carts/cart_1", "the cart"),
            (Method::GET, "/carts/cart_1/delete", "/carts/cart_1", "the cart"),
            (Method::GET, "/carts/cart_1", "/carts", "carts"),
            (Method::GET, "/carts?status=lost", "/carts", "carts"),
            (Method::GET, "/carts", "/", "overview"),
            (Method::POST, "/jobs/retry", "/jobs", "jobs"),
            (Method::POST, "/jobs/1/retry", "/jobs/1", "the job"),
            (Method::POST, "/queues/expiry/pause", "/queues", "queues"),
            (Method::POST, "/schedules/expire_carts/run", "/schedules", "schedules"),
            (Method::POST, "/carts/selected", "/carts", "carts"),
            (Method::GET, "/jobs/selected?action=retry", "/jobs", "jobs"),
            (Method::GET, "/audit?cursor=1", "/audit", "the audit log"),
            (Method::GET, "/?period=8d", "/", "overview"),
            (Method::GET, "/nowhere/at/all", "/", "overview"),
        ] {
            assert_eq!(back(method, uri), (path.to_owned(), name.to_owned()), "{uri}");
        }
    }

    #[test]
    fn only_browsers_accept_html() {
        let accepts = |value: &'static str| {
            accepts_html(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(value))]))
        };
        assert!(accepts("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8") && accepts("TEXT/HTML"));
        for other in ["*/*", "application/json", "text/*", "text/html;q=0", "text/event-stream", ""] {
            assert!(!accepts(other), "{other}");
        }
        assert!(!accepts_html(&HeaderMap::new()));
    }
}
