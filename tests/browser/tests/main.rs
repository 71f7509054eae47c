//! The dashboard, `/docs` and the pages for shoppers in Chromium: wide and narrow, light and dark.

#![allow(clippy::disallowed_types, reason = "it reads no untrusted input")]

mod docs;
mod errors;
mod live;
mod odd_text;
mod pages;
mod shoppers;
mod walk;

use browser_tests::{Chromium, Look, Tab, build_harness};
use chrono::TimeDelta;
use serde_json::json;
use tests::{App, Setup};

/// A desktop and a phone, light and dark.
const LOOKS: [Look; 4] = [
    Look { width: 1280, dark: false },
    Look { width: 1280, dark: true },
    Look { width: 390, dark: false },
    Look { width: 390, dark: true },
];

/// An API key of the harness.
const KEY: &str = "test-key";

/// Starts the product with a history of carts.
async fn app() -> App {
    build_harness().await;
    let app = Setup::default().start().await;
    import_history(&app).await;
    app
}

fn origin(app: &App) -> String {
    app.url("")
}

/// Signs in.
async fn sign_in(app: &App, chromium: &Chromium, look: Look) -> Tab {
    let tab = chromium.tab(look).await;
    tab.open(&app.url("/")).await;
    tab.is_at("/sign-in").await;
    tab.types("#key", KEY, true).await;
    tab.is_at("/").await;
    tab.finds("document.documentElement.dataset.watching === 'yes'").await;
    tab
}

/// Saves a screenshot in the folder `PICTURES`, for example for `docs/`.
async fn keep(tab: &Tab, look: Look, name: &str) {
    let Some(folder) = std::env::var_os("PICTURES") else { return };
    let look =
        format!("{}-{}", if look.width < 600 { "phone" } else { "desk" }, if look.dark { "dark" } else { "light" });
    let path = std::path::Path::new(&folder).join(format!("{name}-{look}.png"));
    std::fs::write(path, tab.picture().await).unwrap();
}

/// Imports carts of a hundred days, the same in every run except for their dates.
async fn import_history(app: &App) {
    let first = ["Ada", "Grace", "Alan", "Edsger", "Barbara", "Donald", "Margaret", "Radia", "Frances", "Hedy"];
    let last =
        ["Lovelace", "Hopper", "Turing", "Dijkstra", "Liskov", "Knuth", "Hamilton", "Perlman", "Allen", "Lamarr"];
    let items =
        [("Teapot", "49.99"), ("Kettle", "89.00"), ("Loose leaf Assam, 250 g", "12.00"), ("Tray, walnut", "64.00")];
    let mut number: usize = 7;
    let mut random = move |below: usize| {
        number = (number * 1_103_515_245 + 12_345) % 2_147_483_648;
        number / 65_536 % below
    };
    let now = app.now();
    let mut lines = String::new();
    for day in (1..=100_usize).rev() {
        for _ in 0..8 + random(7) + (100 - day) / 12 + if day % 7 < 2 { 5 } else { 0 } {
            let at =
                now - TimeDelta::days(day.try_into().unwrap()) + TimeDelta::minutes(random(700).try_into().unwrap());
            let (first, last) = (first[random(10)], last[random(10)]);
            let (name, price) = items[random(4)];
            let price: serde_json::Number = price.parse().unwrap();
            let mut cart = json!({
                "customerEmail": format!("{}.{}@example.com", first.to_lowercase(), last.to_lowercase()),
                "customerName": format!("{first} {last}"), "abandonedAt": at,
                "items": [{"name": name, "quantity": 1 + random(3), "price": price}],
            });
            if random(100) < 22 + (100 - day) / 10 {
                cart["status"] = json!("recovered");
                cart["recoveredAt"] = json!((at + TimeDelta::hours((1 + random(20)).try_into().unwrap())).min(now));
            } else if day > 30 {
                cart["status"] = json!("expired");
            }
            lines += &format!("{cart}\n");
        }
    }
    let request =
        app.request(reqwest::Method::POST, "/api/carts/import").header("content-type", "application/x-ndjson");
    let answer = app.send(request.header("prefer", "return=minimal").body(lines)).await;
    assert!(answer.text.contains(r#""errors":0"#), "{}", answer.text);
}
