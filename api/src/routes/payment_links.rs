//! `/api/carts/{id}/payment-link`: requests a link from the worker and waits for it.
//! `/api/carts/{id}/recovery-link`: the link for mails alone, which needs neither worker nor Stripe.

pub(crate) mod batches;
pub(crate) mod request;
pub(crate) mod wait;
use std::time::{Duration, Instant};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use common::{
    carts::{self, CartId},
    db::Connection,
    operations::{self, JobSummary},
    payment_links::{self, LinkStatus, PaymentLink, Refusal, reconciliation, recovery::RecoveryLink},
};
use serde::Serialize;
use utoipa::{ToSchema, openapi::schema::Object};
use utoipa_axum::routes;

use self::{request::Requester, wait::LinkWait};
use super::carts::CartPath;
use crate::{
    auth::{keys::By, scoped_router::ScopedRouter},
    http::{
        base_path::at,
        body::{Data, Success},
        error::ApiError,
        preferences::{self, Preferences},
        schema,
    },
    openapi,
    state::AppState,
};

/// Seconds that a client that got 202 should wait.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

pub(crate) fn router() -> ScopedRouter {
    ScopedRouter::new().read_or_support(routes!(show)).write(routes!(ask)).write(routes!(extend_recovery_link))
}

/// A working payment link.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ReadyPaymentLink)]
struct Ready {
    /// Absent from the response to the request for the link.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = only_ready, required = false)]
    status: Option<&'static str>,
    /// URL of a Stripe Checkout Session.
    #[schema(format = "uri", example = "https://checkout.stripe.com/c/pay/cs_live_1")]
    payment_link: String,
    /// When Stripe ends the session.
    expires_at: DateTime<Utc>,
    /// Leads to the live session, or creates a new one if the last has expired. Use this URL in
    /// mails.
    #[schema(required, format = "uri", example = "https://shop.example/pay/68c74c5982cad91b70d86c123bd95080")]
    recovery_url: Option<String>,
    /// When `recoveryUrl` expires.
    #[schema(required, example = "2026-03-08T12:00:00Z")]
    recovery_expires_at: Option<DateTime<Utc>>,
}

/// A working recovery link.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RecoveryLink)]
struct Recovery {
    /// Leads to the cart's checkout, which is created once the shopper goes on. Use this URL in mails.
    #[schema(format = "uri", example = "https://shop.example/pay/68c74c5982cad91b70d86c123bd95080")]
    recovery_url: String,
    /// When `recoveryUrl` expires: `PAYMENT_LINK_TTL` after this request.
    recovery_expires_at: DateTime<Utc>,
}

/// A payment link that is being created.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PendingPaymentLink)]
struct Pending {
    #[schema(schema_with = only_pending)]
    status: &'static str,
    /// The job that creates the link; see `/api/jobs/{id}`.
    #[schema(format = Uuid)]
    job_id: String,
    /// Number of attempts so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    attempts: Option<i16>,
    /// Error of the last failed attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last_error: Option<String>,
    /// Works before the payment link is ready. Use this URL in mails.
    #[schema(required, format = "uri", example = "https://shop.example/pay/68c74c5982cad91b70d86c123bd95080")]
    recovery_url: Option<String>,
    /// When `recoveryUrl` expires.
    #[schema(required, example = "2026-03-08T12:00:00Z")]
    recovery_expires_at: Option<DateTime<Utc>>,
}

impl Pending {
    fn new(state: &AppState, link: &PaymentLink, job: Option<JobSummary>, recovery: Option<RecoveryLink>) -> Self {
        let (attempts, last_error) = job.map(|job| (job.attempts, job.last_error)).unzip();
        let (recovery_url, recovery_expires_at) = address_and_end(state, recovery);
        let job_id = link.job_id.to_string();
        let last_error = last_error.flatten();
        Self { status: "pending", job_id, attempts, last_error, recovery_url, recovery_expires_at }
    }
}

/// A payment link that is not available.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FailedPaymentLink)]
struct Failed {
    #[schema(schema_with = only_failed)]
    status: &'static str,
    /// The reason as a code: those of `link_not_made` in the timeline, Stripe's or one of this
    /// product, and `link_expired`, `link_withdrawn`, `session_closed`, `payment_failed`,
    /// `payment_under_way` and `recovered`. More may be added.
    #[schema(example = "amount_too_small")]
    code: String,
    /// The reason in English.
    reason: String,
}

