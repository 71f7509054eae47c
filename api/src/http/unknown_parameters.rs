//! Refuses query parameters that a route does not declare in its OpenAPI description: a misspelt
//! filter would otherwise return everything.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::Method,
    middleware::{self, Next},
    response::Response,
};
use utoipa_axum::router::{UtoipaMethodRouter, UtoipaMethodRouterExt};

use super::error::ApiError;
use crate::{openapi, state::AppState};

/// Longest part of a name that an error message repeats, in characters.
const QUOTED_CHARACTERS: usize = 40;
/// How similar a declared name must be to be suggested, from 0 to 1.
const SUGGESTED_SIMILARITY: f64 = 0.5;

/// The names of the query parameters that each method of a route declares.
type Declared = Arc<[(Method, Vec<String>)]>;

/// Makes the routes return 400 for a query parameter that is not in their description, that is not
/// among the `params(…)` of `#[utoipa::path]`.
pub(crate) fn refuse(mut routes: UtoipaMethodRouter<AppState>) -> UtoipaMethodRouter<AppState> {
    let declared: Declared = openapi::declare_query(&mut routes.1).into();
    let layer = middleware::from_fn_with_state(declared, check);
    routes.map(|routes| routes.route_layer(layer))
}

async fn check(State(declared): State<Declared>, request: Request, next: Next) -> Result<Response, ApiError> {
    if let Some(query) = request.uri().query() {
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        let declared = declared.iter().find(|(declared, _)| declared == method).map(|(_, names)| names.as_slice());
        check_query(query, declared.unwrap_or_default())?;
    }
    Ok(next.run(request).await)
}

/// An unknown name is refused even if its value is empty.
fn check_query(query: &str, declared: &[String]) -> Result<(), ApiError> {
    let mut names = form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name);
    match names.find(|name| !declared.iter().any(|declared| declared == name)) {
        Some(unknown) => Err(refusal(&unknown, declared)),
        None => Ok(()),
    }
}

fn refusal(unknown: &str, declared: &[String]) -> ApiError {
    let unknown: String = unknown.chars().take(QUOTED_CHARACTERS).collect();
    let similarity =
        |name: &String| strsim::normalized_damerau_levenshtein(&unknown.to_lowercase(), &name.to_lowercase());
    let nearest = declared.iter().map(|name| (similarity(name), name)).max_by(|one, other| one.0.total_cmp(&other.0));
    let hint = match nearest {
        Some((similarity, nearest)) if similarity > SUGGESTED_SIMILARITY => format!("did you mean `{nearest}`?"),
        Some(_) => format!("this endpoint takes `{}`", declared.join("`, `")),
        None => "this endpoint takes none".to_owned(),
    };
    ApiError::bad_request(format!("Unknown query parameter `{unknown}`; {hint}"))
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
