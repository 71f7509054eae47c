//! `PUBLIC_URL` with a path, behind proxies that pass the path on and behind those that remove it.

use std::collections::{BTreeSet, VecDeque};

use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use tests::{App, Setup, a_cart};

const PUBLIC_URL: &str = "http://shop.example/tracker";
const BASE: &str = "/tracker";
/// How proxies send a path: as it is, or without the path of `PUBLIC_URL`.
const PROXIES: [&str; 2] = [BASE, ""];

async fn start() -> App {
    Setup::default().set("PUBLIC_URL", PUBLIC_URL).start().await
}

/// Sends a request past the contract, which describes the paths at the root.
async fn send(request: reqwest::RequestBuilder) -> Response {
    request.send().await.unwrap()
}

fn location(response: &Response) -> &str {
    response.headers()["location"].to_str().unwrap()
}

/// An address as a browser sees it, as the proxy sends it.
fn behind(proxy: &str, address: &str) -> String {
    let path = address.strip_prefix(BASE).unwrap_or_else(|| panic!("{address} is outside of {BASE}"));
    format!("{proxy}{path}")
}

/// Signs in; returns the cookie.
async fn sign_in(app: &App, proxy: &str) -> String {
    let form = app.bare_request(Method::POST, &format!("{proxy}/sign-in")).header("origin", "http://shop.example");
    let form = form.header("content-type", "application/x-www-form-urlencoded").body("key=test-key&next=/carts");
    let answer = send(form).await;
    assert_eq!((answer.status(), location(&answer)), (StatusCode::SEE_OTHER, "/tracker/carts"));
    let cookie = answer.headers()["set-cookie"].to_str().unwrap();
    assert!(cookie.contains("; Path=/tracker/"), "{cookie}");
    cookie.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn an_operator_signs_in_acts_and_signs_out() {
    let app = start().await;
    for proxy in PROXIES {
        let get = |path: &str| app.bare_request(Method::GET, &format!("{proxy}{path}"));
        let asked = send(get("/jobs?state=dead")).await;
        assert_eq!(location(&asked), "/tracker/sign-in?next=%2Fjobs%3Fstate%3Ddead");
        let form = send(get("/sign-in")).await.text().await.unwrap();
        assert!(form.contains(r#"action="/tracker/sign-in""#), "{form}");
        let cookie = sign_in(&app, proxy).await;
        let page = send(get("/queues").header("cookie", &cookie)).await.text().await.unwrap();
        let token = page.split_once(r#"name="token" value=""#).unwrap().1.split('"').next().unwrap().to_owned();
        for (action, leads_to) in [("/queues/expiry/pause", "/tracker/queues"), ("/sign-out", "/tracker/sign-in")] {
            let form = app.bare_request(Method::POST, &format!("{proxy}{action}")).header("cookie", &cookie);
            let form = form.header("content-type", "application/x-www-form-urlencoded");
            assert_eq!(location(&send(form.body(format!("token={token}"))).await), leads_to);
        }
        let events = send(get("/events").header("cookie", sign_in(&app, proxy).await)).await;
        assert_eq!(events.headers()["content-type"], "text/event-stream");
    }
}

/// The addresses of our own in a page: of links, forms, scripts, style sheets and pictures.
fn addresses(page: &str) -> BTreeSet<(bool, String)> {
    let attributes = [" href=\"", " src=\"", " action=\""];
    let of = |name: &'static str| {
        let values = page.split(name).skip(1).map(|rest| rest.split('"').next().unwrap_or_default());
        values
            .filter(|value| value.starts_with('/'))
            .map(move |value| (name == attributes[2], value.replace("&amp;", "&")))
    };
    attributes.into_iter().flat_map(of).collect()
}

/// Follows every link of the dashboard and of `/docs`.
#[tokio::test]
async fn every_address_is_below_the_path_and_leads_somewhere() {
    let app = start().await;
    for _ in 0..30 {
        app.cart().await;
    }
    let id = app.cart().await;
    app.ask(&id).await.data(200);
    for proxy in PROXIES {
        let cookie = sign_in(&app, proxy).await;
        let mut waiting = VecDeque::from(
            ["/", "/docs", "/sign-in", "/jobs/retry", "/jobs/cancel", "/carts/nonsense"]
                .map(|path| format!("{BASE}{path}")),
        );
        waiting.push_back(format!("{BASE}/carts/{id}/delete"));
        let mut seen: BTreeSet<String> = waiting.iter().cloned().collect();
        while let Some(address) = waiting.pop_front() {
            let answer = send(app.bare_request(Method::GET, &behind(proxy, &address)).header("cookie", &cookie)).await;
            let good = answer.status().is_success() || address.ends_with("/nonsense") || address.ends_with("/sign-in");
            assert!(good, "{} of {address}", answer.status());
            let kind = answer.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
            let body = answer.text().await.unwrap();
            if kind.is_some_and(|kind| kind.starts_with("text/html")) {
                for (is_form, found) in addresses(&body) {
                    assert!(found.starts_with("/tracker/"), "{found} in {address}");
                    // Each bar of a chart leads to the carts of its day: one of them is enough.
                    if found.contains("from=") && seen.iter().any(|address| address.contains("from=")) {
                        continue;
                    }
                    if !is_form && seen.len() < 150 && seen.insert(found.clone()) {
                        waiting.push_back(found);
                    }
                }
            } else if address.contains("/assets/dashboard") || address.contains("/assets/docs") {
                assert!(!body.contains("\"/"), "{address} has an absolute path");
            }
        }
        assert!(seen.iter().any(|address| address.contains("page=2")) && seen.len() > 40, "{seen:#?}");
    }
}

#[tokio::test]
async fn the_api_names_addresses_below_the_path() {
    let app = start().await;
    app.cart().await;
    for proxy in PROXIES {
        let ask = |method: Method, path: &str| app.request(method, &format!("{proxy}{path}"));
        let made = send(ask(Method::POST, "/api/carts").json(&a_cart())).await;
        let cart = behind(proxy, location(&made));
        assert!(location(&made).starts_with("/tracker/api/carts/cart_"), "{}", location(&made));
        let read = send(app.request(Method::GET, &cart)).await;
        assert_eq!(read.status(), 200);
        let link = send(app.request(Method::POST, &format!("{cart}/payment-link")).header("prefer", "respond-async"));
        let accepted = link.await;
        assert_eq!(accepted.status(), 202);
        let read = send(app.request(Method::GET, &behind(proxy, location(&accepted)))).await;
        assert_eq!(read.status(), 200);
        let document: Value = send(ask(Method::GET, "/api/openapi.json")).await.json().await.unwrap();
        let servers = document["servers"].as_array().unwrap().iter().map(|server| server["url"].as_str().unwrap());
        assert_eq!(servers.collect::<Vec<_>>(), [PUBLIC_URL, "/tracker"]);
        let list = send(ask(Method::GET, "/api/carts?limit=1&status=abandoned")).await;
        let next = list.headers()["link"].to_str().unwrap().to_owned();
        let next = next.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap();
        assert!(next.starts_with("/tracker/api/carts?limit=1&status=abandoned&cursor="), "{next}");
        assert_eq!(send(app.request(Method::GET, &behind(proxy, next))).await.status(), 200);
        assert!(document["paths"]["/api/carts"].is_object());
    }
}

#[tokio::test]
async fn shoppers_stay_below_the_path() {
    let app = start().await;
    let id = app.cart().await;
    let link = app.ask(&id).await.data(200);
    let url = link["recoveryUrl"].as_str().unwrap();
    let path = url.strip_prefix("http://shop.example").unwrap();
    assert!(path.starts_with("/tracker/pay/"), "{url}");
    let success_url = app.stripe.sessions()[0].success_url.clone();
    assert_eq!(success_url, format!("{url}/thanks"));
    for proxy in PROXIES {
        let opened = send(app.bare_request(Method::GET, &behind(proxy, path))).await;
        assert_eq!((opened.status().as_u16(), location(&opened)), (303, link["paymentLink"].as_str().unwrap()));
        let thanks = send(app.bare_request(Method::GET, &format!("{}/thanks", behind(proxy, path)))).await;
        let page = thanks.text().await.unwrap();
        assert!(page.contains("Thank you!") && addresses(&page).is_empty(), "{page}");
    }
}

#[tokio::test]
async fn other_paths_are_not_ours() {
    let app = start().await;
    for path in ["/trackers", "/trackerapi/carts", "/tracker/tracker", "/tracker//sign-in", "/other/carts"] {
        let answer = send(app.bare_request(Method::GET, path)).await;
        assert_eq!(answer.status(), 404, "{path}");
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["error"]["code"], "NOT_FOUND");
    }
    assert_eq!(send(app.bare_request(Method::GET, "/healthz")).await.status(), 200);
    assert_eq!(send(app.bare_request(Method::GET, "/tracker/readyz")).await.status(), 200);
}
