//! Every page in every look: no overflow, no accessibility problems.

use browser_tests::Chromium;
use sandbox::stripe::{Fault, Operation};
use tests::{App, Setup, eventually};

use crate::{LOOKS, app, keep, origin, sign_in};

/// Creates a cart with a link, a cart whose link Stripe refused, a cart in another currency, and an
/// unsigned webhook.
async fn prepare(app: &App) -> (String, String) {
    app.stripe.fail_next(Operation::Create, Fault::Refused);
    let refused = app.cart().await;
    app.ask(&refused).await.is_error(502, "PAYMENT_PROVIDER_ERROR");
    let linked = app.cart().await;
    app.ask(&linked).await.data(200);
    let mut euros = tests::a_cart();
    euros["currency"] = serde_json::json!("eur");
    app.cart_of(&euros).await;
    app.signed_webhook("{}", "t=1,v1=00").await.is_error(400, "BAD_REQUEST");
    eventually("the dead job is there", async || {
        app.get("/api/jobs?state=dead").await.data(200)["pagination"]["total"] == 1
    })
    .await;
    let dead = app.get("/api/jobs?state=dead").await.data(200)["jobs"][0]["id"].as_str().unwrap().to_owned();
    (linked, dead)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_fits_and_is_accessible() {
    let app = app().await;
    let (cart, job) = prepare(&app).await;
    let pages = [
        ("overview", "/".to_owned()),
        ("quarter", "/?period=90d".to_owned()),
        ("value", "/?chart=value".to_owned()),
        ("range", "/?startDate=2024-01-01&endDate=2026-01-31".to_owned()),
        ("carts", "/carts".to_owned()),
        ("cart", format!("/carts/{cart}")),
        ("expire-selected", format!("/carts/selected?action=expire&id={cart}")),
        ("delete", format!("/carts/{cart}/delete")),
        ("expire", format!("/carts/{cart}/expire")),
        ("start", "/start".to_owned()),
        ("nothing-found", "/carts?q=nobody".to_owned()),
        ("jobs", "/jobs".to_owned()),
        ("job", format!("/jobs/{job}")),
        ("retry", "/jobs/retry".to_owned()),
        ("queues", "/queues".to_owned()),
        ("queue", "/queues/payment-links".to_owned()),
        ("dismiss-selected", format!("/jobs/selected?action=discard&id={job}")),
        ("schedules", "/schedules".to_owned()),
        ("audit", "/audit".to_owned()),
    ];
    for look in LOOKS {
        let Some(chromium) = Chromium::start().await else { return };
        let tab = chromium.tab(look).await;
        tab.open(&app.url("/sign-in")).await;
        tab.is_accessible().await;
        keep(&tab, look, "dashboard-sign-in").await;
        tab.close().await;
        let tab = sign_in(&app, &chromium, look).await;
        for (name, path) in &pages {
            tab.open(&app.url(path)).await;
            tab.fits().await;
            tab.is_accessible().await;
            keep(&tab, look, &format!("dashboard-{name}")).await;
        }
        tab.was_good(&origin(&app));
        chromium.close().await;
    }
}

/// A shop without carts: what to send instead of figures.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_shop_fits_and_is_accessible() {
    browser_tests::build_harness().await;
    let app = Setup::default().start().await;
    for look in LOOKS {
        let Some(chromium) = Chromium::start().await else { return };
        let tab = sign_in(&app, &chromium, look).await;
        for (name, path) in [("overview", "/"), ("start", "/start"), ("carts", "/carts"), ("jobs", "/jobs")] {
            tab.open(&app.url(path)).await;
            tab.fits().await;
            tab.is_accessible().await;
            keep(&tab, look, &format!("dashboard-empty-{name}")).await;
        }
        tab.open(&app.url("/")).await;
        tab.press("main", "Getting started").await;
        tab.is_at("/start").await;
        tab.press("#step-cart", "Copy").await;
        tab.sees("Copied").await;
        tab.was_good(&origin(&app));
        chromium.close().await;
    }
}
