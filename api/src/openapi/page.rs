//! The page of `/docs`: Swagger UI, which shows the OpenAPI document and sends requests.

use maud::{DOCTYPE, html};

use crate::{
    dashboard::assets::{ICON, START_SWAGGER_UI, SWAGGER_UI, SWAGGER_UI_STYLE},
    http::base_path::at,
};

/// Files and requests of our own origin only, and no inline script or style. Swagger UI's icons are
/// `data:` URLs.
pub(super) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn render() -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Quick Checkout Tracker – API" }
                link rel="icon" href=(ICON.address());
                link rel="stylesheet" href=(SWAGGER_UI_STYLE.address());
            }
            body {
                noscript { "This page needs JavaScript. The API is described in " a href=(at("/api/openapi.json")) { "openapi.json" } "." }
                nav aria-label="Dashboard" { a href=(at("/")) { "Dashboard" } " · " a href=(at("/start")) { "Getting started" } }
                main id="swagger-ui" {}
                script src=(SWAGGER_UI.address()) {}
                script src=(START_SWAGGER_UI.address()) {}
            }
        }
    };
    page.into_string()
}
