//! A proxy that `TRUSTED_PROXIES` does not name is reported once in the log, and on the dashboard.

use nix::sys::signal::Signal;
use reqwest::Method;
use tests::{App, Setup};

use crate::{dashboard::Operator, processes::Shop};

const CONCERN: &str = "127.0.0.1 forwards requests and is not in TRUSTED_PROXIES";

async fn overview(app: &App) -> String {
    Operator::sign_in(app, "test-key").await.get("/").await.text
}

#[tokio::test]
async fn the_dashboard_names_the_proxy() {
    for (name, value) in [("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=203.0.113.9;proto=https")] {
        let app = Setup::default().without_worker().start().await;
        assert!(!overview(&app).await.contains("TRUSTED_PROXIES"));
        app.send(app.bare_request(Method::GET, "/healthz").header(name, value)).await.data(200);
        let page = overview(&app).await;
        assert!(page.contains(CONCERN), "{name}: {page}");
        assert!(!page.contains("203.0.113.9"), "the client is nobody's business");
    }
}

#[tokio::test]
async fn a_named_proxy_is_no_concern() {
    let app = Setup::default().set("TRUSTED_PROXIES", "127.0.0.0/8").without_worker().start().await;
    app.send(app.bare_request(Method::GET, "/healthz").header("x-forwarded-for", "203.0.113.9")).await.data(200);
    assert!(!overview(&app).await.contains("TRUSTED_PROXIES"));
}

#[tokio::test]
async fn the_log_has_one_line() {
    let shop = Shop::open().await;
    let mut api = shop.api().await;
    for number in 0..5 {
        let request = shop.http.get(shop.url("/healthz")).header("x-forwarded-for", format!("203.0.113.{number}"));
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    api.signal(Signal::SIGTERM);
    let mut lines = Vec::new();
    while let Some(line) = api.next_line().await {
        lines.push(line);
    }
    let warnings: Vec<&String> = lines.iter().filter(|line| line.contains("TRUSTED_PROXIES")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("WARN"), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("203.0.113.")), "{lines:#?}");
}
