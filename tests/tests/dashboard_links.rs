//! What a cart's page says about its payment link, which must be true in every state.

use sandbox::stripe::{Fault, Operation};
use serde_json::json;
use tests::{App, Setup, a_line, eventually, exact};

use crate::dashboard::Operator;

async fn page_of(app: &App, id: &str) -> String {
    let answer = Operator::sign_in(app, "test-key").await.get(&format!("/carts/{id}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.text
}

/// The panel of the payment link.
async fn panel_of(app: &App, id: &str) -> String {
    let page = page_of(app, id).await;
    let (_, panel) = page.split_once(r#"<section class="card" aria-labelledby="link">"#).expect("a panel");
    panel.split("</section>").next().unwrap().to_owned()
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

/// A cart whose link was requested and is not created yet.
async fn pending(app: &App) -> (String, String) {
    let id = app.cart().await;
    let job = app.ask_later(&id).await["jobId"].as_str().unwrap().to_owned();
    (id, job)
}

/// A1.
#[tokio::test]
async fn a_link_whose_job_was_cancelled_is_not_being_created() {
    let app = Setup::default().without_worker().start().await;
    let operator = Operator::sign_in(&app, "test-key").await;
    let (id, job) = pending(&app).await;
    let panel = panel_of(&app, &id).await;
    has(&panel, &["Creating …", "No worker is running", &format!("/jobs/{job}")]);
    lacks(&panel, &["Create a new link"]);
    operator.post("/queues/payment-links/pause", "").await;
    has(&panel_of(&app, &id).await, &["Creating …", "The queue payment-links is paused"]);
    operator.post("/queues/payment-links/resume", "").await;

    let cancelled = operator.post(&format!("/jobs/{job}/cancel"), "").await;
    has(&operator.next(&cancelled).await.text, &["Job cancelled."]);
    let panel = panel_of(&app, &id).await;
    has(&panel, &["Couldn't be created: ", "cancelled by an operator", "Create a new link", &format!("/jobs/{job}")]);
    lacks(&panel, &["Creating"]);
    let status = app.get(&format!("/api/carts/{id}/payment-link")).await.data(200)["status"].clone();
    assert_eq!(status, "failed", "the API says the same");

    let worker = app.start_worker();
    let asked = operator.post(&format!("/carts/{id}/link"), "").await;
    assert_eq!(asked.header("location"), format!("/carts/{id}"));
    eventually("it is created", async || panel_of(&app, &id).await.contains(">Active<")).await;
    worker.stop().await;
}

/// A2: where the recovery link leads to is said in every state.
#[tokio::test]
async fn the_page_says_where_the_recovery_link_leads() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").start().await;
    let id = app.cart().await;
    app.extend(&id).await.data(200);
    has(&panel_of(&app, &id).await, &["No payment link yet.", "Creates a new checkout when the shopper opens it."]);
    let session = app.session(&id).await;
    has(&panel_of(&app, &id).await, &["Opens a live checkout.", "Stripe checkout"]);
    app.stripe.pay_later(&session).await.unwrap();
    let panel = panel_of(&app, &id).await;
    has(&panel, &["A payment is in progress.", "opens no checkout"]);
    // A3.
    lacks(&panel, &["Opens a live checkout", "mailto:", "Create a new link", "Create payment link"]);

    let refused = app.cart().await;
    app.extend(&refused).await.data(200);
    app.stripe.fail_next(Operation::Create, Fault::Refused);
    app.ask(&refused).await.is_error(502, "PAYMENT_PROVIDER_ERROR");
    let panel = panel_of(&app, &refused).await;
    has(
        &panel,
        &[
            "Couldn't be created: ",
            "Tries to create a new checkout when the shopper opens it, at most every 30 s.",
            "Create a new link",
        ],
    );
    lacks(&panel, &["Opens a live checkout"]);

    let expired = app.cart().await;
    app.ask(&expired).await.data(200);
    app.clock.advance(chrono::TimeDelta::days(2));
    has(&panel_of(&app, &expired).await, &["The previous link has expired.", "Create a new link"]);
}

#[tokio::test]
async fn a_link_in_retry_shows_why_and_when() {
    let app = App::new().await;
    for _ in 0..12 {
        app.stripe.fail_next(Operation::Create, Fault::RateLimited { retry_after: 600 });
    }
    let (id, _) = pending(&app).await;
    eventually("an attempt has failed", async || panel_of(&app, &id).await.contains("Attempt 1 of 12 failed: ")).await;
    let panel = panel_of(&app, &id).await;
    has(&panel, &["Creating …", "The next one begins ", "data-relative", "waits there for up to a minute"]);
    lacks(&panel, &["Create a new link", "Opens a live checkout"]);
}

/// A4: expiring asks first while a shopper may be paying, and says what it does.
#[tokio::test]
async fn expiring_asks_first_while_somebody_may_pay() {
    let app = App::new().await;
    let operator = Operator::sign_in(&app, "test-key").await;
    let (paying, live, idle) = (app.cart().await, app.cart().await, app.cart().await);
    let session = app.session(&paying).await;
    app.stripe.pay_later(&session).await.unwrap();
    app.session(&live).await;
    for (id, question) in [
        (
            &paying,
            "A payment is in progress. Expiring the cart doesn't stop it: if the money arrives, the cart is recovered.",
        ),
        (&live, "The shopper may be paying right now."),
    ] {
        has(&page_of(&app, id).await, &[&format!(r#"href="/carts/{id}/expire""#)]);
        let path = format!("/carts/{id}/expire");
        // A form of a page from before the checkout was opened.
        assert_eq!(operator.post(&path, "").await.header("location"), path);
        assert_eq!(app.show(id).await["status"], "abandoned");
        has(&operator.get(&path).await.text, &[question, "Cancel", r#"name="confirmed""#]);
    }
    let expired = operator.post(&format!("/carts/{paying}/expire"), "confirmed=yes").await;
    let page = operator.next(&expired).await.text;
    has(&page, &["The payment in progress goes on"]);
    lacks(&page, &["Nobody can pay"]);
    app.stripe.money_arrives(&session, true).await.unwrap();
    eventually("the money recovers it", async || app.show(&paying).await["status"] == "recovered").await;

    let expired = operator.post(&format!("/carts/{live}/expire"), "confirmed=yes").await;
    has(
        &operator.next(&expired).await.text,
        &["Cart expired. Its checkout at Stripe is being closed.", "Reopen the cart to create"],
    );
    let expired = operator.post(&format!("/carts/{idle}/expire"), "").await;
    has(&operator.next(&expired).await.text, &["Cart expired."]);
    assert_eq!(app.show(&idle).await["status"], "expired");
    let reopened = operator.post(&format!("/carts/{idle}/reopen"), "").await;
    has(&operator.next(&reopened).await.text, &["Cart reopened. Create a new payment link."]);
    // The questions before other final actions name the payment as well.
    let paying = app.cart().await;
    app.stripe.pay_later(&app.session(&paying).await).await.unwrap();
    for question in ["recover", "delete"] {
        has(
            &operator.get(&format!("/carts/{paying}/{question}")).await.text,
            &["A payment is in progress, which this doesn't stop"],
        );
    }
}

/// A6: a paused queue does not hold up the browser.
#[tokio::test]
async fn requesting_a_link_does_not_block_the_page() {
    let app = Setup::default().set("PAYMENT_LINK_WAIT", "10m").without_worker().start().await;
    let operator = Operator::sign_in(&app, "test-key").await;
    let id = app.cart().await;
    let path = format!("/carts/{id}/link");
    let asked = tokio::time::timeout(tests::DEADLINE, operator.post(&path, "")).await.expect("long before ten minutes");
    has(&operator.next(&asked).await.text, &["Payment link requested.", "Creating …"]);
}

/// A7: dead jobs that a retry would not help, or that were cancelled, are not presented as failures.
#[tokio::test]
async fn only_jobs_that_a_retry_helps_can_be_retried() {
    let app = App::new().await;
    let operator = Operator::sign_in(&app, "test-key").await;
    let attention = async || {
        let page = operator.get("/").await.text;
        page.split_once(r#"aria-labelledby="attention""#).unwrap().1.split("</section>").next().unwrap().to_owned()
    };
    let dead = async || app.get("/api/jobs?state=dead").await.data(200)["jobs"].clone();
    let refused = app.cart().await;
    app.stripe.fail_next(Operation::Create, Fault::Refused);
    app.ask(&refused).await.is_error(502, "PAYMENT_PROVIDER_ERROR");
    eventually("the job is dead", async || dead().await.as_array().is_some_and(|jobs| jobs.len() == 1)).await;
    let job = dead().await[0]["id"].as_str().unwrap().to_owned();
    let concerns = attention().await;
    has(&concerns, &["1 cart without a payment link", "The last request was refused."]);
    lacks(&concerns, &["dead job"]);
    let page = operator.get(&format!("/jobs/{job}")).await.text;
    has(&page, &[&format!(r##"href="/carts/{refused}#link""##), "Create a new link", "a retry would do nothing"]);
    lacks(&page, &[">Retry<"]);

    app.ask(&refused).await.data(200);
    lacks(&attention().await, &["without a payment link"]);
    let page = operator.get(&format!("/jobs/{job}")).await.text;
    has(&page, &["The cart needs no new link."]);
    lacks(&page, &[">Retry<", "Create a new link"]);

    operator.post("/queues/payment-links/pause", "").await;
    let (_, cancelled) = pending(&app).await;
    operator.post(&format!("/jobs/{cancelled}/cancel"), "").await;
    operator.post("/queues/payment-links/resume", "").await;
    eventually("nothing is wrong", async || attention().await.contains("All is well.")).await;
    // A cancelled job can be retried, because its link is still pending.
    has(&operator.get(&format!("/jobs/{cancelled}")).await.text, &[">Retry<"]);

    app.sql(&format!("update jobs set last_error = 'out of attempts' where id = '{cancelled}'")).await;
    has(&attention().await, &["1 dead job in payment-links", "Failed permanently. Open to see the errors."]);
}

/// The recovery link as an email: B17.
#[tokio::test]
async fn an_email_with_the_recovery_link_is_prepared() {
    let app = Setup::default().set("SHOP_NAME", "Tea & Co").without_worker().start().await;
    let english = app.cart_of(&a_line(json!({"customerName": "Ada & Co", "locale": "en-GB"}))).await;
    let german = app.cart_of(&a_line(json!({"locale": "de"}))).await;
    for id in [&english, &german] {
        app.extend(id).await.data(200);
    }
    let panel = panel_of(&app, &english).await;
    has(
        &panel,
        &[
            "mailto:ada@example.com?subject=Your%20cart%20at%20Tea%20%26%20Co&amp;body=Hello%20Ada%20%26%20Co%2C%0D%0A",
            "%2Fpay%2F",
        ],
    );
    let panel = panel_of(&app, &german).await;
    has(&panel, &["mailto:ada@example.com?subject=Tea%20%26%20Co&amp;body=http%3A%2F%2F"]);
    lacks(&panel, &["Hello"]);
    let small = app.cart_of(&a_line(json!({"items": [{"name": "Tea", "quantity": 1, "price": exact("0.30")}]}))).await;
    lacks(&panel_of(&app, &small).await, &["mailto:", "Create payment link"]);
}