/// State of the newest request for a cart's payment link.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = PaymentLinkStatus)]
enum LinkState {
    Ready(Ready),
    Pending(Pending),
    Failed(Failed),
}

fn only_ready() -> Object {
    schema::one_of(["ready"])
}

fn only_pending() -> Object {
    schema::one_of(["pending"])
}

fn only_failed() -> Object {
    schema::one_of(["failed"])
}

/// Create a payment link
///
/// A live link is returned again. Otherwise a worker creates one; if that takes more than 10 s
/// (`PAYMENT_LINK_WAIT`), the response is 202. Repeated or concurrent requests create one session.
/// If a payment is in progress, it is looked up at Stripe, at most once a minute.
#[utoipa::path(
    post, path = "/carts/{id}/payment-link", operation_id = "requestPaymentLink", tag = "Payment links",
    params(
        ("id" = String, Path, pattern = "^cart_[A-Za-z0-9_-]{1,100}$", description = "Which cart."),
        ("Prefer" = Option<String>, Header, description = "`respond-async` returns 202 at once, `wait=3` waits for at most 3 s, as both together do (RFC 7240).", example = "wait=3"),
    ),
    responses(
        (status = 200, description = "The link", body = Success<Ready>, headers(
            ("Preference-Applied" = String, description = "`wait`, if requested."))),
        (status = 202, description = "It is being created; poll `Location`", body = Success<Pending>, headers(
            ("Location" = String, description = "Where to poll."), ("Retry-After" = u32, description = "Seconds."),
            ("Preference-Applied" = String, description = "`respond-async` and `wait`, if requested."))),
        (status = 409, description = "`CONFLICT`: the cart is not abandoned, or a payment is in progress", body = openapi::Error),
        (status = 422, description = "`VALIDATION_ERROR`: Stripe would refuse the total", body = openapi::Error),
        (status = 502, description = "`PAYMENT_PROVIDER_ERROR`: Stripe refused it; the message has the reason", body = openapi::Error),
    ),
)]
pub(crate) async fn ask(
    State(state): State<AppState>,
    by: By,
    CartPath(id): CartPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wanted = WantedWait::of(&headers);
    let longest = wanted.at_most(state.config.payment_link_wait);
    request_and_wait(&state, &id, &by, longest).await.map(|response| wanted.applied_to(response))
}

/// Requests the link, and waits for it for at most `longest`.
async fn request_and_wait(state: &AppState, id: &CartId, by: &By, longest: Duration) -> Result<Response, ApiError> {
    let deadline = Instant::now() + longest;
    let mut is_repeated = false;
    loop {
        let news = LinkWait::begin(&state.news);
        let asked = match request::request(state, id, Requester::Key(&by.0)).await {
            Err(error) if is_repeated && error.is_not_found() => {
                return Err(ApiError::conflict("The cart was deleted while the request waited"));
            }
            Err(error) if error.is_conflict() && !is_repeated => {
                if !look_up(state, id).await? {
                    return Err(error);
                }
                let wait = deadline.saturating_duration_since(Instant::now());
                news.looked_up(&state.lookups, id, wait).await?;
                is_repeated = true;
                continue;
            }
            asked => asked?,
        };
        is_repeated = true;
        if asked.link.status == LinkStatus::Open {
            return ready(state, &asked.link, asked.recovery, None).map(|ready| Data(ready).into_response());
        }
        let wait = deadline.saturating_duration_since(Instant::now());
        match news.settled(&state.newest_links, asked.link, wait).await? {
            Some(link) if link.is_live(state.clock.now()) => {
                return ready(state, &link, asked.recovery, None).map(|ready| Data(ready).into_response());
            }
            Some(link) if link.status == LinkStatus::Pending => {
                return Ok(accepted(state, id, &link, asked.recovery));
            }
            Some(link) if link.refusal().is_some() => {
                if payment_links::is_processing(&mut state.lookups.acquire().await?, id.as_str()).await? {
                    return Err(Refusal::PaymentInProgress.into());
                }
                return Err(ApiError::payment_provider(link.refusal().unwrap_or_default()));
            }
            // Paid, expired, deleted or changed while the request waited. A cart that was changed
            // needs another link; for other carts the request is refused with the reason.
            _ => {}
        }
    }
}

