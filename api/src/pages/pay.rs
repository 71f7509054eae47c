//! `/pay/{token}`: the recovery link, which leads a shopper to the cart's checkout.
//!
//! Programs open links, too: mail servers that look for malware, previews, prefetching browsers. So
//! GET creates nothing and counts for nothing. The page that it returns sends a form once a person
//! sees it, and POST creates the checkout.

use std::time::Duration;

use axum::{
    extract::{FromRequestParts, Path, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, TimeDelta, Utc};
use common::{
    carts::{self, Cart, CartId, CartStatus},
    db::Connection,
    operations,
    payment_links::{
        self, LinkStatus,
        recovery::{self, TokenHolder},
    },
    timeline::{self, Opening},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{language::Language, page::Page};
use crate::{
    http::error::{ApiError, Cause},
    routes::payment_links::{
        look_up,
        request::{Requester, request},
        wait::LinkWait,
    },
    state::AppState,
};

/// After Stripe refused a session, no new one is requested for this long.
const PAUSE_AFTER_REFUSAL: TimeDelta = TimeDelta::seconds(30);
/// How long a shopper sees nothing while the checkout is created; the page that waits comes then.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// How long the page after a payment waits for the cart's language.
const LANGUAGE_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(open, go_on)).routes(routes!(thanks))
}

/// A request for a shopper's page.
struct Visit {
    /// `None` if the path has no well-formed token.
    token: Option<String>,
    /// The best language that the browser accepts.
    accepted: Option<Language>,
    /// How often the page has reloaded, waiting for the checkout.
    reloads: u32,
    /// Whether this is a HEAD request, which nobody sees the response of.
    is_head: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Visit {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let waiting = parts.uri.query().and_then(|query| query.strip_prefix("waiting="));
        Ok(Self {
            token: path.ok().map(|Path(token)| token).filter(|token| recovery::is_token(token)),
            accepted: Language::accepted(&parts.headers),
            reloads: waiting.and_then(|count| count.parse().ok()).unwrap_or_default(),
            is_head: parts.method == Method::HEAD,
        })
    }
}

impl Visit {
    fn show(&self, state: &AppState, cart: Option<&Cart>, page: Page) -> Response {
        let of_cart = cart.and_then(|cart| Language::of_tag(cart.locale.as_deref()?));
        page.show(of_cart.or(self.accepted).unwrap_or(Language::English), &state.config.shop)
    }

    fn preparing(&self, status: StatusCode) -> Page {
        Page::Preparing { status, reloads: self.reloads }
    }

    /// A shopper gets a page instead of an error envelope; the log gets the cause.
    fn excuse(&self, state: &AppState, error: ApiError) -> Response {
        let mut response = self.show(state, None, Page::Unavailable { reloads: self.reloads });
        if let Some(cause) = error.into_response().extensions_mut().remove::<Cause>() {
            response.extensions_mut().insert(cause);
        }
        response
    }
}

/// Open a recovery link
///
/// Redirects to a checkout that is open. Otherwise returns a page with a button, whose form creates
/// the checkout with POST. Creates nothing.
#[utoipa::path(
    get, path = "/pay/{token}", operation_id = "openRecoveryLink", tag = "Shoppers",
    params(("token" = String, Path, description = "The end of a `recoveryUrl`.")),
    responses(
        (status = 200, description = "A page with a button, or about a payment in progress", body = String, content_type = "text/html"),
        (status = 303, description = "To the checkout", headers(("Location" = String, description = "The checkout's address."))),
        (status = 404, description = "Never issued", body = String, content_type = "text/html"),
        (status = 409, description = "Stripe can't charge the cart's total: a page with the reason", body = String, content_type = "text/html"),
        (status = 410, description = "Nothing can be paid any more: a page with the reason", body = String, content_type = "text/html"),
        (status = 429, description = "The link was opened too often: a page that reloads", body = String, content_type = "text/html",
            headers(("Retry-After" = u32, description = "Seconds."))),
        (status = 502, description = "The checkout URL is not at Stripe, so there is no redirect", body = String, content_type = "text/html"),
        (status = 503, description = "The database is unavailable: a page that reloads, for a minute at most", body = String,
            content_type = "text/html", headers(("Retry-After" = u32, description = "Seconds."))),
    ),
)]
async fn open(State(state): State<AppState>, visit: Visit) -> Response {
    lead(&state, &visit, false).await.unwrap_or_else(|error| visit.excuse(&state, error))
}

