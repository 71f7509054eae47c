//! Renders the pages.

use std::sync::LazyLock;

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use maud::{DOCTYPE, PreEscaped, html};
use sha2::{Digest, Sha256};

use super::{
    language::Language,
    texts::{BACK, Text, checkout, ended, link},
};
use crate::config::Shop;

/// Reload interval of the page that waits for the checkout.
const RELOAD_SECONDS: u64 = 3;
/// The page that waits for the checkout reloads this often, for a minute.
const MAX_RELOADS: u32 = 20;
/// `Retry-After` once the page has reloaded too often.
const LATER_SECONDS: u64 = 60;

/// A page for shoppers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Page {
    /// A button leads on. Where scripts run, the page presses it.
    Ready,
    /// The checkout is being created. The page reloads until it has done so too often.
    Preparing {
        status: StatusCode,
        /// How often it has reloaded.
        reloads: u32,
    },
    /// The database is unavailable. The page reloads like [`Self::Preparing`].
    Unavailable { reloads: u32 },
    /// Stripe refused to create a checkout.
    Refused(StatusCode),
    /// Stripe can't charge the cart's total.
    NotChargeable,
    /// Paid, but the payment is still being processed.
    InProgress,
    /// The cart was paid.
    Paid,
    /// The cart has expired.
    CartExpired,
    /// The cart was deleted.
    CartDeleted,
    /// The recovery link has expired.
    LinkExpired,
    /// Shown after paying.
    Thanks,
    /// The checkout is not on an allowed host.
    Foreign,
    /// The token was never issued.
    Unknown,
    /// The token's limit is reached for some seconds; the page reloads then.
    TooOften { seconds: u64 },
}

/// The content and the status of a page.
struct Content {
    status: StatusCode,
    title: Text,
    text: Text,
    button: Option<Text>,
    reload: Option<Reload>,
}

impl Content {
    fn new(status: StatusCode, title: Text, text: Text) -> Self {
        Self { status, title, text, button: None, reload: None }
    }

    /// A page that reloads, because the checkout may be there then.
    fn waiting(status: StatusCode, reloads: u32) -> Self {
        Self {
            button: Some(checkout::CONTINUE),
            reload: Some(Reload { seconds: RELOAD_SECONDS, query: format!("waiting={}", reloads + 1) }),
            ..Self::new(status, checkout::MOMENT, checkout::PREPARING)
        }
    }
}

struct Reload {
    seconds: u64,
    /// The query of the next address. It differs from the current one: a browser that reloads the
    /// response to a form would ask whether to send the form again.
    query: String,
}

impl Page {
    fn content(self) -> Content {
        match self {
            Self::Ready => Content {
                button: Some(checkout::CONTINUE),
                ..Content::new(StatusCode::OK, checkout::CONTINUE, checkout::PRESS)
            },
            Self::Preparing { status, reloads } if reloads < MAX_RELOADS => Content::waiting(status, reloads),
            Self::Unavailable { reloads } if reloads < MAX_RELOADS => {
                Content::waiting(StatusCode::SERVICE_UNAVAILABLE, reloads)
            }
            // Nothing is known about payments.
            Self::Unavailable { .. } => Content {
                button: Some(checkout::TRY_AGAIN),
                ..Content::new(StatusCode::SERVICE_UNAVAILABLE, checkout::SLOW, checkout::LATER)
            },
            Self::Preparing { status, .. } | Self::Refused(status) => Content {
                button: Some(checkout::TRY_AGAIN),
                ..Content::new(status, checkout::NOT_OPENED, checkout::NOTHING_CHARGED)
            },
            Self::NotChargeable => Content::new(StatusCode::CONFLICT, checkout::NOT_ONLINE, checkout::NOT_CHARGEABLE),
            Self::InProgress => Content::new(StatusCode::OK, ended::IN_PROGRESS, ended::NOTHING_TO_DO),
            Self::Paid => Content::new(StatusCode::GONE, ended::ALREADY_PAID, ended::PAID),
            Self::CartExpired => Content::new(StatusCode::GONE, ended::NOTHING_TO_PAY, ended::CART_EXPIRED),
            Self::CartDeleted => Content::new(StatusCode::GONE, ended::NOTHING_TO_PAY, ended::CART_DELETED),
            Self::LinkExpired => Content::new(StatusCode::GONE, ended::NOTHING_TO_PAY, ended::LINK_EXPIRED),
            Self::Thanks => Content::new(StatusCode::OK, ended::THANKS, ended::SENT),
            Self::Foreign => Content::new(StatusCode::BAD_GATEWAY, link::CANT_BE_OPENED, link::LEADS_ELSEWHERE),
            Self::Unknown => Content::new(StatusCode::NOT_FOUND, link::UNKNOWN, link::COPIED_WHOLE),
            Self::TooOften { seconds } => Content {
                reload: Some(Reload { seconds, query: "waiting=0".to_owned() }),
                ..Content::new(StatusCode::TOO_MANY_REQUESTS, checkout::MOMENT, link::TOO_OFTEN)
            },
        }
    }

    pub(super) fn show(self, language: Language, shop: &Shop) -> Response {
        let Content { status, title, text, button, reload } = self.content();
        let say = |text: Text| text.within(language);
        let goes_on = matches!(self, Self::Ready);
        let page = html! {
            (DOCTYPE)
            html lang=(language.tag()) dir=(language.direction()) {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    @if let Some(Reload { seconds, query }) = &reload {
                        meta http-equiv="refresh" content={ (seconds) ";url=?" (query) };
                    }
                    title { (say(title)) @if let Some(name) = &shop.name { " · " (name) } }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    main {
                        @if let Some(name) = &shop.name { p.shop { bdi { (name) } } }
                        h1 { (say(title)) }
                        // Screen readers read a live region again when the script below changes it.
                        p role="status" { (say(text)) }
                        @if let Some(button) = button {
                            // The address of the page, without a count of reloads.
                            form method="post" action="?" data-sent=(say(checkout::MOMENT)) {
                                button type="submit" { (say(button)) }
                            }
                        }
                        @if let Some(url) = &shop.url { p { a href=(url) { (say(BACK)) } } }
                    }
                    @if goes_on { script { (PreEscaped(SCRIPT)) } }
                }
            }
        };
        let mut response = (status, Html(page.into_string())).into_response();
        let headers = response.headers_mut();
        for (name, value) in SAFE_HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.insert(header::CONTENT_LANGUAGE, HeaderValue::from_static(language.tag()));
        let policy = if goes_on { POLICY_WITH_SCRIPT.clone() } else { HeaderValue::from_static(POLICY) };
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            let seconds = reload.map_or(LATER_SECONDS, |reload| reload.seconds);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The URL is a secret: it must not be cached, indexed or sent to other sites.
const SAFE_HEADERS: [(HeaderName, &str); 4] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (HeaderName::from_static("x-robots-tag"), "noindex"),
];

/// Without `form-action`: browsers apply it to the redirects after a form as well, which lead to
/// Stripe's pages and wherever Stripe's pages lead.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";

/// [`POLICY`] and the one script, by its hash.
static POLICY_WITH_SCRIPT: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = STANDARD.encode(Sha256::digest(SCRIPT));
    // Base64 is valid in a header.
    HeaderValue::from_str(&format!("{POLICY}; script-src 'sha256-{hash}'")).unwrap_or(HeaderValue::from_static(POLICY))
});

const SCRIPT: &str = include_str!("go_on.js");
const STYLE: &str = include_str!("pages.css");
