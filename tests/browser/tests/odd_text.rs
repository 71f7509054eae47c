//! Text of shoppers and shops in either direction and of any length.

use browser_tests::{Chromium, Look, Tab};
use serde_json::{Value, json};
use tests::App;

use crate::{app, keep, origin, sign_in};

/// A desktop and a small phone, light and dark.
const LOOKS: [Look; 4] = [
    Look { width: 1280, dark: false },
    Look { width: 1280, dark: true },
    Look { width: 320, dark: false },
    Look { width: 320, dark: true },
];

/// A cart whose texts are Hebrew, contain U+202E (right-to-left override) or have no space.
fn hebrew(long: &str) -> Value {
    let line = |number: usize| {
        json!({"name": format!("תה ירוק {number} \u{202e}abc"), "quantity": 1.5, "price": 24, "sku": format!("SKU-{number}-{}", "x".repeat(80)),
            "url": "https://shop.example/tea", "imageUrl": "https://shop.example/tea.jpg"})
    };
    let mut items: Vec<Value> = (2..=60).map(line).collect();
    items.insert(0, json!({"name": long, "quantity": 999_999, "price": 120}));
    json!({
        "externalId": "e".repeat(200), "customerEmail": "dana@example.com", "customerName": "דנה לוי", "items": items,
        "adjustments": [{"name": "הנחה", "amount": -10}, {"name": long, "amount": 4.90}],
        "locale": "he-IL", "acceptsMarketing": false,
        "metadata": {"k".repeat(40): long, "ערוץ": "\u{202e}דואר"},
    })
}

/// A cart whose name and address are long, and whose name overrides its direction.
fn long_name() -> Value {
    let address = format!("{}@{}.example", "a".repeat(64), ["d"; 3].map(|part| part.repeat(59)).join("."));
    json!({
        "customerEmail": address, "customerName": format!("\u{202e}{}", "W".repeat(199)), "currency": "vnd",
        "items": [{"name": "\u{202e}gpj.teapot", "quantity": 1, "price": 999_999_999_999_u64}],
    })
}

fn short_name() -> Value {
    json!({"customerEmail": "noa@example.com", "customerName": "נועה \u{202e}Cohen", "externalId": "הזמנה 7",
        "items": [{"name": "קומקום", "quantity": 1, "price": 0.10}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_text_neither_widens_nor_turns_a_page() {
    let app = app().await;
    let long = "Donaudampfschifffahrtsgesellschaft".repeat(15).chars().take(500).collect::<String>();
    let mut carts = Vec::new();
    for cart in [hebrew(&long), long_name(), short_name()] {
        carts.push(app.cart_of(&cart).await);
    }
    let mut pages = vec![
        ("list", "/carts".to_owned()),
        ("overview", "/".to_owned()),
        ("search", format!("/carts?q=%E2%80%AE{}", &long[..250])),
        ("retry", format!("/jobs/retry?error=%E2%80%AE{}", "x".repeat(200))),
    ];
    pages.extend(carts.iter().zip(["hebrew", "long", "short"]).map(|(id, name)| (name, format!("/carts/{id}"))));
    pages.push(("delete", format!("/carts/{}/delete", carts[1])));
    for look in LOOKS {
        let Some(chromium) = Chromium::start().await else { return };
        let tab = sign_in(&app, &chromium, look).await;
        for (name, path) in &pages {
            tab.open(&app.url(path)).await;
            tab.fits().await;
            tab.is_accessible().await;
            keep(&tab, look, &format!("odd-{name}")).await;
        }
        badges_stay_to_the_right(&app, &tab, &carts).await;
        the_others_unfold(&app, &tab, &carts[0]).await;
        tab.was_good(&origin(&app));
        chromium.close().await;
    }
}

/// Names end before the badge, or above it.
async fn badges_stay_to_the_right(app: &App, tab: &Tab, carts: &[String]) {
    let beside = "(name, badge) => { const b = badge.getBoundingClientRect(), n = [...name.getClientRects()].at(-1);
        return b.left >= n.right - 1 || b.top >= n.bottom - 1; }";
    for id in carts {
        tab.open(&app.url(&format!("/carts/{id}"))).await;
        let right: bool = tab
            .ask(&format!("({beside})(document.querySelector('h1 bdi'), document.querySelector('h1 .badge'))"))
            .await;
        assert!(right, "the badge of {id}");
        let upright: bool = tab.ask("[...document.querySelectorAll('.sums dt, .details dt')].every(name => name.getBoundingClientRect().left < name.nextElementSibling.getBoundingClientRect().left)").await;
        assert!(upright, "the names of {id} are to the left of the values");
    }
    tab.open(&app.url("/carts")).await;
    let rows: Vec<bool> = tab
        .ask(&format!(
            "[...document.querySelectorAll('.rows tbody tr')].map(row => ({beside})(row.querySelector('th'), row.querySelector('.badge')))"
        ))
        .await;
    assert!(rows.len() > 10 && rows.into_iter().all(|right| right), "the badges of the list");
}

async fn the_others_unfold(app: &App, tab: &Tab, id: &str) {
    tab.open(&app.url(&format!("/carts/{id}"))).await;
    let visible = "[...document.querySelectorAll('[aria-labelledby=items] tbody tr')].filter(row => row.checkVisibility()).length";
    assert_eq!(tab.ask::<usize>(visible).await, 50);
    tab.press("[aria-labelledby=items]", "10 more").await;
    tab.finds(&format!("{visible} === 60")).await;
    tab.fits().await;
}
