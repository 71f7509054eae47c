//! The check of the key of each call, and faults on demand.

use axum::{
    http::{HeaderMap, StatusCode},
    response::{Html, IntoResponse, Response},
};

use super::{
    Shared,
    faults::{Fault, KeyState, Operation},
    lock,
    refusal::Refusal,
};

fn key(headers: &HeaderMap) -> Option<&str> {
    headers.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ")
}

/// Refuses keys that may not do this, as <https://docs.stripe.com/api/errors> says: 401 for a key that
/// is not valid, 403 for one that lacks a right. The messages repeat the end of the key.
pub(super) fn authorize(shared: &Shared, headers: &HeaderMap, operation: Operation) -> Result<(), Refusal> {
    let Some(key) = key(headers).filter(|key| key.starts_with("sk_") || key.starts_with("rk_")) else {
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "Invalid API Key provided"));
    };
    let hidden: String = key.chars().enumerate().map(|(at, c)| if (8..12).contains(&at) { '*' } else { c }).collect();
    match *lock(&shared.faults.key) {
        KeyState::Revoked => Err(Refusal::new(StatusCode::UNAUTHORIZED, format!("Invalid API Key provided: {hidden}"))),
        KeyState::ReadOnly if matches!(operation, Operation::Create | Operation::Expire) => {
            let message = format!(
                "The provided key '{hidden}' does not have the required permissions for this endpoint on account \
                 'acct_1'. Having the 'rak_checkout_session_write' permission would allow this request to continue."
            );
            Err(Refusal::new(StatusCode::FORBIDDEN, message))
        }
        _ => Ok(()),
    }
}

/// Whether the key is for live mode (<https://docs.stripe.com/keys#test-live-modes>).
pub(super) fn is_live(headers: &HeaderMap) -> bool {
    key(headers).is_some_and(|key| key.starts_with("sk_live_") || key.starts_with("rk_live_"))
}

/// Checks the key, and applies faults that replace the response. `Ok` returns a fault to be applied
/// later, if any.
pub(super) async fn meet(
    shared: &Shared,
    headers: &HeaderMap,
    operation: Operation,
) -> Result<Option<Fault>, Response> {
    let fault = shared.faults.next(operation);
    authorize(shared, headers, operation).map_err(IntoResponse::into_response)?;
    match fault {
        Some(Fault::RateLimited { retry_after }) => {
            let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, "Too many requests hit the API too quickly.");
            Err(([("retry-after", retry_after.to_string())], refusal).into_response())
        }
        Some(Fault::Unavailable { retry_after }) => {
            let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "Stripe is not available.");
            Err(([("retry-after", retry_after.to_string())], refusal).into_response())
        }
        Some(Fault::ResetBefore) => reset(),
        Some(Fault::Slow(duration)) => {
            tokio::time::sleep(duration).await;
            Ok(None)
        }
        Some(Fault::Garbage) => Err("\u{1f4a5} not JSON".into_response()),
        Some(Fault::HtmlBadGateway) => {
            Err((StatusCode::BAD_GATEWAY, Html("<html><h1>502 Bad Gateway</h1></html>")).into_response())
        }
        Some(Fault::Html { status }) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            Err((status, Html("<html><h1>This is not Stripe</h1></html>")).into_response())
        }
        Some(Fault::RefusedWith(message)) => Err(Refusal::invalid(message).into_response()),
        Some(Fault::RefusedAbout(param)) => {
            Err(Refusal::invalid(format!("Invalid {param}")).about(param).into_response())
        }
        Some(Fault::Refused) => Err(Refusal::invalid("Your account cannot currently make charges.").into_response()),
        Some(Fault::Unauthorized) => {
            Err(Refusal::new(StatusCode::UNAUTHORIZED, "Invalid API Key provided: sk_test_****1234").into_response())
        }
        other => Ok(other),
    }
}

/// Closes the connection without a response, by unwinding the task that serves it. Logs nothing.
pub(super) fn reset() -> ! {
    std::panic::resume_unwind(Box::new("a reset on demand"))
}
