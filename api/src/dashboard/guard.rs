//! Authenticates requests for pages, and protects forms against cross-site request forgery.

use axum::{
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, Method, header, request::Parts},
    response::Response,
};
use common::api_keys::Scope;
use subtle::ConstantTimeEq;
use url::Url;

use super::{
    FORM_BYTES,
    notice::Notice,
    page::{self, PageError},
    session::{Operator, Session, TOKEN},
};
use crate::{
    auth::keys::{By, KnownKey},
    http::{body::media_type, error::ApiError},
    state::AppState,
};

/// The header with which the script of an open page asks for the page again.
const LIVE: &str = "x-live";

impl FromRequestParts<AppState> for Operator {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, PageError> {
        match operator(state, &parts.headers).await? {
            Some(operator) => Ok(operator),
            // A link from another site (a mail, a chat) comes without the cookie, which is
            // SameSite=Strict. The page reloads itself once, and that request has the cookie.
            None if text(&parts.headers, "sec-fetch-site") == Some("cross-site") && parts.method == Method::GET => {
                Err(PageError::Again)
            }
            None if parts.method == Method::GET => {
                Err(PageError::SignIn(parts.uri.path_and_query().map(ToString::to_string)))
            }
            None => Err(PageError::SignIn(None)),
        }
    }
}

/// The operator who sent a request; `None` if nobody is signed in.
///
/// # Errors
/// 503 if the signed-out sessions were never read from the database.
pub(crate) async fn operator(state: &AppState, headers: &HeaderMap) -> Result<Option<Operator>, ApiError> {
    let Some(SignedIn { session, by, may_change }) = signed_in(state, headers).await? else { return Ok(None) };
    // An open page that updates itself must not take the notice of the page in another tab.
    let notice = if headers.contains_key(LIVE) { None } else { Notice::find(headers, &session) };
    Ok(Some(Operator { session, by, may_change, zone: state.config.time_zone, now: state.clock.now(), notice }))
}

/// A session, and what its key allows.
#[derive(Debug)]
pub(crate) struct SignedIn {
    pub(crate) session: Session,
    pub(crate) by: By,
    /// Whether the key may change anything: whether it has the scope `operator`.
    pub(crate) may_change: bool,
}

/// The session of a request; `None` if there is none or it has ended.
///
/// # Errors
/// 503 if the signed-out sessions were never read from the database.
pub(crate) async fn signed_in(state: &AppState, headers: &HeaderMap) -> Result<Option<SignedIn>, ApiError> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let now = state.clock.now();
    let find = |cookies| state.dashboard.sessions.find(cookies, now, |id| state.keys.dashboard(id));
    let Some(session) = cookies.into_iter().find_map(find) else { return Ok(None) };
    let signed_out = state.keys.is_signed_out(&session.hash).await?;
    let key = state.keys.known(session.key).filter(|_| !signed_out);
    let signed_in = |key: KnownKey| SignedIn { session, by: By(key.name), may_change: key.scopes.has(Scope::Operator) };
    Ok(key.map(signed_in))
}

/// The fields of a form of the dashboard that changes something, sent by a signed-in operator. A key
/// without the scope `operator` is refused with 403.
#[derive(Debug)]
pub(crate) struct OurForm {
    pub(crate) by: By,
    session: Session,
    /// Whether cookies must not be sent over HTTP.
    secure: bool,
    fields: Vec<(String, String)>,
}

impl OurForm {
    /// A field without surrounding white space; `None` if it is missing or empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        field(&self.fields, name).map(str::trim).filter(|value| !value.is_empty())
    }

    /// All values of a repeated field.
    pub(crate) fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        self.fields.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Redirects to a path of the dashboard, whose page tells once what was done.
    pub(crate) fn done(&self, path: &str, text: &str) -> Response {
        page::redirect_with(path, &Notice::done(text), &self.session, self.secure)
    }
}