/// Has the worker look up the cart's payment in progress at Stripe, because the event about its end
/// may be lost. `false` if there is none, or it was looked up within the last minute.
pub(crate) async fn look_up(state: &AppState, id: &CartId) -> Result<bool, ApiError> {
    let mut tx = state.lookups.begin().await?;
    let queued = reconciliation::look_up(&mut tx, id.as_str(), state.clock.stopped()).await?;
    tx.commit().await?;
    Ok(queued)
}

/// Create a recovery link
///
/// Or extend the one that the cart has. This is the link for mails alone. No checkout is created,
/// and Stripe is not called. The URL of a cart never changes; each request extends it.
#[utoipa::path(
    post, path = "/carts/{id}/recovery-link", operation_id = "extendRecoveryLink", tag = "Payment links",
    params(("id" = String, Path, pattern = "^cart_[A-Za-z0-9_-]{1,100}$", description = "Which cart.")),
    responses(
        (status = 200, description = "The link", body = Success<Recovery>),
        (status = 409, description = "`CONFLICT`: the cart is not abandoned, or a payment is in progress", body = openapi::Error),
        (status = 422, description = "`VALIDATION_ERROR`: Stripe would refuse the total", body = openapi::Error),
    ),
)]
async fn extend_recovery_link(
    State(state): State<AppState>,
    by: By,
    CartPath(id): CartPath,
) -> Result<Data<Recovery>, ApiError> {
    let link = request::extend_recovery_link(&state, &id, &by.0).await?;
    let recovery_url = link.url(&state.config.shared.public_url);
    Ok(Data(Recovery { recovery_url, recovery_expires_at: link.expires_at }))
}

