//! The way from a recovery link to the checkout, with and without scripts, in both directions.

use browser_tests::Chromium;
use sandbox::stripe::Operation;
use serde_json::json;
use tests::{App, Setup, a_line};

use crate::{KEY, LOOKS, keep, origin};

/// The address of a recovery link for which no checkout was created.
async fn recovery_url(app: &App, locale: &str) -> String {
    let id = app.cart_of(&a_line(json!({"locale": locale}))).await;
    let link = app.extend(&id).await.data(200);
    link["recoveryUrl"].as_str().unwrap().to_owned()
}

async fn shop() -> App {
    browser_tests::build_harness().await;
    Setup::default().set("SHOP_NAME", "Tea & Co").set("SHOP_URL", "https://shop.example").start().await
}

const AT_CHECKOUT: &str = "location.pathname.startsWith('/c/pay/') && document.readyState === 'complete'";

#[tokio::test(flavor = "multi_thread")]
async fn a_script_presses_the_button() {
    let app = shop().await;
    let Some(chromium) = Chromium::start().await else { return };
    let tab = chromium.tab(LOOKS[0]).await;
    tab.open(&recovery_url(&app, "en").await).await;
    tab.finds(AT_CHECKOUT).await;
    assert_eq!(app.stripe.calls(Operation::Create), 1);
    tab.press("", "Pay").await;
    tab.sees("Thank you!").await;
    tab.is_accessible().await;
    chromium.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_button_works_without_scripts() {
    let app = shop().await;
    for (look, (locale, direction, button)) in
        LOOKS.into_iter().zip([("ar-EG", "rtl", "المتابعة إلى الدفع"), ("de", "ltr", "Weiter zur Zahlung")].repeat(2))
    {
        let Some(chromium) = Chromium::start().await else { return };
        let tab = chromium.tab(look).await;
        tab.allow_scripts(false).await;
        let calls = app.stripe.calls(Operation::Create);
        tab.open(&recovery_url(&app, locale).await).await;
        tab.sees(button).await;
        tab.finds(&format!("document.documentElement.dir === '{direction}'")).await;
        tab.sees("Tea & Co").await;
        tab.fits().await;
        tab.allow_scripts(true).await; // axe-core waits
        tab.is_accessible().await;
        tab.allow_scripts(false).await;
        keep(&tab, look, &format!("shopper-{direction}")).await;
        assert_eq!(app.stripe.calls(Operation::Create), calls, "opening creates nothing");
        tab.press("form", button).await;
        tab.finds(AT_CHECKOUT).await;
        chromium.close().await;
    }
}

/// The dashboard and `/docs` below a path: links, forms, scripts, styles and the event stream.
#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_works_below_a_path() {
    browser_tests::build_harness().await;
    let app = Setup::default().set("PUBLIC_URL", "http://shop.example/tracker").start().await;
    app.cart().await;
    let Some(chromium) = Chromium::start().await else { return };
    let tab = chromium.tab(LOOKS[0]).await;
    tab.open(&app.url("/tracker")).await;
    tab.is_at("/tracker/sign-in").await;
    tab.types("#key", KEY, true).await;
    tab.is_at("/tracker/").await;
    tab.finds("document.documentElement.dataset.watching === 'yes'").await;
    tab.press("nav", "Carts").await;
    tab.is_at("/tracker/carts").await;
    tab.press("", "Ada Lovelace").await;
    tab.press("", "Create payment link").await;
    tab.sees("Active").await;
    tab.press("", "Sign out").await;
    tab.is_at("/tracker/sign-in").await;
    tab.open(&app.url("/tracker/docs")).await;
    tab.sees("List carts").await;
    tab.was_good(&origin(&app));
    chromium.close().await;
}
