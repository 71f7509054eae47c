//! Live updates: rows keep the focus and the pointer, updates can be paused, and a page that is no
//! longer up to date says so.

use browser_tests::{Chromium, Tab};
use serde_json::json;
use tests::{App, Setup, a_line};

use crate::{LOOKS, keep, origin, sign_in};

/// A small shop, whose page of carts shows all of them.
async fn shop(carts: usize) -> App {
    browser_tests::build_harness().await;
    let app = Setup::default().start().await;
    for number in 0..carts {
        add(&app, &format!("Shopper {number}")).await;
    }
    app
}

async fn add(app: &App, name: &str) {
    app.cart_of(&a_line(json!({"customerName": name}))).await;
}

fn row(name: &str) -> String {
    format!("[...document.querySelectorAll('.rows tbody tr')].find(row => row.innerText.includes('{name}'))")
}

async fn watches(tab: &Tab) {
    tab.finds("document.querySelector('#live-state').innerText === 'Live'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_keep_the_focus_and_the_pointer() {
    // Few, so that nothing can be scrolled yet; and as many as a page has.
    for carts in [3, 40] {
        let app = shop(carts).await;
        let Some(chromium) = Chromium::start().await else { return };
        let tab = sign_in(&app, &chromium, LOOKS[0]).await;
        tab.open(&app.url("/carts")).await;
        watches(&tab).await;
        let name = format!("Shopper {}", carts - 2);
        let focus = format!("{}.querySelector('a').focus()", row(&name));
        let _: serde_json::Value = tab.ask(&focus).await;
        let focused = "document.activeElement.innerText";
        assert_eq!(tab.ask::<String>(focused).await, name);
        let top = format!("Math.round({}.getBoundingClientRect().top)", row(&name));
        let before: i64 = tab.ask(&top).await;
        let is_there = async |before: i64| (tab.ask::<i64>(&top).await - before).abs() <= 1; // scrolling is in whole pixels

        add(&app, "The first to come").await;
        tab.sees("The first to come").await;
        assert_eq!(tab.ask::<String>(focused).await, name, "the focus stays on its cart");
        assert!(is_there(before).await, "and the row at its place");

        tab.hover(&row(&name)).await;
        let under = format!("{}.matches(':hover')", row(&name));
        tab.finds(&under).await;
        let _: serde_json::Value = tab.ask("document.activeElement.blur()").await;
        let before: i64 = tab.ask(&top).await;
        for number in 0..3 {
            add(&app, &format!("Newcomer {number}")).await;
        }
        tab.sees("Newcomer 2").await;
        assert!(is_there(before).await, "the pointer stays on its cart");
        assert!(tab.ask::<bool>(&under).await);
        tab.was_good(&origin(&app));
        chromium.close().await;
    }
}

/// An element that becomes another one is replaced: a key press meant for the first must not do the other.
#[tokio::test(flavor = "multi_thread")]
async fn actions_are_not_turned_into_others() {
    let app = shop(0).await;
    let id = app.cart().await;
    let Some(chromium) = Chromium::start().await else { return };
    let tab = sign_in(&app, &chromium, LOOKS[0]).await;
    tab.open(&app.url(&format!("/carts/{id}"))).await;
    watches(&tab).await;
    let _: serde_json::Value = tab.ask("document.querySelector('#recover').focus()").await;
    app.patch(&format!("/api/carts/{id}"), &json!({"status": "recovered"})).await.data(200);
    tab.finds("document.querySelector('h1 .badge').innerText === 'Recovered'").await;
    assert!(
        tab.ask::<bool>("document.activeElement === document.body").await,
        "\"Mark recovered\" did not become \"Delete\""
    );
    assert!(tab.ask::<bool>("document.querySelector('#recover, #do-carts-expire') === null").await);
    tab.was_good(&origin(&app));
    chromium.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_can_be_paused() {
    let app = shop(1).await;
    let Some(chromium) = Chromium::start().await else { return };
    let tab = sign_in(&app, &chromium, LOOKS[0]).await;
    tab.open(&app.url("/carts")).await;
    watches(&tab).await;
    tab.press("#live", "Pause").await;
    tab.sees("Paused, last updated ").await;
    add(&app, "Came during the pause").await;
    let overview = chromium.tab(LOOKS[0]).await;
    overview.open(&app.url("/")).await;
    overview.sees("Paused, last updated ").await; // the choice holds on every page
    overview.sees("Came during the pause").await;
    tab.to_front().await;
    assert!(!tab.text("main").await.contains("Came during the pause"));
    tab.is_accessible().await;
    tab.press("#live", "Resume").await;
    tab.sees("Came during the pause").await;
    watches(&tab).await;
    tab.was_good(&origin(&app));
    chromium.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_without_session_says_so() {
    let app = shop(1).await;
    let Some(chromium) = Chromium::start().await else { return };
    for look in [LOOKS[0], LOOKS[3]] {
        let tab = sign_in(&app, &chromium, look).await;
        let other = chromium.tab(look).await;
        other.open(&app.url("/")).await;
        other.press("", "Sign out").await;
        other.is_at("/sign-in").await;
        other.close().await;
        tab.to_front().await;
        tab.sees("Signed out, last updated ").await;
        tab.fits().await;
        tab.is_accessible().await;
        keep(&tab, look, "dashboard-signed-out").await;
        tab.press("#live", "Reload").await;
        tab.is_at("/sign-in").await;
        tab.close().await;
    }
    chromium.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_without_database_says_so_until_it_is_back() {
    let app = shop(1).await;
    let Some(chromium) = Chromium::start().await else { return };
    let tab = sign_in(&app, &chromium, LOOKS[0]).await;
    watches(&tab).await;
    app.database.accept_connections(false).await;
    tab.sees("Disconnected, last updated ").await;
    tab.finds("document.querySelector('#live-reload').checkVisibility()").await;
    app.database.accept_connections(true).await;
    watches(&tab).await;
    chromium.close().await;
}
