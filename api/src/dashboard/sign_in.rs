//! `/sign-in` and `/sign-out`.

use std::net::SocketAddr;

use axum::{
    Router,
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use common::{
    api_keys::{KeyHash, ended_sessions},
    audit::{self, Action},
};
use maud::html;

use super::{
    guard::{self, SignOutForm, SignedIn, field, go_to},
    page::{self, PageError},
    session::Sessions,
};
use crate::{
    auth::keys::opens_dashboard,
    http::{
        base_path::at,
        error::ApiError,
        query::Parameters,
        rate_limit::{self, RateLimiter},
    },
    state::AppState,
};

pub(crate) fn router(limiter: RateLimiter) -> Router<AppState> {
    let throttled = Router::new()
        .route("/sign-in", get(show).post(sign_in))
        .layer(middleware::from_fn_with_state(limiter, throttle));
    Router::new().merge(throttled).route("/sign-out", post(sign_out))
}

/// Applies the API's rate limit, so that guessing keys is no faster here.
async fn throttle(
    State(limiter): State<RateLimiter>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let page = |error| PageError::Api(error).into_response();
    rate_limit::limit_or(page, &limiter, peer, request, next).await
}

async fn show(
    State(state): State<AppState>,
    headers: HeaderMap,
    parameters: Result<Parameters, ApiError>,
) -> Result<Response, PageError> {
    let next = parameters?.get("next").filter(|next| is_ours(next)).unwrap_or("/").to_owned();
    if guard::signed_in(&state, &headers).await?.is_some() {
        return Ok(go_to(&next));
    }
    Ok(form(StatusCode::OK, &next, None))
}

async fn sign_in(State(state): State<AppState>, request: Request) -> Result<Response, PageError> {
    guard::check_origin(&state, request.headers())?;
    let secure = guard::is_https(&state, request.headers());
    let fields = guard::fields(request, &state).await?;
    let next = field(&fields, "next").filter(|next| is_ours(next)).unwrap_or("/");
    let given = field(&fields, "key").map(str::trim).unwrap_or_default();
    let now = state.clock.now();
    let given = KeyHash::of(given.as_bytes());
    let Some(known) = state.keys.find(&given).await? else {
        return Ok(form(StatusCode::UNAUTHORIZED, next, Some("This API key isn't valid.")));
    };
    if !opens_dashboard(known.scopes) {
        let wrong = "This API key has neither the operator nor the support scope.";
        return Ok(form(StatusCode::FORBIDDEN, next, Some(wrong)));
    }
    let cookie = state.dashboard.sessions.open(known.key, Some(given), secure, now);
    let cookie = cookie.and_then(|cookie| HeaderValue::from_str(&cookie).ok());
    let cookie = cookie.ok_or_else(|| ApiError::internal("a session could not be opened"))?;
    let mut response = go_to(next);
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

/// Ends the session, including for copies of its cookie.
async fn sign_out(
    State(state): State<AppState>,
    headers: HeaderMap,
    SignOutForm(SignedIn { session, by, .. }): SignOutForm,
) -> Result<Response, PageError> {
    let now = state.clock.now();
    let mut tx = state.lookups.begin().await?;
    ended_sessions::end(&mut tx, &session.hash, session.ends_at, now).await?;
    audit::note_many(&mut tx, &by.0, Action::SessionEnded, &[], 1, now).await?;
    tx.commit().await?;
    state.keys.sign_out(session.hash, session.ends_at);
    let mut response = go_to("/sign-in");
    if let Ok(cookie) = HeaderValue::from_str(&Sessions::close(guard::is_https(&state, &headers))) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Whether a path stays on this host, so that signing in can't redirect to another site.
fn is_ours(path: &str) -> bool {
    path.starts_with('/') && !path.starts_with("//") && !path.contains('\\') && !path.contains(char::is_control)
}

fn form(status: StatusCode, next: &str, wrong: Option<&str>) -> Response {
    let body = html! {
        section.card.narrow {
            h1 { "Sign in" }
            p.muted {
                "Use an API key with the " code { "operator" } " scope or, to look only, the " code { "support" } " scope. "
                "You stay signed in for 12 hours."
            }
            form.stack method="post" action=(at("/sign-in")) {
                input type="hidden" name="next" value=(next);
                label for="key" { "API key" }
                input id="key" name="key" type="password" autocomplete="current-password" required autofocus
                    aria-describedby=[wrong.map(|_| "wrong")] aria-invalid=[wrong.map(|_| "true")];
                @if let Some(wrong) = wrong { p #wrong .problem role="alert" { (wrong) } }
                button.button.primary type="submit" { "Sign in" }
            }
        }
    };
    page::bare(status, "Sign in", &body)
}

#[cfg(test)]
mod tests {
    use super::is_ours;

    #[test]
    fn sign_in_redirects_only_to_our_own_paths() {
        assert!(is_ours("/") && is_ours("/carts?status=abandoned"));
        for elsewhere in ["https://evil.example", "//evil.example", "/\\evil.example", "", "carts", "/\n"] {
            assert!(!is_ours(elsewhere), "{elsewhere:?}");
        }
    }
}