/// Start a checkout
///
/// If none is open, one is created, which may take some seconds.
#[utoipa::path(
    post, path = "/pay/{token}", operation_id = "startCheckout", tag = "Shoppers",
    params(("token" = String, Path, description = "The end of a `recoveryUrl`.")),
    responses(
        (status = 200, description = "A payment is in progress", body = String, content_type = "text/html"),
        (status = 303, description = "To the checkout", headers(("Location" = String, description = "The checkout's address."))),
        (status = 404, description = "Never issued", body = String, content_type = "text/html"),
        (status = 409, description = "Stripe can't charge the cart's total: a page with the reason", body = String, content_type = "text/html"),
        (status = 410, description = "Nothing can be paid any more: a page with the reason", body = String, content_type = "text/html"),
        (status = 429, description = "The link was opened too often: a page that reloads", body = String, content_type = "text/html",
            headers(("Retry-After" = u32, description = "Seconds."))),
        (status = 502, description = "Stripe refused to create a checkout, or its URL is not at Stripe", body = String, content_type = "text/html"),
        (status = 503, description = "The checkout is being created: a page that reloads, for a minute at most", body = String,
            content_type = "text/html", headers(("Retry-After" = u32, description = "Seconds."))),
    ),
)]
async fn go_on(State(state): State<AppState>, visit: Visit) -> Response {
    lead(&state, &visit, true).await.unwrap_or_else(|error| visit.excuse(&state, error))
}

/// `creates` a checkout if there is none and one can be created.
async fn lead(state: &AppState, visit: &Visit, creates: bool) -> Result<Response, ApiError> {
    let show = |cart: Option<&Cart>, page: Page| Ok(visit.show(state, cart, page));
    let Some(token) = &visit.token else { return show(None, Page::Unknown) };
    let now = state.clock.now();
    let mut conn = state.lookups.acquire().await?;
    let Some(holder) = recovery::holder(&mut conn, token).await? else { return show(None, Page::Unknown) };
    if let Err(seconds) = state.token_limiter.count(token) {
        return show(None, Page::TooOften { seconds });
    }
    let Some((id, cart, expires_at)) = find_cart(&mut conn, holder, now).await? else {
        return show(None, Page::CartDeleted);
    };
    let (opening, is_pending) = opening(&mut conn, &id, &cart, expires_at, now).await?;
    if creates && let Err(error) = timeline::note_opening(&mut conn, &id, opening, now).await {
        tracing::warn!(%error, "could not record a visit of a recovery link"); // the shopper is redirected anyway
    }
    conn.commit().await?;
    // The event about the payment's end may be lost.
    if opening == Opening::PaymentUnderWay
        && !visit.is_head
        && let Err(error) = look_up(state, &id).await
    {
        tracing::warn!(cause = error.cause(), "could not look up a payment in progress"); // the schedule does
    }
    let page = match (opening, &cart.payment_link) {
        (Opening::Checkout, Some(url)) => return Ok(redirect(state, visit, &cart, url)),
        (Opening::Checkout | Opening::NewCheckout, _) if creates => return create(state, visit, &id, &cart).await,
        (Opening::NewCheckout, _) if is_pending => visit.preparing(StatusCode::OK),
        (Opening::Checkout | Opening::NewCheckout, _) => Page::Ready,
        (Opening::CheckoutRefused, _) => Page::Refused(if creates { StatusCode::BAD_GATEWAY } else { StatusCode::OK }),
        (Opening::NotChargeable, _) => Page::NotChargeable,
        (Opening::PaymentUnderWay, _) => Page::InProgress,
        (Opening::Recovered, _) => Page::Paid,
        (Opening::Expired, _) => Page::CartExpired,
        (Opening::LinkExpired, _) => Page::LinkExpired,
    };
    show(Some(&cart), page)
}

/// The cart of a token, and when the link expires; `None` if the cart was deleted.
async fn find_cart(
    conn: &mut Connection,
    holder: TokenHolder,
    now: DateTime<Utc>,
) -> Result<Option<(CartId, Cart, DateTime<Utc>)>, ApiError> {
    let TokenHolder::Cart { id, expires_at } = holder else { return Ok(None) };
    let Ok(id) = id.parse::<CartId>() else { return Ok(None) };
    Ok(carts::find(conn, &id, now).await?.map(|cart| (id, cart, expires_at)))
}

