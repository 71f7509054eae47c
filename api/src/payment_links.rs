//! `/api/carts/{id}/payment-link`: asks the worker for a link and waits for it.

use std::time::Duration;

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use chrono::{DateTime, Utc};
use common::{
    carts::{self, CartId},
    db::Connection,
    operations::{self, JobSummary},
    payment_links::{self, LinkStatus, PaymentLink},
    recovery_links::{self, RecoveryLink},
};
use serde::Serialize;

use crate::{
    AppState,
    body::Data,
    carts::CartPath,
    error::ApiError,
    link_requests::{self, RecoveryTime},
    link_wait::LinkWait,
};

/// What a client that got 202 should wait.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

pub(crate) fn router() -> Router<AppState> {
    Router::new().route("/carts/{id}/payment-link", get(show).post(ask))
}

/// A link that works.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    payment_link: String,
    expires_at: DateTime<Utc>,
    recovery_url: Option<String>,
    recovery_expires_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pending {
    status: &'static str,
    job_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<i16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Failed {
    status: &'static str,
    reason: String,
}

pub(crate) async fn ask(
    State(state): State<AppState>,
    CartPath(id): CartPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wait = wait_wanted(&headers, state.config.payment_link_wait);
    let news = LinkWait::begin(&state.news);
    let asked = link_requests::request(&state, &id, RecoveryTime::Extend).await?;
    if asked.link.status == LinkStatus::Open {
        return ready(&state, &asked.link, asked.recovery, None).map(|ready| Data(ready).into_response());
    }
    let settled = news.settled(&state.links.latest, asked.link, wait).await?;
    match settled {
        Some(link) if link.is_live(state.clock.now()) => {
            ready(&state, &link, asked.recovery, None).map(|ready| Data(ready).into_response())
        }
        Some(link) if link.status == LinkStatus::Pending => Ok(accepted(&id, &link)),
        Some(link) if link.refusal().is_some() => {
            if payment_links::is_processing(&mut state.by_key.acquire().await?, id.as_str()).await? {
                return Err(link_requests::under_way());
            }
            Err(ApiError::payment_provider(link.refusal().unwrap_or_default()))
        }
        // Paid, expired or deleted while we waited.
        _ => Err(ApiError::conflict("The cart can't be paid any more")),
    }
}

fn accepted(id: &CartId, link: &PaymentLink) -> Response {
    let body = Data(Pending { status: "pending", job_id: link.job_id.to_string(), attempts: None, last_error: None });
    let mut response = (StatusCode::ACCEPTED, body).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    // An id is made of letters, digits and underscores.
    if let Ok(location) = HeaderValue::from_str(&format!("/api/carts/{id}/payment-link")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// `Prefer: respond-async` and `Prefer: wait=N` (RFC 7240).
fn wait_wanted(headers: &HeaderMap, longest: Duration) -> Duration {
    let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut wait = longest;
    for preference in preferences.flat_map(|value| value.split(',')).map(str::trim) {
        if preference.eq_ignore_ascii_case("respond-async") {
            return Duration::ZERO;
        }
        let seconds = preference.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("wait"));
        if let Some(seconds) = seconds.and_then(|(_, value)| value.trim().trim_matches('"').parse().ok()) {
            wait = Duration::from_secs(seconds).min(longest);
        }
    }
    wait
}

async fn show(State(state): State<AppState>, CartPath(id): CartPath) -> Result<Response, ApiError> {
    let mut conn = state.by_key.acquire().await?;
    let now = state.clock.now();
    carts::find(&mut conn, &id, now).await?.ok_or_else(ApiError::cart_not_found)?;
    let (mut link, mut job) = newest(&mut conn, &id).await?;
    if link.status == LinkStatus::Pending && !job.as_ref().is_some_and(|job| job.is_unfinished()) {
        (link, job) = newest(&mut conn, &id).await?; // it may have ended between the two looks
    }
    let failed = |reason: &str| Data(Failed { status: "failed", reason: reason.to_owned() }).into_response();
    Ok(match link.status {
        LinkStatus::Open if link.is_live(now) => {
            let recovery = recovery_links::find(&mut conn, &id).await?;
            Data(ready(&state, &link, recovery, Some("ready"))?).into_response()
        }
        LinkStatus::Pending => match job {
            Some(job) if job.is_unfinished() => Data(Pending {
                status: "pending",
                job_id: link.job_id.to_string(),
                attempts: Some(job.attempts),
                last_error: job.last_error,
            })
            .into_response(),
            job => failed(job.and_then(|job| job.last_error).as_deref().unwrap_or("its job was lost")),
        },
        LinkStatus::Failed | LinkStatus::Settling => failed(link.refusal().unwrap_or("it was withdrawn")),
        LinkStatus::PaymentFailed => failed("the payment failed; ask for a new link"),
        LinkStatus::Processing => failed("a payment is under way"),
        LinkStatus::Paid => failed("it was paid"),
        LinkStatus::Open | LinkStatus::Closing | LinkStatus::Closed => {
            failed(link.refusal().unwrap_or("it has expired; ask for a new link"))
        }
    })
}

/// The newest request, and the job that is to make it.
async fn newest(conn: &mut Connection, id: &CartId) -> Result<(PaymentLink, Option<JobSummary>), ApiError> {
    let link = payment_links::latest(conn, id.as_str()).await?;
    let link = link.ok_or_else(|| ApiError::not_found("No payment link was asked for"))?;
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
    let (recovery_url, recovery_expires_at) = recovery
        .map(|recovery| (format!("{}/pay/{}", state.config.public_url, recovery.token), recovery.expires_at))
        .unzip();
    Ok(Ready { status, payment_link: url, expires_at: link.session_expires_at, recovery_url, recovery_expires_at })
}
