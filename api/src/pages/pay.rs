//! `/pay/{token}`: the recovery link, which leads a shopper to the cart's checkout.

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, TimeDelta, Utc};
use common::{
    carts::{self, Cart, CartId, CartStatus},
    db::Connection,
    payment_links::{self, reconciliation, recovery::TokenHolder},
    timeline::{self, Opening},
};
use maud::{DOCTYPE, html};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    http::error::{ApiError, Cause},
    routes::payment_links::{
        request::{RecoveryTime, request},
        wait::LinkWait,
    },
    state::AppState,
};

/// Reload interval of the waiting page.
const RELOAD_SECONDS: u32 = 3;
/// After Stripe refused a session, reloads request no new one for this long.
const PAUSE_AFTER_REFUSAL: TimeDelta = TimeDelta::seconds(30);

pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(open)).routes(routes!(thanks))
}

/// Redirects a shopper to the cart's live checkout
///
/// If there is none, one is created, which may take some seconds.
#[utoipa::path(
    get, path = "/pay/{token}", operation_id = "openRecoveryLink", tag = "Shoppers",
    params(("token" = String, Path, description = "The end of a `recoveryUrl`.")),
    responses(
        (status = 200, description = "A payment is being processed", body = String, content_type = "text/html"),
        (status = 303, description = "To the checkout", headers(("Location" = String, description = "The checkout's address."))),
        (status = 404, description = "Never issued", body = String, content_type = "text/html"),
        (status = 409, description = "Stripe can't charge the cart's total: a page with the reason", body = String, content_type = "text/html"),
        (status = 502, description = "The checkout URL is not at Stripe, so there is no redirect", body = String, content_type = "text/html"),
        (status = 410, description = "Nothing can be paid any more: a page with the reason", body = String, content_type = "text/html"),
        (status = 503, description = "The checkout is being prepared: a page that reloads", body = String, content_type = "text/html",
            headers(("Retry-After" = u32, description = "Seconds."))),
    ),
)]
async fn open(State(state): State<AppState>, method: Method, token: Result<Path<String>, PathRejection>) -> Response {
    let Ok(Path(token)) = token else { return Page::Unknown.into_response() };
    // A HEAD request is not a visit, so it is not recorded.
    lead(&state, &token, method == Method::GET).await.unwrap_or_else(|error| {
        // A shopper gets a page instead of an error envelope; the log gets the cause.
        let mut response = Page::Wait.into_response();
        response.extensions_mut().extend(error.into_response().extensions().clone());
        response
    })
}

async fn lead(state: &AppState, token: &str, note: bool) -> Result<Response, ApiError> {
    let now = state.clock.now();
    let mut conn = state.lookups.acquire().await?;
    let (id, expires_at) = match payment_links::recovery::holder(&mut conn, token).await? {
        None => return Ok(Page::Unknown.into_response()),
        Some(TokenHolder::Deleted) => return Ok(Page::Gone("This cart no longer exists.").into_response()),
        Some(TokenHolder::Cart { id, expires_at }) => (id, expires_at),
    };
    let Ok(id) = id.parse::<CartId>() else { return Ok(Page::Unknown.into_response()) };
    let Some(cart) = carts::find(&mut conn, &id, now).await? else {
        return Ok(Page::Gone("This cart no longer exists.").into_response());
    };
    let opening = opening(&mut conn, &id, &cart, expires_at, now).await?;
    if note && let Err(error) = timeline::note_opening(&mut conn, &id, opening, now).await {
        tracing::warn!(%error, "could not record a visit of a recovery link"); // the shopper is redirected anyway
    }
    // The event about the payment's end may be lost.
    if note
        && opening == Opening::PaymentUnderWay
        && let Err(error) = reconciliation::look_up(&mut conn, id.as_str(), state.clock.stopped()).await
    {
        tracing::warn!(%error, "could not look up a payment in progress"); // the schedule does
    }
    conn.commit().await?;
    match (opening, cart.payment_link) {
        (Opening::Checkout, Some(url)) => return Ok(redirect(state, &id, &url)),
        (Opening::Checkout | Opening::NewCheckout, _) => {}
        (Opening::CheckoutRefused, _) => return Ok(Page::Wait.into_response()),
        (Opening::NotChargeable, _) => return Ok(Page::NotChargeable.into_response()),
        (Opening::PaymentUnderWay, _) => return Ok(Page::Processing.into_response()),
        (Opening::Recovered, _) => return Ok(Page::Gone("This cart has been paid. Thank you!").into_response()),
        (Opening::Expired, _) => return Ok(Page::Gone("This cart has expired.").into_response()),
        (Opening::LinkExpired, _) => return Ok(Page::Gone("This link has expired.").into_response()),
    }
    let news = LinkWait::begin(&state.news);
    let asked = request(state, &id, RecoveryTime::Keep).await?;
    let link = news.settled(&state.lookups, asked.link, state.config.payment_link_wait).await?;
    Ok(match link.filter(|link| link.is_live(state.clock.now())).and_then(|link| link.url) {
        Some(url) => redirect(state, &id, &url),
        None => Page::Wait.into_response(),
    })
}