/// Determines where the link leads, and whether a checkout is being created.
async fn opening(
    conn: &mut Connection,
    id: &CartId,
    cart: &Cart,
    expires_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<(Opening, bool), ApiError> {
    let known = match cart.status {
        CartStatus::Recovered => Some(Opening::Recovered),
        // Its money recovers an expired cart, too.
        _ if payment_links::is_processing(conn, id.as_str()).await? => Some(Opening::PaymentUnderWay),
        CartStatus::Expired => Some(Opening::Expired),
        CartStatus::Abandoned if expires_at <= now => Some(Opening::LinkExpired),
        CartStatus::Abandoned if cart.payment_link.is_some() => Some(Opening::Checkout),
        CartStatus::Abandoned if cart.currency.check_chargeable(cart.total_value.minor()).is_err() => {
            Some(Opening::NotChargeable)
        }
        CartStatus::Abandoned => None,
    };
    if let Some(opening) = known {
        return Ok((opening, false));
    }
    let latest = payment_links::latest(conn, id.as_str()).await?;
    let is_pending = match &latest {
        // A job that was cancelled or ran out of attempts creates nothing: the shopper's form does.
        Some(link) if link.status == LinkStatus::Pending => {
            operations::find(conn, link.job_id).await?.is_some_and(|job| job.is_unfinished())
        }
        _ => false,
    };
    let refused_lately =
        latest.is_some_and(|link| link.refusal().is_some() && link.updated_at > now - PAUSE_AFTER_REFUSAL);
    Ok((if refused_lately { Opening::CheckoutRefused } else { Opening::NewCheckout }, is_pending))
}

/// Requests a checkout, and waits for it.
async fn create(state: &AppState, visit: &Visit, id: &CartId, cart: &Cart) -> Result<Response, ApiError> {
    let news = LinkWait::begin(&state.news);
    let asked = request(state, id, Requester::Shopper).await?;
    let wait = state.config.payment_link_wait.min(LONGEST_WAIT);
    let link = news.settled(&state.newest_links, asked.link, wait).await?;
    let page = match link {
        Some(link) if link.is_live(state.clock.now()) && link.url.is_some() => {
            return Ok(redirect(state, visit, cart, &link.url.unwrap_or_default()));
        }
        Some(link) if link.refusal().is_some() => Page::Refused(StatusCode::BAD_GATEWAY),
        _ => visit.preparing(StatusCode::SERVICE_UNAVAILABLE),
    };
    Ok(visit.show(state, Some(cart), page))
}

fn redirect(state: &AppState, visit: &Visit, cart: &Cart, url: &str) -> Response {
    let checked = state.config.checkout_hosts.check(url);
    let Some(location) = checked.and_then(|url| HeaderValue::from_str(url.as_str()).ok()) else {
        let mut response = visit.show(state, Some(cart), Page::Foreign);
        // The URL itself is not logged: a reader of the log could pay, or be misled.
        let cause = format!("the payment link of {} is not at Stripe; is its host to be in CHECKOUT_HOSTS?", cart.id);
        response.extensions_mut().insert(Cause(cause));
        return response;
    };
    let headers = [(header::LOCATION, location), (header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (StatusCode::SEE_OTHER, headers).into_response()
}

/// The page at an address below `/pay` that no link has.
pub(crate) fn unknown(state: &AppState, headers: &HeaderMap) -> Response {
    Page::Unknown.show(Language::accepted(headers).unwrap_or(Language::English), &state.config.shop)
}

/// Show the thank-you page
///
/// Stripe redirects here after the payment.
#[utoipa::path(
    get, path = "/pay/{token}/thanks", operation_id = "thankShopper", tag = "Shoppers",
    params(("token" = String, Path, description = "The end of a `recoveryUrl`.")),
    responses((status = 200, description = "Thanks", body = String, content_type = "text/html")),
)]
async fn thanks(State(state): State<AppState>, visit: Visit) -> Response {
    let cart = tokio::time::timeout(LANGUAGE_TIMEOUT, cart_of(&state, &visit)).await;
    visit.show(&state, cart.ok().and_then(Result::ok).flatten().as_ref(), Page::Thanks)
}

async fn cart_of(state: &AppState, visit: &Visit) -> Result<Option<Cart>, ApiError> {
    let Some(token) = &visit.token else { return Ok(None) };
    let mut conn = state.lookups.acquire().await?;
    let Some(holder) = recovery::holder(&mut conn, token).await? else { return Ok(None) };
    Ok(find_cart(&mut conn, holder, state.clock.now()).await?.map(|(_, cart, _)| cart))
}