impl FromRequest<AppState> for OurForm {
    type Rejection = PageError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, PageError> {
        let secure = is_https(state, request.headers());
        let (SignedIn { session, by, may_change }, fields) = our_fields(request, state).await?;
        if may_change {
            Ok(Self { by, session, secure, fields })
        } else {
            Err(ApiError::forbidden(Scope::Operator).into())
        }
    }
}

/// A form of the dashboard that ends its session, which every key may.
#[derive(Debug)]
pub(crate) struct SignOutForm(pub(crate) SignedIn);

impl FromRequest<AppState> for SignOutForm {
    type Rejection = PageError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, PageError> {
        Ok(Self(our_fields(request, state).await?.0))
    }
}

/// The fields of a form that a page of this session has sent.
async fn our_fields(request: Request, state: &AppState) -> Result<(SignedIn, Vec<(String, String)>), PageError> {
    let signed_in = signed_in(state, request.headers()).await?.ok_or(PageError::SignIn(None))?;
    check_origin(state, request.headers())?;
    let fields = fields(request, state).await?;
    let given = field(&fields, TOKEN).unwrap_or_default();
    if bool::from(given.as_bytes().ct_eq(signed_in.session.form_token.as_bytes())) {
        Ok((signed_in, fields))
    } else {
        Err(refused("This form is of another session. Open the page again and repeat what you did."))
    }
}

/// The value of a field; of a repeated field the last one.
pub(crate) fn field<'f>(fields: &'f [(String, String)], name: &str) -> Option<&'f str> {
    fields.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// The fields of any form.
pub(crate) async fn fields(request: Request, state: &AppState) -> Result<Vec<(String, String)>, PageError> {
    let is_form = media_type(request.headers()).is_some_and(|name| name == "application/x-www-form-urlencoded");
    let body = state.unverified_bodies.read(request, FORM_BYTES).await?;
    let fields: Vec<(String, String)> = form_urlencoded::parse(&body).into_owned().collect();
    if !is_form || fields.iter().any(|(_, value)| value.contains('\0')) {
        return Err(ApiError::bad_request("The form can't be read").into());
    }
    Ok(fields)
}

/// Checks that a form was sent from a page of the dashboard, by the headers that browsers set.
pub(crate) fn check_origin(state: &AppState, headers: &HeaderMap) -> Result<(), PageError> {
    let ours = match text(headers, "sec-fetch-site") {
        Some(site) => site == "same-origin",
        // Older browsers, and all browsers without HTTPS, send only the page's origin.
        None => headers.get(header::ORIGIN).is_none_or(|origin| {
            let origin = origin.to_str().unwrap_or_default();
            let host = origin.split_once("://").map(|(_, host)| host);
            let public = || Url::parse(&state.config.shared.public_url).map(|url| url.origin().ascii_serialization());
            host.is_some_and(|host| text(headers, "host") == Some(host))
                || public().is_ok_and(|public| public == origin)
        }),
    };
    if ours { Ok(()) } else { Err(refused("This form was sent from another site.")) }
}

fn refused(why: &str) -> PageError {
    ApiError::bad_request(why).into()
}

/// Whether the request came over HTTPS, as far as the headers show. Then the cookie must not be
/// sent over HTTP.
pub(crate) fn is_https(state: &AppState, headers: &HeaderMap) -> bool {
    let forwarded = text(headers, "x-forwarded-proto").and_then(|value| value.split(',').next());
    let public = state.config.shared.public_url.strip_prefix("https://");
    forwarded.is_some_and(|scheme| scheme.trim().eq_ignore_ascii_case("https"))
        || public
            .and_then(|public| public.split('/').next().zip(text(headers, "host")))
            .is_some_and(|(public, host)| host.eq_ignore_ascii_case(public))
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Redirects to a path of the dashboard after a form, so that a reload does not send the form
/// again.
pub(crate) fn go_to(path: &str) -> Response {
    page::redirect(path)
}
