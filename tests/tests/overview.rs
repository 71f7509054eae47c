//! What the overview and the page of a queue say beside the figures of the API.

use reqwest::Method;
use sandbox::stripe::{Fault, Operation};
use serde_json::{Value, json};
use tests::{App, Setup, a_cart};

use crate::dashboard::Operator;

/// The texts of a part of a page, without its elements.
fn words(page: &str, from: &str, to: &str) -> String {
    let part = page.split_once(from).unwrap_or_else(|| panic!("{from} is not in {page}")).1.split(to).next().unwrap();
    let texts = part.split('<').filter_map(|text| text.split_once('>')).map(|(_, text)| text.trim());
    texts.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn the_funnel_has_the_carts_of_the_period() {
    let app = App::new().await;
    let (opened, paid, linked) = (app.cart().await, app.cart().await, app.cart().await);
    app.cart().await;
    app.ask(&linked).await.data(200);
    // Two links of one cart count once.
    let items = json!({"items": [{"name": "x", "quantity": 1, "price": 7}]});
    app.patch(&format!("/api/carts/{linked}"), &items).await.data(200);
    app.ask(&linked).await.data(200);
    // The shopper goes on from the page, which makes the link. A scanner that follows links does not count.
    let recovery = |link: &Value| link["recoveryUrl"].as_str().unwrap().strip_prefix(&app.url("")).unwrap().to_owned();
    let path = recovery(&app.extend(&opened).await.data(200));
    assert_eq!(app.send(app.bare_request(Method::POST, &path)).await.status, 303);
    let path = recovery(&app.ask(&linked).await.data(200));
    assert_eq!(app.send(app.bare_request(Method::GET, &path)).await.status, 303);
    // Paid on Stripe's page, without the recovery link: it was opened all the same.
    app.pay(app.ask(&paid).await.data(200)["paymentLink"].as_str().unwrap()).await;
    // Another currency, and another period.
    let mut euros = a_cart();
    euros["currency"] = json!("eur");
    let mut early = a_cart();
    early["abandonedAt"] = json!("2020-01-01T00:00:00Z");
    for cart in [&euros, &early] {
        let id = app.cart_of(cart).await;
        app.ask(&id).await.data(200);
    }
    app.idle().await;
    let operator = Operator::sign_in(&app, "test-key").await;
    let page = operator.get("/").await.text;
    assert_eq!(
        words(&page, r#"<ol class="funnel""#, "</ol>"),
        "Abandoned 4 100.0% Payment link created 3 75.0% Opened 2 50.0% Paid 1 25.0%"
    );
    let page = operator.get("/?startDate=2020-01-01&endDate=2020-01-01").await.text;
    assert_eq!(
        words(&page, r#"<ol class="funnel""#, "</ol>"),
        "Abandoned 1 100.0% Payment link created 1 100.0% Opened 0 0.0% Paid 0 0.0%"
    );
}

#[tokio::test]
async fn figures_name_the_cohort_the_average_and_the_time() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").without_worker().start().await;
    let cart = |at: &str, price: i64| json!({"customerEmail": "a@example.com", "abandonedAt": at, "items": [{"name": "x", "quantity": 1, "price": price}]});
    let before = app.cart_of(&cart("2026-01-01T00:00:00Z", 5)).await;
    let first = app.cart_of(&cart("2026-03-09T10:00:00Z", 10)).await;
    app.cart_of(&cart("2026-03-09T10:00:00Z", 30)).await;
    for (id, at) in [(&before, "2026-03-09T00:00:00Z"), (&first, "2026-03-09T12:00:00Z")] {
        app.patch(&format!("/api/carts/{id}"), &json!({"status": "recovered", "recoveredAt": at})).await.data(200);
    }
    let operator = Operator::sign_in(&app, "test-key").await;
    let page = operator.get("/").await.text;
    let figures = words(&page, r#"<dl class="figures""#, "</dl>");
    for said in [
        "Abandoned 2 ",
        "1 recovered so far (50.0%)",
        "Recovery rate 100.0 %",
        "Abandoned value $40.00",
        "$20.00 per cart",
        "Recovered revenue $15.00",
        "Time to recovery 33 d", // half of 67 days and 2 hours
    ] {
        assert!(figures.contains(said), "{said}: {figures}");
    }
    let table = words(&page, "<tbody", "</tbody>");
    assert!(table.contains("9 Mar 2026 2 40.00 2 15.00 100.0% 50.0%"), "{table}");
    assert!(page.contains(r#"href="/carts?date=recovered&amp;from=2026-03-09&amp;to=2026-03-09""#), "{page}");
    let title = "<title>9 Mar 2026: $40.00 abandoned, $15.00 recovered</title>";
    assert!(operator.get("/?chart=value").await.text.contains(title));
}

#[tokio::test]
async fn the_page_of_a_queue_has_its_last_day() {
    let app = App::new().await;
    let operator = Operator::sign_in(&app, "test-key").await;
    app.ask(&app.cart().await).await.data(200);
    app.stripe.fail_next(Operation::Create, Fault::Refused);
    let refused = app.cart().await;
    app.ask_later(&refused).await;
    app.idle().await;
    let done = app.get("/api/jobs?state=done&queue=payment-links").await.data(200)["pagination"]["total"].clone();
    let dead = app.get("/api/jobs?state=dead&queue=payment-links").await.data(200)["pagination"]["total"].clone();
    assert_eq!(dead, 1);
    let page = operator.get("/queues/payment-links").await.text;
    let all = words(&page, "All hours", "</tr>");
    assert!(all.starts_with(&format!("{done} {dead} 1 ")) && all.contains(" ms"), "{all}");
    assert!(page.contains(&format!("{done} done, {dead} dead</title>")), "{page}");
    sqlx::query("update jobs set finished_at = finished_at - interval '25 hours'").execute(&app.pool).await.unwrap();
    let page = operator.get("/queues/payment-links").await.text;
    assert!(page.contains("No jobs finished since "), "{page}");
    assert_eq!(operator.get("/queues/nothing").await.status, 404);
}

/// A cart that is sent again counts for the day on which it was abandoned again, with its older link.
#[tokio::test]
async fn a_cart_that_is_sent_again_keeps_its_link_in_the_funnel() {
    let app = App::new().await;
    let mut cart = a_cart();
    cart["externalId"] = json!("order-1001");
    cart["abandonedAt"] = json!("2020-01-01T00:00:00Z");
    let id = app.cart_of(&cart).await;
    app.ask(&id).await.data(200);
    sqlx::query("update payment_links set opened_at = opened_at - interval '10 days'")
        .execute(&app.pool)
        .await
        .unwrap();
    cart["customerName"] = json!("Augusta Ada King");
    cart.as_object_mut().unwrap().remove("abandonedAt");
    app.post("/api/carts", &cart).await.data(200);
    let page = Operator::sign_in(&app, "test-key").await.get("/?period=7d").await.text;
    assert_eq!(
        words(&page, r#"<ol class="funnel""#, "</ol>"),
        "Abandoned 1 100.0% Payment link created 1 100.0% Opened 0 0.0% Paid 0 0.0%"
    );
}
