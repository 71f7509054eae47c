//! Refuses what a route does not declare in its OpenAPI description: query parameters always,
//! because a misspelt filter would otherwise return everything, and fields of the body if the
//! client asks for that with `Prefer: handling=strict`.

pub(crate) mod fields;

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::Method,
    middleware::{self, Next},
    response::Response,
};
use utoipa_axum::router::{UtoipaMethodRouter, UtoipaMethodRouterExt};

use self::fields::KnownFields;
use super::{
    error::ApiError,
    preferences::{self, Preferences, STRICT},
};
use crate::{openapi, state::AppState};

/// Longest part of a name that an error message repeats, in characters.
const QUOTED_CHARACTERS: usize = 40;
/// How similar a known name must be to be suggested, from 0 to 1.
const SUGGESTED_SIMILARITY: f64 = 0.5;

/// What a method of a route declares.
#[derive(Debug)]
pub(crate) struct Declared {
    pub(crate) method: Method,
    /// The names of the query parameters.
    pub(crate) query: Vec<String>,
    /// The fields of the body; `None` if the route takes none.
    pub(crate) body: Option<KnownFields>,
}

/// Makes the routes return 400 for a query parameter that is not in their description, that is not
/// among the `params(…)` of `#[utoipa::path]`, and 422 on request for a field that is not in the
/// schema of the body.
pub(crate) fn refuse_others(mut routes: UtoipaMethodRouter<AppState>) -> UtoipaMethodRouter<AppState> {
    let declared: Arc<[Declared]> = openapi::declare(&mut routes.1, &routes.0).into();
    let layer = middleware::from_fn_with_state(declared, check);
    routes.map(|routes| routes.route_layer(layer))
}

async fn check(
    State(declared): State<Arc<[Declared]>>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
    let declared = declared.iter().find(|declared| declared.method == method);
    if let Some(query) = request.uri().query() {
        check_query(query, declared.map(|declared| declared.query.as_slice()).unwrap_or_default())?;
    }
    let fields = declared.and_then(|declared| declared.body.as_ref());
    let Some(fields) = fields.filter(|_| Preferences::of(request.headers()).is_strict()) else {
        return Ok(next.run(request).await);
    };
    request.extensions_mut().insert(fields.clone());
    let mut response = next.run(request).await;
    preferences::applied(&mut response, STRICT);
    Ok(response)
}

/// An unknown name is refused even if its value is empty.
fn check_query(query: &str, declared: &[String]) -> Result<(), ApiError> {
    let mut names = form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name);
    let Some(unknown) = names.find(|name| !declared.iter().any(|declared| declared == name)) else { return Ok(()) };
    let hint = match nearest(&unknown, declared) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None if declared.is_empty() => "this endpoint takes none".to_owned(),
        None => format!("this endpoint takes `{}`", declared.join("`, `")),
    };
    Err(ApiError::bad_request(format!("Unknown query parameter `{}`; {hint}", quoted(&unknown))))
}

/// An unknown name as an error message has it.
fn quoted(unknown: &str) -> String {
    unknown.chars().take(QUOTED_CHARACTERS).collect()
}

/// The known name that is similar to `unknown`; `None` if there is none.
fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a String>) -> Option<&'a str> {
    let unknown = quoted(unknown).to_lowercase();
    let similarity = |name: &str| strsim::normalized_damerau_levenshtein(&unknown, &name.to_lowercase());
    let similar = known.into_iter().map(|name| (similarity(name), name.as_str()));
    let nearest = similar.max_by(|one, other| one.0.total_cmp(&other.0));
    nearest.filter(|(similarity, _)| *similarity > SUGGESTED_SIMILARITY).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_nearest_parameter() {
        let declared = ["status", "email", "externalId", "page", "limit", "cursor"].map(str::to_owned);
        let message = |query: &str| check_query(query, &declared).unwrap_err().body().message.to_owned();
        for (query, nearest) in [
            ("statsu=paid", "status"),
            ("page=1&Status=", "status"),
            ("external_id=a", "externalId"),
            ("e-mail=ada", "email"),
            ("limits", "limit"),
        ] {
            let message = message(query);
            assert!(message.ends_with(&format!("; did you mean `{nearest}`?")), "{message}");
        }
        let long = format!("{}=1", "x".repeat(50_000));
        for query in ["colour=red", "=1", "a%00b=1", &long] {
            let message = message(query);
            let all = "; this endpoint takes `status`, `email`, `externalId`, `page`, `limit`, `cursor`";
            assert!(message.ends_with(all) && message.len() < 200, "{message}");
        }
        for query in ["", "&&", "status=&status=paid", "p%61ge=1"] {
            assert!(check_query(query, &declared).is_ok(), "{query}");
        }
        let of_none = check_query("page=1", &[]).unwrap_err();
        assert_eq!(of_none.body().message, "Unknown query parameter `page`; this endpoint takes none");
    }
}
