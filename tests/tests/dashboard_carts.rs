//! What the dashboard's pages of carts show.

use serde_json::json;
use tests::{
    App, Setup, a_line, eventually, exact,
    imports::{NDJSON, import},
};

use crate::dashboard::Operator;

/// The cart's page.
async fn page_of(app: &App, id: &str) -> String {
    let answer = Operator::sign_in(app, "test-key").await.get(&format!("/carts/{id}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.text
}

fn has(page: &str, texts: &[&str]) {
    for text in texts {
        assert!(page.contains(text), "{text} is not in {page}");
    }
}

fn lacks(page: &str, texts: &[&str]) {
    for text in texts {
        assert!(!page.contains(text), "{text} is in {page}");
    }
}

#[tokio::test]
async fn everything_of_a_cart_is_shown() {
    let app = Setup::default().without_worker().at("2026-03-10T12:00:00Z").start().await;
    let cart = json!({
        "externalId": "basket-1001", "customerEmail": "\"dana levi?\"@example.com", "customerName": "דנה לוי", "currency": "eur",
        "items": [
            {"name": "Tea, loose", "quantity": 1.25, "price": exact("8.004"), "total": exact("10.01"), "sku": "T-7",
                "url": "https://shop.example/tea?a=1&b=2", "imageUrl": "https://cdn.example/tea.jpg"},
            {"name": "Screws", "quantity": 12000, "price": exact("0.0125")},
        ],
        "adjustments": [{"name": "Voucher", "amount": -10}, {"name": "Shipping", "amount": exact("4.90")}],
        "locale": "he-IL", "acceptsMarketing": true, "metadata": {"till": "7", "<b>": "<i>"},
        "abandonedAt": "2026-03-09T10:00:00Z",
    });
    let id = app.cart_of(&cart).await;
    let page = page_of(&app, &id).await;
    has(&page, &["<bdi>דנה לוי</bdi>", "mailto:%22dana%20levi%3F%22@example.com", "<title>\u{2068}דנה לוי\u{2069} · "]);
    has(
        &page,
        &[r#"href="https://shop.example/tea?a=1&amp;b=2" rel="noreferrer"><bdi>Tea, loose</bdi>"#, "<bdi>T-7</bdi>"],
    );
    has(&page, &[">1.25<", ">8.004<", ">10.01<", ">12,000<", ">0.0125<", ">150.00<"]);
    has(&page, &[r#"href="https://cdn.example/tea.jpg""#]);
    assert_eq!(page.matches("<img").count(), 1, "only the product's own: {page}");
    has(&page, &["<bdi>Voucher</bdi>", ">\u{2212}€10.00<", ">€4.90<", "+<span", ">€154.91<"]);
    has(&page, &["<bdi>basket-1001</bdi>", "<bdi>he-IL</bdi>", "Marketing</dt><dd>Agreed<"]);
    has(&page, &["<bdi>till</bdi></dt><dd><bdi>7</bdi>", "<bdi>&lt;b&gt;</bdi></dt><dd><bdi>&lt;i&gt;</bdi>"]);
    has(&page, &["9 Mar 2026, 10:00:00", "10 Mar 2026, 12:00:00", "Create payment link</button>"]);
    lacks(&page, &["Paid through Stripe", "Refunded"]);

    let operator = Operator::sign_in(&app, "test-key").await;
    for path in ["/carts", "/"] {
        has(&operator.get(path).await.text, &["דנה לוי</a>", "dana levi?", "Shop's ID </span><bdi>basket-1001</bdi>"]);
    }
    assert_eq!(operator.get("/carts?q=basket-1001").await.header("location"), format!("/carts/{id}"));
    has(&operator.get("/carts?q=basket-1002").await.text, &["0 carts for “<bdi>basket-1002</bdi>”"]);
    has(&operator.get("/carts?q=basket-100").await.text, &["1 cart for “<bdi>basket-100</bdi>”", "דנה לוי</a>"]);
    has(&operator.get("/carts?q=לוי").await.text, &["1 cart for", "דנה לוי</a>"]);
}

#[tokio::test]
async fn what_is_not_known_is_named() {
    let app = Setup::default().without_worker().start().await;
    let id = app.cart_of(&a_line(json!({"customerName": null}))).await;
    let page = page_of(&app, &id).await;
    has(&page, &["No name", "<bdi>ada@example.com</bdi>", "Marketing</dt><dd>Not known<"]);
    lacks(&page, &["Metadata"]);
    let list = Operator::sign_in(&app, "test-key").await.get("/carts").await.text;
    assert_eq!(list.matches(">ada@example.com<").count(), 1, "the address is not repeated: {list}");
    lacks(&list, &["Shop's ID </span>"]);

    sqlx::query("update carts set items = '[{\"pieces\": 1}]', adjustments = '[1]'").execute(&app.pool).await.unwrap();
    has(&page_of(&app, &id).await, &["items are not readable", "adjustments are not readable", ">$99.98<"]);
}

#[tokio::test]
async fn long_carts_unfold() {
    let app = Setup::default().without_worker().start().await;
    let lines = |count: usize| {
        let line = |number| json!({"name": format!("Item {number}."), "quantity": 1, "price": 1});
        a_line(json!({"items": (1..=count).map(line).collect::<Vec<_>>()}))
    };
    let page = page_of(&app, &app.cart_of(&lines(1_000)).await).await;
    has(&page, &["<summary>950 more</summary>"]);
    let (first, others) = page.split_once("<summary>950 more</summary>").unwrap();
    assert!(first.contains("Item 50.") && !first.contains("Item 51."));
    assert!(others.contains("Item 51.") && others.contains("Item 1000.") && others.contains(">$1,000.00<"));
    lacks(&page_of(&app, &app.cart_of(&lines(50)).await).await, &[" more</summary>"]);
}

#[tokio::test]
async fn a_link_is_offered_only_where_stripe_can_charge_the_total() {
    let app = Setup::default().start().await;
    let of = |currency: &str, price: &str| {
        a_line(json!({"currency": currency, "items": [{"name": "Tea", "quantity": 1, "price": exact(price)}]}))
    };
    for (currency, price, why) in [
        ("usd", "0.49", "The total is below Stripe's minimum of $0.50"),
        ("usd", "1000000", "The total is above Stripe's maximum of $999,999.99"),
        ("kwd", "1.005", "Stripe takes two decimals of KWD, and the total has three"),
        ("irr", "1000", "Stripe does not charge IRR"),
    ] {
        let id = app.cart_of(&of(currency, price)).await;
        app.ask(&id).await.is_error(422, "VALIDATION_ERROR");
        let page = page_of(&app, &id).await;
        has(&page, &[why]);
        lacks(&page, &["Create payment link</button>", "Create a new link</button>"]);
    }
    let id = app.cart_of(&of("usd", "0.50")).await;
    has(&page_of(&app, &id).await, &["Create payment link</button>"]);
    let recovery = app.ask(&id).await.data(200)["recoveryUrl"].as_str().unwrap().to_owned();
    has(&page_of(&app, &id).await, &["Active", "Opens a live checkout.", &recovery]);

    app.patch(&format!("/api/carts/{id}"), &json!({"items": of("usd", "0.10")["items"]})).await.data(200);
    let page = page_of(&app, &id).await;
    has(&page, &["below Stripe's minimum of $0.50"]);
    lacks(&page, &["Create payment link</button>", "Create a new link</button>", &recovery]);
    for method in [reqwest::Method::GET, reqwest::Method::POST] {
        let shopper = app.send(app.bare_request(method, recovery.strip_prefix(&app.url("")).unwrap())).await;
        assert_eq!(shopper.status, 409, "{}", shopper.text);
        has(&shopper.text, &["Its total can't be charged."]);
    }
    has(&page_of(&app, &id).await, &["Stripe can't charge the total"]);
}

#[tokio::test]
async fn how_a_cart_was_recovered_is_shown() {
    let app = Setup::default().start().await;
    let paid = app.cart().await;
    app.stripe.pay(&app.session(&paid).await).await.unwrap();
    eventually("it is recovered", async || app.show(&paid).await["status"] == "recovered").await;
    sqlx::query("update carts set paid_minor = 9498, refunded_minor = 1250").execute(&app.pool).await.unwrap();
    let page = page_of(&app, &paid).await;
    has(&page, &["by payment", "Paid through Stripe</dt><dd>", ">$94.98<", "Refunded</dt><dd>", ">$12.50<"]);
    lacks(&page, &["Create payment link</button>", "Create a new link</button>", "Mark recovered"]);

    let manual = app.cart().await;
    app.patch(&format!("/api/carts/{manual}"), &json!({"status": "recovered"})).await.data(200);
    has(&page_of(&app, &manual).await, &[">manually<"]);

    let line = a_line(
        json!({"status": "recovered", "abandonedAt": "2026-01-01T00:00:00Z", "recoveredAt": "2026-01-02T00:00:00Z"}),
    );
    let (answers, _) = import(&app, NDJSON, line.to_string()).await;
    let imported = answers[0]["id"].as_str().expect("an id").to_owned();
    has(&page_of(&app, &imported).await, &[">imported<"]);
}

#[tokio::test]
async fn selected_carts_are_changed_after_a_count() {
    let app = App::new().await;
    let operator = Operator::sign_in(&app, "test-key").await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(app.cart().await);
    }
    app.patch(&format!("/api/carts/{}", ids[2]), &json!({"status": "recovered"})).await.data(200);
    let chosen = format!("id={}&id={}&id={}", ids[0], ids[1], ids[2]);
    assert!(operator.get("/").await.text.contains("Search carts by name"), "the overview finds carts, too");
    // The list that it leads back to keeps its filters.
    let list = operator.get("/carts?minValue=1&sort=oldest").await.text;
    let kept = r#"<input type="hidden" name="minValue" value="1">"#;
    assert!(list.matches(kept).count() >= 2, "the search and the selection keep it: {list}");
    let asked = operator.get(&format!("/carts/selected?minValue=1&sort=oldest&action=link&{chosen}")).await.text;
    assert!(asked.contains("Create payment links: 2 carts") && asked.contains("1 cart not included"), "{asked}");
    assert!(asked.contains(kept) && asked.contains("/carts?minValue=1&amp;sort=oldest"), "{asked}");
    let answer = operator.post("/carts/selected", &format!("minValue=1&sort=oldest&action=link&{chosen}")).await;
    assert_eq!(answer.header("location"), "/carts?minValue=1&sort=oldest");
    let done = "2 payment links requested or already active. 1 cart unchanged (The cart is recovered, not abandoned).";
    assert!(operator.next(&answer).await.text.contains(done));
    app.idle().await;
    for id in &ids[..2] {
        assert!(app.show(id).await["paymentLink"].is_string());
    }
    let cheap = json!({"customerEmail": "ada@example.com", "items": [{"name": "Pin", "quantity": 1, "price": 0.1}]});
    let cheap = app.post("/api/carts", &cheap).await.data(201)["id"].as_str().unwrap().to_owned();
    let answer = operator.post("/carts/selected", &format!("action=link&id={cheap}")).await;
    let words = "1 cart unchanged (The cart&#39;s value is below the minimum";
    let shown = operator.next(&answer).await.text;
    assert!(shown.replace("&apos;", "&#39;").replace('\'', "&#39;").contains(words), "{shown}");
    app.delete(&format!("/api/carts/{cheap}")).await;
    for _ in 0..2 {
        let answer = operator.post("/carts/selected", &format!("action=expire&id={0}&id={0}", ids[0])).await;
        assert!(operator.next(&answer).await.text.contains("1 cart is expired."));
        assert_eq!(answer.header("location"), "/carts");
    }
    assert_eq!(app.show(&ids[0]).await["status"], "expired");
    let asked = operator.get(&format!("/carts/selected?action=delete&id={0}&id={0}&id=cart_none", ids[0])).await.text;
    assert!(asked.contains("Delete: 1 cart") && asked.contains("1 cart not found"), "{asked}");
    assert!(operator.get(&format!("/carts/selected?action=delete&{chosen}")).await.text.contains("Delete: 3 carts"));
    let answer = operator.post("/carts/selected", &format!("action=delete&{chosen}")).await;
    assert!(operator.next(&answer).await.text.contains("3 carts deleted."));
    assert_eq!(app.get("/api/carts").await.data(200)["pagination"]["total"], 0);
    assert!(operator.get("/carts?from=2026-03-02&to=2026-03-02").await.text.contains("created 2 Mar 2026 ·"));
    for bad in ["action=sing", "action=link&id=x%20y"] {
        assert_eq!(operator.get(&format!("/carts/selected?{bad}")).await.status, 400, "{bad}");
    }
}
