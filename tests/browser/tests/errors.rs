//! Errors and notices, as operators see them.

use browser_tests::{Chromium, Tab};

use crate::{LOOKS, app, keep, sign_in};

/// The distance of the card to the edges of the window is a margin.
async fn has_margins(tab: &Tab) {
    let (left, right): (f64, f64) = tab
        .ask("(() => { const r = document.querySelector('.card').getBoundingClientRect(); return [r.left, document.documentElement.clientWidth - r.right]; })()")
        .await;
    let place: String = tab.ask("location.href").await;
    assert!(left >= 8.0 && right >= 8.0, "{left} and {right} at {place}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_fit_and_are_accessible() {
    let app = app().await;
    for look in LOOKS {
        let Some(chromium) = Chromium::start().await else { return };
        let tab = chromium.tab(look).await;
        for path in ["/sign-in", "/nothing-here"] {
            tab.open(&app.url(path)).await;
            tab.fits().await;
            has_margins(&tab).await;
            tab.is_accessible().await;
        }
        tab.close().await;
        let tab = sign_in(&app, &chromium, look).await;
        for (name, path) in [
            ("not-found", "/nothing-here"),
            ("no-cart", "/carts/cart_unknown"),
            ("wrong-range", "/?startDate=2026-03-02&endDate=2026-03-01"),
            ("wrong-state", "/jobs?state=lost"),
        ] {
            tab.open(&app.url(path)).await;
            tab.sees("Sign out").await;
            tab.fits().await;
            has_margins(&tab).await;
            tab.is_accessible().await;
            keep(&tab, look, &format!("dashboard-{name}")).await;
        }
        app.sql("alter table queues rename to other").await;
        tab.open(&app.url("/queues")).await;
        app.sql("alter table other rename to queues").await;
        tab.sees("Something went wrong").await;
        tab.finds("document.querySelector('#request-id').innerText.length === 36").await;
        tab.fits().await;
        tab.is_accessible().await;
        tab.press("", "Copy").await;
        tab.sees("Copied").await;
        chromium.close().await;
    }
}

/// The range is corrected where it was entered; Esc and a click elsewhere close the form.
#[tokio::test(flavor = "multi_thread")]
async fn the_form_of_the_range_explains_and_closes() {
    let app = app().await;
    let Some(chromium) = Chromium::start().await else { return };
    let tab = sign_in(&app, &chromium, LOOKS[0]).await;
    let is_open = "document.querySelector('#range').open";
    tab.press("", "Custom").await;
    tab.finds(is_open).await;
    tab.key("Escape").await;
    tab.finds(&format!("!{is_open}")).await;
    assert!(tab.ask::<bool>("document.activeElement.innerText === 'Custom'").await);
    tab.press("", "Custom").await;
    tab.finds(is_open).await;
    tab.press("#numbers", "Show as table").await; // outside of the form
    tab.finds(&format!("!{is_open}")).await;
    tab.press("", "Custom").await;
    tab.press("#range", "Today").await;
    tab.finds("location.search.startsWith('?startDate=') && document.readyState === 'complete'").await;
    tab.open(&app.url("/?startDate=2026-03-02&endDate=2026-03-01")).await;
    tab.sees("From must not be after To.").await;
    tab.finds(is_open).await;
    tab.finds("document.querySelector('[name=startDate]').value === '2026-03-02'").await;
    chromium.close().await;
}

/// What was done is said once, and not again after a reload.
#[tokio::test(flavor = "multi_thread")]
async fn notices_are_gone_after_a_reload() {
    let app = app().await;
    let Some(chromium) = Chromium::start().await else { return };
    let tab = sign_in(&app, &chromium, LOOKS[0]).await;
    tab.open(&app.url("/queues")).await;
    tab.press("#queue-expiry", "Pause").await;
    tab.sees("Queue expiry paused.").await;
    tab.is_accessible().await;
    assert_eq!(tab.ask::<String>("location.search").await, "");
    tab.open(&app.url("/queues")).await;
    assert_eq!(tab.ask::<usize>("document.querySelectorAll('.notice').length").await, 0);
    tab.press("#queue-expiry", "Resume").await;
    tab.sees("Queue expiry resumed.").await;
    // Refused because somebody else was faster.
    let id = app.cart().await;
    tab.open(&app.url(&format!("/carts/{id}/recover"))).await;
    app.delete(&format!("/api/carts/{id}")).await.data(200);
    tab.press("main", "Mark recovered").await;
    tab.sees("Cart not found").await;
    tab.press("", "Back to the cart").await;
    tab.press("", "Back to carts").await;
    tab.is_at("/carts").await;
    chromium.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_shows_what_matters() {
    let app = app().await;
    let Some(chromium) = Chromium::start().await else { return };
    let tab = sign_in(&app, &chromium, LOOKS[2]).await;
    let inside = |found: &str| {
        format!(
            "(() => {{ const r = {found}.getBoundingClientRect(); return r.width > 0 && r.left >= 0 && r.right <= document.documentElement.clientWidth; }})()"
        )
    };
    tab.open(&app.url("/jobs?state=dead")).await;
    assert!(tab.ask::<bool>(&inside("document.querySelector('.tabs [aria-current]')")).await, "the chosen tab");
    assert_eq!(tab.text(".tabs [aria-current]").await, "Dead 0");
    tab.open(&app.url("/schedules")).await;
    tab.finds("document.querySelectorAll('tbody tr').length > 3").await;
    assert!(
        tab.ask::<bool>("(s => s.scrollWidth <= s.clientWidth)(document.querySelector('.scroll'))").await,
        "the table fits"
    );
    assert!(tab.ask::<bool>(&inside("document.querySelector('tbody tr td:nth-child(4)')")).await, "the next run");
    let mut large = tests::a_cart();
    large["items"] = serde_json::json!([{"name": "Palace", "quantity": 1, "price": tests::exact("999800.01")}]);
    app.cart_of(&large).await;
    tab.open(&app.url("/carts")).await;
    tab.sees("$999,800.01").await;
    let within = "[...document.querySelectorAll('.rows tbody tr')].every(row => { const m = row.querySelector('.money').getBoundingClientRect(), c = row.querySelector('td.number').getBoundingClientRect(); return m.left >= c.left - 1 && m.right <= c.right + 1; })";
    assert!(tab.ask::<bool>(within).await, "sums are in their column");
    assert!(tab.ask::<bool>("[...document.querySelectorAll('.rows tbody tr')].every(row => [...row.querySelectorAll('time')].some(time => time.checkVisibility()))").await, "carts have a date");
    chromium.close().await;
}