fn accepted(state: &AppState, id: &CartId, link: &PaymentLink, recovery: Option<RecoveryLink>) -> Response {
    let body = Data(Pending::new(state, link, None, recovery));
    let mut response = (StatusCode::ACCEPTED, [(header::RETRY_AFTER, RETRY_AFTER)], body).into_response();
    // A cart id is valid in a header.
    if let Ok(location) = HeaderValue::from_str(&at(&format!("/api/carts/{id}/payment-link"))) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// How long the client wants to wait, by `Prefer: respond-async` and `Prefer: wait=N` (RFC 7240).
struct WantedWait {
    respond_async: bool,
    seconds: Option<u64>,
}

impl WantedWait {
    fn of(headers: &HeaderMap) -> Self {
        let preferences = Preferences::of(headers);
        let seconds = preferences.get("wait").and_then(|seconds| seconds.parse().ok());
        Self { respond_async: preferences.get("respond-async").is_some(), seconds }
    }

    /// Both preferences together mean: asynchronously after that time.
    fn at_most(&self, longest: Duration) -> Duration {
        match self.seconds {
            Some(seconds) => Duration::from_secs(seconds).min(longest),
            None if self.respond_async => Duration::ZERO,
            None => longest,
        }
    }

    /// Adds `Preference-Applied`. `respond-async` has no effect on a response with the link.
    fn applied_to(&self, mut response: Response) -> Response {
        if self.respond_async && response.status() == StatusCode::ACCEPTED {
            preferences::applied(&mut response, "respond-async");
        }
        if let Some(seconds) = self.seconds {
            preferences::applied(&mut response, &format!("wait={seconds}"));
        }
        response
    }
}

/// Get a payment link
///
/// The state of the newest request: `ready`, `pending` or `failed`.
#[utoipa::path(
    get, path = "/carts/{id}/payment-link", operation_id = "showPaymentLink", tag = "Payment links",
    params(("id" = String, Path, pattern = "^cart_[A-Za-z0-9_-]{1,100}$", description = "Which cart.")),
    responses((status = 200, description = "Its state", body = Success<LinkState>, headers(
        ("Retry-After" = u32, description = "Seconds to wait while the link is pending; otherwise absent.")), examples(
        ("ready" = (value = json!({"success": true, "data": {"status": "ready",
            "paymentLink": "https://checkout.stripe.com/c/pay/cs_live_1", "expiresAt": "2026-03-02T12:00:00Z",
            "recoveryUrl": "https://shop.example/pay/68c74c5982cad91b70d86c123bd95080",
            "recoveryExpiresAt": "2026-03-08T12:00:00Z"}}))),
        ("pending" = (value = json!({"success": true, "data": {"status": "pending",
            "jobId": "0199a3b2-7c1e-7d40-9a55-3f2f0c1d2e4b", "attempts": 1, "lastError": "Stripe can't be reached",
            "recoveryUrl": "https://shop.example/pay/68c74c5982cad91b70d86c123bd95080",
            "recoveryExpiresAt": "2026-03-08T12:00:00Z"}}))),
        ("failed" = (value = json!({"success": true, "data": {"status": "failed", "code": "amount_too_small",
            "reason": "The amount is below the minimum"}}))),
    ))),
)]
async fn show(
    State(state): State<AppState>,
    CartPath(id): CartPath,
) -> Result<(Option<[(HeaderName, HeaderValue); 1]>, Data<LinkState>), ApiError> {
    let mut conn = state.lookups.acquire().await?;
    let now = state.clock.now();
    carts::find(&mut conn, &id, now).await?.ok_or_else(ApiError::cart_not_found)?;
    let (mut link, mut job) = newest(&mut conn, &id).await?;
    if link.status == LinkStatus::Pending && !job.as_ref().is_some_and(|job| job.is_unfinished()) {
        (link, job) = newest(&mut conn, &id).await?; // the job may have ended between the two queries
    }
    let (code, reason) = match link.status {
        LinkStatus::Open if link.is_live(now) => {
            let recovery = payment_links::recovery::find(&mut conn, &id).await?;
            return Ok((None, Data(LinkState::Ready(ready(&state, &link, recovery, Some("ready"))?))));
        }
        LinkStatus::Pending if job.as_ref().is_some_and(|job| job.is_unfinished()) => {
            let recovery = payment_links::recovery::find(&mut conn, &id).await?;
            let pending = LinkState::Pending(Pending::new(&state, &link, job, recovery));
            return Ok((Some([(header::RETRY_AFTER, RETRY_AFTER)]), Data(pending)));
        }
        LinkStatus::Pending => ("job_lost", "its job was lost"),
        LinkStatus::Failed | LinkStatus::Settling => ("link_withdrawn", "it was withdrawn"),
        LinkStatus::PaymentFailed => ("payment_failed", "the payment failed; request a new link"),
        LinkStatus::Processing => ("payment_under_way", "a payment is in progress"),
        LinkStatus::Paid => ("recovered", "it was paid"),
        _ if link.session_expires_at <= now => ("link_expired", "it has expired; request a new link"),
        LinkStatus::Open | LinkStatus::Closing | LinkStatus::Closed => {
            ("session_closed", "it was closed; request a new link")
        }
    };
    let refusal = job.and_then(|job| job.last_error).or_else(|| link.refusal().map(str::to_owned));
    let code_of_refusal = match link.status {
        LinkStatus::Pending => payment_links::failure_code(&mut conn, id.as_str(), link.version).await?,
        _ if refusal.is_some() => payment_links::failure_code(&mut conn, id.as_str(), link.version).await?,
        _ => None,
    };
    let (code, reason) =
        (code_of_refusal.unwrap_or_else(|| code.to_owned()), refusal.unwrap_or_else(|| reason.to_owned()));
    Ok((None, Data(LinkState::Failed(Failed { status: "failed", code, reason }))))
}

/// The newest request for a link, and its job if the request is pending.
async fn newest(conn: &mut Connection, id: &CartId) -> Result<(PaymentLink, Option<JobSummary>), ApiError> {
    let link = payment_links::latest(conn, id.as_str()).await?;
    let link = link.ok_or_else(|| ApiError::not_found("No payment link was requested"))?;
    let job = match link.status {
        LinkStatus::Pending => operations::find(conn, link.job_id).await?,
        _ => None,
    };
    Ok((link, job))
}

fn ready(
    state: &AppState,
    link: &PaymentLink,
    recovery: Option<RecoveryLink>,
    status: Option<&'static str>,
) -> Result<Ready, ApiError> {
    let url = link.url.clone().ok_or_else(|| ApiError::internal("an open link has no address"))?;
    let (recovery_url, recovery_expires_at) = address_and_end(state, recovery);
    Ok(Ready { status, payment_link: url, expires_at: link.session_expires_at, recovery_url, recovery_expires_at })
}

/// The URL of a recovery link, and when it expires.
fn address_and_end(state: &AppState, recovery: Option<RecoveryLink>) -> (Option<String>, Option<DateTime<Utc>>) {
    recovery.map(|recovery| (recovery.url(&state.config.shared.public_url), recovery.expires_at)).unzip()
}
