//! The path of `PUBLIC_URL`, below which all addresses are.
//!
//! Some proxies pass the path on to the api, others remove it. So every route is served at the root
//! and below the path, and every address that the api writes has the path.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{Uri, uri::PathAndQuery},
    middleware::{self, Next},
    response::Response,
};
use url::Url;

tokio::task_local! {
    /// Set for each request, if the path is not empty.
    static BASE_PATH: BasePath;
}

/// The path of `PUBLIC_URL` without a slash at its end; empty if there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BasePath(Arc<str>);

/// The address of one of the api's own paths, which begins with `/`.
pub(crate) fn at(path: &str) -> String {
    BASE_PATH.try_with(|base| format!("{}{path}", base.0)).unwrap_or_else(|_| path.to_owned())
}

impl BasePath {
    pub(crate) fn of(public_url: &str) -> Self {
        let url = Url::parse(public_url);
        Self(url.map(|url| url.path().trim_end_matches('/').into()).unwrap_or_default())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Serves the router at the root and below the path.
    pub(crate) fn serve(self, router: Router) -> Router {
        if self.is_empty() {
            return router;
        }
        // Not `nest`, with which routes would match, and be logged, under two names.
        Router::new().fallback_service(router).layer(middleware::from_fn_with_state(self, below))
    }

    /// The address without the path; `None` if it does not begin with the path.
    fn strip(&self, uri: &Uri) -> Option<Uri> {
        let rest = uri.path().strip_prefix(&*self.0)?;
        if !rest.is_empty() && !rest.starts_with('/') {
            return None;
        }
        let path = if rest.is_empty() { "/" } else { rest };
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(format!("{path}{query}")).ok()?);
        Uri::from_parts(parts).ok()
    }
}

async fn below(State(base): State<BasePath>, mut request: Request, next: Next) -> Response {
    if let Some(uri) = base.strip(request.uri()) {
        *request.uri_mut() = uri;
    }
    BASE_PATH.scope(base, next.run(request)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_has_no_slash_at_its_end() {
        for (url, path) in [
            ("https://shop.example", ""),
            ("https://shop.example/", ""),
            ("https://shop.example/tracker", "/tracker"),
            ("https://shop.example/a/b//", "/a/b"),
            ("https://shop.example/caf\u{e9}", "/caf%C3%A9"),
        ] {
            assert_eq!(BasePath::of(url).as_str(), path, "{url}");
        }
    }

    #[test]
    fn only_whole_segments_are_removed() {
        let base = BasePath::of("https://shop.example/tracker");
        let strip = |uri: &str| base.strip(&uri.parse().unwrap()).map(|uri| uri.to_string());
        for (uri, stripped) in [
            ("/tracker", Some("/")),
            ("/tracker/", Some("/")),
            ("/tracker?period=7d", Some("/?period=7d")),
            ("/tracker/carts?page=2", Some("/carts?page=2")),
            ("/tracker/tracker", Some("/tracker")),
            ("http://shop.example/tracker/jobs", Some("http://shop.example/jobs")),
            ("/trackers", None),
            ("/carts", None),
            ("*", None),
        ] {
            assert_eq!(strip(uri).as_deref(), stripped, "{uri}");
        }
    }

    #[tokio::test]
    async fn addresses_have_the_path_within_a_request() {
        let base = BasePath::of("https://shop.example/tracker");
        assert_eq!(at("/carts"), "/carts");
        BASE_PATH
            .scope(base, async { assert_eq!((at("/carts"), at("/")), ("/tracker/carts".into(), "/tracker/".into())) })
            .await;
    }
}