/// Determines where the link leads.
async fn opening(
    conn: &mut Connection,
    id: &CartId,
    cart: &Cart,
    expires_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Opening, ApiError> {
    match cart.status {
        CartStatus::Recovered => return Ok(Opening::Recovered),
        CartStatus::Expired => return Ok(Opening::Expired),
        CartStatus::Abandoned => {}
    }
    if payment_links::is_processing(conn, id.as_str()).await? {
        return Ok(Opening::PaymentUnderWay);
    }
    if expires_at <= now {
        return Ok(Opening::LinkExpired);
    }
    if cart.payment_link.is_some() {
        return Ok(Opening::Checkout);
    }
    if cart.currency.check_chargeable(cart.total_value.minor()).is_err() {
        return Ok(Opening::NotChargeable);
    }
    let latest = payment_links::latest(conn, id.as_str()).await?;
    let refused_lately =
        latest.is_some_and(|link| link.refusal().is_some() && link.updated_at > now - PAUSE_AFTER_REFUSAL);
    Ok(if refused_lately { Opening::CheckoutRefused } else { Opening::NewCheckout })
}

fn redirect(state: &AppState, id: &CartId, url: &str) -> Response {
    let Some(checked) = state.config.checkout_hosts.check(url) else {
        let mut response = Page::Foreign.into_response();
        // The URL itself is not logged: a reader of the log could pay, or be misled.
        let cause = format!("the payment link of {id} is not at Stripe; is its host to be in CHECKOUT_HOSTS?");
        response.extensions_mut().insert(Cause(cause));
        return response;
    };
    match HeaderValue::from_str(checked.as_str()) {
        Ok(location) => {
            let headers = [(header::LOCATION, location), (header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
            (StatusCode::SEE_OTHER, headers).into_response()
        }
        Err(_) => Page::Wait.into_response(),
    }
}

/// Thanks a shopper; Stripe redirects here after payment
#[utoipa::path(
    get, path = "/pay/{token}/thanks", operation_id = "thankShopper", tag = "Shoppers",
    params(("token" = String, Path, description = "The end of a `recoveryUrl`.")),
    responses((status = 200, description = "Thanks", body = String, content_type = "text/html")),
)]
async fn thanks() -> Response {
    Page::Thanks.into_response()
}

enum Page {
    /// The checkout is not available yet; the page reloads.
    Wait,
    /// There is nothing to pay any more, with the reason.
    Gone(&'static str),
    /// Paid, but the payment is still being processed.
    Processing,
    /// Stripe can't charge the cart's total.
    NotChargeable,
    /// Shown after paying.
    Thanks,
    /// The checkout is not on an allowed host.
    Foreign,
    /// The token was never issued.
    Unknown,
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let (status, title, text) = match self {
            Self::Wait => (
                StatusCode::SERVICE_UNAVAILABLE,
                "One moment, please",
                "Your checkout is being prepared. This page goes on by itself.",
            ),
            Self::Gone(why) => (StatusCode::GONE, "Nothing to pay here", why),
            Self::Processing => (
                StatusCode::OK,
                "Your payment is being processed",
                "There is nothing more to do. This can take some days.",
            ),
            Self::NotChargeable => (
                StatusCode::CONFLICT,
                "This cart can't be paid online",
                "Its total can't be charged. Please tell the shop.",
            ),
            Self::Thanks => (StatusCode::OK, "Thank you!", "Your payment was received. You can close this page."),
            Self::Foreign => (
                StatusCode::BAD_GATEWAY,
                "This link can't be opened",
                "It does not lead to a checkout of this shop. Please tell the shop.",
            ),
            Self::Unknown => {
                (StatusCode::NOT_FOUND, "Unknown link", "This is not a link of this shop. Was it copied whole?")
            }
        };
        let reload = status == StatusCode::SERVICE_UNAVAILABLE;
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    @if reload { meta http-equiv="refresh" content=(RELOAD_SECONDS); }
                    title { (title) }
                    style { (STYLE) }
                }
                body { main { h1 { (title) } p { (text) } } }
            }
        };
        let mut response = (status, axum::response::Html(page.into_string())).into_response();
        let headers = response.headers_mut();
        for (name, value) in SAFE_HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if reload {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RELOAD_SECONDS));
        }
        response
    }
}

/// The URL is a secret: it must not be cached, indexed or sent to other sites.
const SAFE_HEADERS: [(header::HeaderName, &str); 5] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::HeaderName::from_static("x-robots-tag"), "noindex"),
];

const STYLE: &str = ":root{color-scheme:light dark;font-family:system-ui,sans-serif}\
body{margin:0;min-height:100vh;display:grid;place-items:center}main{max-width:30rem;padding:2rem;text-align:center}";
