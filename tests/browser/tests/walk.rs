//! An operator's usual actions.

use browser_tests::{Chromium, Look, Tab};
use sandbox::stripe::{Fault, Operation};
use serde_json::Value;
use tests::{App, eventually};

use crate::{LOOKS, app, origin, sign_in};

#[tokio::test(flavor = "multi_thread")]
async fn at_a_desk() {
    walk(LOOKS[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_desk_at_night() {
    walk(LOOKS[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_phone() {
    walk(LOOKS[2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_phone_at_night() {
    walk(LOOKS[3]).await;
}

async fn walk(look: Look) {
    let app = app().await;
    let Some(chromium) = Chromium::start().await else { return };
    let tab = sign_in(&app, &chromium, look).await;
    the_numbers_are_the_apis(&app, &tab).await;
    a_bar_leads_to_its_carts(&app, &tab).await;
    a_link_is_made_and_paid(&app, &chromium, &tab, look).await;
    a_queue_is_paused_and_resumed(&app, &tab).await;
    a_refused_link_is_created_anew(&app, &tab).await;
    selected_jobs_are_cancelled(&app, &tab).await;
    a_cart_is_deleted(&app, &tab).await;
    tab.press("", "Sign out").await;
    tab.is_at("/sign-in").await;
    tab.open(&app.url("/carts")).await;
    tab.is_at("/sign-in").await;
    tab.was_good(&origin(&app));
    chromium.close().await;
}

async fn figure(tab: &Tab, name: &str) -> String {
    let text = tab.text(&format!("[data-announce='{name}']")).await;
    text.chars().filter(|letter| letter.is_ascii_digit() || *letter == '.').collect()
}

async fn the_numbers_are_the_apis(app: &App, tab: &Tab) {
    for period in ["7d", "30d", "90d"] {
        tab.press("", &format!("{} days", period.trim_end_matches('d'))).await;
        tab.finds(&format!("location.search === '?period={period}' && document.readyState === 'complete'")).await;
        let answer = app.get(&format!("/api/analytics?period={period}")).await.data(200);
        let summary = &answer["summary"];
        let expected = [
            ("Abandoned", &summary["totalAbandoned"]),
            ("Recovered", &summary["totalRecovered"]),
            ("Recovery rate", &summary["recoveryRate"]),
            ("Abandoned value", &summary["totalAbandonedValue"]),
            ("Recovered revenue", &summary["totalRecoveredValue"]),
        ];
        for (name, value) in expected {
            assert_eq!(figure(tab, name).await, value.to_string(), "{name} of {period}");
        }
        let days = answer["dailyStats"].as_array().expect("days");
        tab.press("", "Show as table").await;
        let rows: Vec<Vec<String>> =
            tab.ask("[...document.querySelectorAll('#numbers tbody tr')].map(row => [...row.querySelectorAll('td')].map(cell => cell.innerText.replaceAll(',', '')))").await;
        let money = |day: &Value, field: &str| day[field].to_string();
        let of = |day: &Value| {
            let (abandoned, recovered) = (day["abandoned"].to_string(), day["recovered"].to_string());
            vec![abandoned, money(day, "abandonedValue"), recovered, money(day, "recoveredValue")]
        };
        let expected: Vec<Vec<String>> = days.iter().rev().map(of).collect();
        assert_eq!(rows.into_iter().map(|row| row[..4].to_vec()).collect::<Vec<_>>(), expected, "the days of {period}");
    }
}

/// The bars lead to the carts of their day, and the chart shows their value as well.
async fn a_bar_leads_to_its_carts(app: &App, tab: &Tab) {
    tab.open(&app.url("/?period=7d")).await;
    tab.press("[aria-label='What the chart shows']", "Value").await;
    tab.is_at("/").await;
    tab.sees("Value in USD per day").await;
    let today = app.get("/api/analytics?period=7d").await.data(200)["dailyStats"][6].clone();
    let bar = "[...document.querySelectorAll('.chart a')].filter(bar => bar.checkVisibility()).at(-1)";
    let says: String = tab.ask(&format!("{bar}.querySelector('title').textContent")).await;
    let digits =
        |text: &str| text.chars().filter(|letter| letter.is_ascii_digit() || *letter == '.').collect::<String>();
    let abandoned = says.split_once(": ").and_then(|(_, values)| values.split_once(" abandoned")).expect("a value").0;
    assert_eq!(digits(abandoned), today["abandonedValue"].to_string(), "{says}");
    let _: Value = tab.ask(&format!("{bar}.dispatchEvent(new MouseEvent('click', {{bubbles: true}}))")).await;
    tab.is_at("/carts").await;
    tab.sees(&format!("{} cart", today["abandoned"])).await;
}

async fn a_link_is_made_and_paid(app: &App, chromium: &Chromium, tab: &Tab, look: Look) {
    let id = app.cart().await;
    tab.open(&app.url("/carts")).await;
    tab.types("#q", &id, true).await;
    tab.is_at(&format!("/carts/{id}")).await;
    tab.press("", "Create payment link").await;
    tab.finds("document.readyState === 'complete' && document.querySelector('.notice') !== null").await;
    tab.finds("document.querySelector('[data-announce=\"Payment link\"]').innerText === 'Active'").await;
    let checkout: String = tab.ask("document.querySelector('#payment-url').value").await;
    assert_eq!(app.show(&id).await["paymentLink"], checkout);
    tab.press("", "Copy").await;
    tab.sees("Copied").await;

    // From here on, the page changes without being reloaded.
    let _: Value = tab.ask("window.theSamePage = true").await;
    tab.finds("document.documentElement.dataset.watching === 'yes'").await;
    let shopper = chromium.tab(look).await;
    shopper.open(&checkout).await;
    shopper.press("", "Pay").await;
    shopper.sees("Thank you!").await;
    shopper.close().await;
    tab.to_front().await;
    tab.finds("document.querySelector('h1 .badge').innerText === 'Recovered'").await;
    assert_eq!(app.show(&id).await["status"], "recovered");
    tab.finds("document.querySelector('#announcements').innerText.includes('Recovered')").await;
    assert!(tab.ask::<bool>("window.theSamePage === true").await, "it was not loaded anew");
}

async fn a_queue_is_paused_and_resumed(app: &App, tab: &Tab) {
    let paused = async || app.get("/api/queues").await.data(200)["queues"][1]["paused"].clone();
    tab.press("", "Queues").await;
    tab.is_at("/queues").await;
    tab.press("#queue-expiry", "Pause").await;
    tab.finds("document.querySelector('#queue-expiry .badge').innerText === 'Paused'").await;
    assert_eq!(paused().await, true);
    tab.press("", "Overview").await;
    tab.sees("The queue expiry is paused").await;
    tab.press("", "Queues").await;
    tab.is_at("/queues").await;
    tab.press("#queue-expiry", "Resume").await;
    tab.finds("document.querySelector('#queue-expiry .badge').innerText === 'Active'").await;
    assert_eq!(paused().await, false);
}

async fn a_refused_link_is_created_anew(app: &App, tab: &Tab) {
    app.stripe.fail_next(Operation::Create, Fault::Refused);
    let cart = app.cart().await;
    app.ask(&cart).await.is_error(502, "PAYMENT_PROVIDER_ERROR");
    tab.press("", "Overview").await;
    tab.is_at("/").await;
    // Three clicks from the overview to the reason.
    tab.press("", "1 cart without a payment link").await;
    tab.is_at("/carts").await;
    tab.press(&format!("#row-{cart}"), "Ada Lovelace").await;
    tab.is_at(&format!("/carts/{cart}")).await;
    tab.sees("cannot currently make charges").await;
    tab.press("", "Create a new link").await;
    tab.finds("document.querySelector('[data-announce=\"Payment link\"]').innerText === 'Active'").await;
    tab.press("", "Overview").await;
    tab.is_at("/").await;
    let text = tab.text("[aria-labelledby=attention]").await;
    assert!(!text.contains("without a payment link"), "{text}");
    // The dead job leads to its cart, and the cart back to its jobs.
    tab.open(&app.url("/jobs?state=dead")).await;
    tab.press("", "Create payment link").await;
    assert!(!tab.ask::<bool>("[...document.querySelectorAll('button')].some(e => e.innerText === 'Retry')").await);
    tab.press(".details", &cart).await;
    tab.is_at(&format!("/carts/{cart}")).await;
    tab.press("[aria-labelledby=jobs]", "In the list of jobs").await;
    tab.is_at("/jobs").await;
    tab.open(&app.url("/jobs?state=dead")).await;
    tab.press("", "Create payment link").await;
    tab.press("", "Dismiss").await;
    tab.sees("Job dismissed.").await;
    let jobs = app.get(&format!("/api/jobs?state=dead&cartId={cart}")).await.data(200);
    assert_eq!(jobs["pagination"]["total"], 0);
}

async fn selected_jobs_are_cancelled(app: &App, tab: &Tab) {
    app.post("/api/queues/payment-links/pause", &Value::Null).await.data(200);
    let (first, second) = (app.cart().await, app.cart().await);
    for cart in [&first, &second] {
        app.ask_later(cart).await;
    }
    tab.open(&app.url("/jobs?state=ready&kind=create_payment_link")).await;
    let select = format!("document.querySelector(\"[aria-label='Select Create payment link of {first}']\")");
    let _: Value = tab.ask(&format!("{select}.click()")).await;
    // A page that updates itself keeps the choice with its job.
    app.ask_later(&app.cart().await).await;
    tab.finds("document.querySelectorAll('tbody tr').length === 3").await;
    assert!(tab.ask::<bool>(&format!("{select}.checked")).await);
    tab.press("", "Cancel selected …").await;
    tab.press("", "Cancel 1 job").await;
    tab.sees("1 job cancelled.").await;
    let state =
        async |cart: &str| app.get(&format!("/api/jobs?cartId={cart}")).await.data(200)["jobs"][0]["state"].clone();
    assert_eq!((state(&first).await, state(&second).await), (Value::from("dead"), Value::from("ready")));
    app.post("/api/queues/payment-links/resume", &Value::Null).await.data(200);
    app.idle().await;
}

async fn a_cart_is_deleted(app: &App, tab: &Tab) {
    let id = app.cart().await;
    tab.open(&app.url(&format!("/carts/{id}"))).await;
    tab.press("", "Delete").await;
    tab.sees("Delete this cart?").await;
    tab.press("", "Cancel").await;
    tab.is_at(&format!("/carts/{id}")).await;
    tab.press("", "Delete").await;
    tab.press("", "Delete permanently").await;
    tab.sees("Cart deleted").await;
    eventually("it is gone", async || app.get(&format!("/api/carts/{id}")).await.status == 404).await;
}
