//! Errors as pages: operators keep the frame and the way back, and notices are shown once.

use reqwest::Method;
use tests::{App, Setup, eventually};

use crate::dashboard::Operator;

/// What browsers accept when they open an address.
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

async fn operator(app: &App) -> Operator<'_> {
    Operator::sign_in(app, "test-key").await
}

fn is_framed(page: &str) {
    assert!(page.starts_with("<!DOCTYPE html>"), "{page}");
    for part in [r#"<nav aria-label="Pages">"#, "Sign out", r#"href="/carts""#] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
}

#[tokio::test]
async fn errors_keep_the_navigation_and_a_way_back() {
    let app = Setup::default().without_worker().start().await;
    let operator = operator(&app).await;
    for (path, status, title, back) in [
        ("/carts/nonsense", 404, "Cart not found", r#"href="/carts">Back to carts"#),
        ("/jobs/nonsense", 404, "Job not found", r#"href="/jobs">Back to jobs"#),
        ("/?period=8d", 400, "Invalid request", r#"href="/">Back to overview"#),
        ("/jobs?state=lost", 400, "Invalid request", r#"href="/jobs">Back to jobs"#),
        ("/carts?page=0", 400, "Invalid request", r#"href="/carts">Back to carts"#),
    ] {
        let answer = operator.get(path).await;
        assert_eq!(answer.status, status, "{path}");
        is_framed(&answer.text);
        assert!(
            answer.text.contains(&format!(">{title}</h1>")) && answer.text.contains(back),
            "{path}: {}",
            answer.text
        );
    }
}

#[tokio::test]
async fn a_refused_action_leads_back_with_the_reason() {
    let app = Setup::default().without_worker().start().await;
    let operator = operator(&app).await;
    let id = app.cart().await;
    let path = format!("/carts/{id}");
    let done = operator.post(&format!("{path}/recover"), "").await;
    assert_eq!(done.header("location"), path);
    assert!(operator.next(&done).await.text.contains("Cart marked as recovered."));
    assert_eq!(app.show(&id).await["status"], "recovered");
    let refused = operator.post(&format!("{path}/expire"), "").await;
    assert_eq!(refused.header("location"), path);
    let page = operator.next(&refused).await;
    is_framed(&page.text);
    assert!(page.text.contains(r#"<p class="notice wrong" role="alert""#), "{}", page.text);
    assert!(page.text.contains("The cart is recovered, which is final"), "{}", page.text);
    // What can't be done is not asked for.
    for question in ["expire", "recover"] {
        assert_eq!(operator.get(&format!("{path}/{question}")).await.header("location"), path);
    }

    let deleted = operator.post(&format!("{path}/delete"), "").await;
    assert_eq!(deleted.header("location"), "/carts");
    assert!(operator.next(&deleted).await.text.contains("Cart deleted, with the shopper"));
    app.get(&format!("/api/carts/{id}")).await.is_error(404, "NOT_FOUND");
    let gone = operator.post(&format!("{path}/expire"), "").await;
    assert_eq!(gone.status, 404);
    is_framed(&gone.text);
}

#[tokio::test]
async fn a_notice_is_shown_once_and_not_to_others() {
    let app = Setup::default().without_worker().start().await;
    let (one, other) = (operator(&app).await, operator(&app).await);
    let paused = one.post("/queues/expiry/pause", "").await;
    assert_eq!(paused.header("location"), "/queues", "the address has no notice");
    let notice = "Queue expiry paused.";
    assert!(one.next(&paused).await.text.contains(notice));
    assert!(one.next(&paused).await.header("set-cookie").starts_with("operator_notice=;"), "the page takes it away");
    assert!(!one.get("/queues").await.text.contains(notice));
    assert!(!other.next(&paused).await.text.contains(notice), "it is signed for one session");
    // An open page in another tab, which updates itself, leaves the notice to the page that was opened.
    let set = paused.header("set-cookie").split(';').next().unwrap().to_owned();
    let live = app.bare_request(Method::GET, "/queues").header("cookie", one.cookies(&set)).header("x-live", "1");
    let live = app.send(live).await;
    assert!(!live.text.contains(notice) && live.header("set-cookie").is_empty(), "{}", live.text);
}

/// A range that can't be shown is explained where it was entered.
#[tokio::test]
async fn a_wrong_range_is_explained_in_its_form() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").without_worker().start().await;
    let operator = operator(&app).await;
    for (query, why) in [
        ("startDate=2026-03-02&endDate=2026-03-01", "From must not be after To."),
        ("startDate=2014-01-01&endDate=2026-03-01", "The range must not be longer than 3,660 days."),
        ("startDate=2026-03-11&endDate=2026-03-12", "From must not be in the future."),
        ("startDate=2026-02-30&endDate=2026-03-01", "From is not a date."),
    ] {
        let answer = operator.get(&format!("/?{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
        is_framed(&answer.text);
        let (_, form) = answer.text.split_once(r#"<details class="menu" id="range" open>"#).expect("it is open");
        let (form, _) = form.split_once("</details>").unwrap();
        assert!(form.contains(why) && form.contains(r#"role="alert""#), "{query}: {form}");
        assert!(form.contains(&format!("value=\"{}\"", &query[10..20])), "what was entered stays: {form}");
        assert!(form.contains(r#"max="2026-03-10""#) && !answer.text.contains("startDate must"), "{form}");
    }
}

#[tokio::test]
async fn unknown_addresses_are_pages_for_browsers_only() {
    let app = Setup::default().without_worker().start().await;
    let operator = operator(&app).await;
    for path in ["/nothing-here", "/carts/x/y/z", "/assets/nothing.js"] {
        let (status, page) = operator.get_with(path, "accept", BROWSER).await;
        assert_eq!(status, 404, "{path}");
        is_framed(&page);
        let answer = app.bare_request(Method::GET, path).header("accept", BROWSER).send().await.unwrap();
        let page = answer.text().await.unwrap();
        assert!(page.contains("Page not found") && page.contains(">Sign in</a>") && !page.contains("<nav"), "{page}");
        for accept in ["application/json", "*/*"] {
            let request = app.bare_request(Method::GET, path).header("accept", accept);
            app.send(request).await.is_error(404, "NOT_FOUND");
        }
        app.send(app.bare_request(Method::GET, path)).await.is_error(404, "NOT_FOUND");
    }
    let (status, page) = operator.get_with("/sign-out", "accept", BROWSER).await;
    assert_eq!(status, 405);
    is_framed(&page);
    // The API's errors are its own, whatever is accepted; those of shoppers' links are for shoppers.
    let (status, body) = operator.get_with("/api/nothing", "accept", BROWSER).await;
    assert!(status == 401 && body.starts_with('{'), "{body}");
    for path in ["/pay", "/pay/", "/pay/a/b/c"] {
        let (status, page) = operator.get_with(path, "accept", BROWSER).await;
        assert!(status == 404 && page.contains("Unknown link") && !page.contains("Sign out"), "{path}: {page}");
    }
}

#[tokio::test]
async fn errors_of_the_server_show_the_request_id() {
    let app = Setup::default().without_worker().start().await;
    let operator = operator(&app).await;
    let id = app.cart().await;
    app.sql("alter table carts rename column customer_name to other").await;
    let (status, page) = operator.get_with(&format!("/carts/{id}"), "x-request-id", "from-the-test.1").await;
    assert_eq!(status, 500);
    is_framed(&page);
    assert!(page.contains(r#"<code id="request-id">from-the-test.1</code>"#), "{page}");
    app.sql("alter table carts rename column other to customer_name").await;
    let (status, page) = operator.get_with("/carts/nonsense", "x-request-id", "from-the-test.2").await;
    assert!(status == 404 && !page.contains("from-the-test"), "only where the log says more: {page}");
}

/// Postgres refuses connections with SQLSTATE 55000 then, and is away like at any other time.
#[tokio::test]
async fn a_database_that_refuses_connections_is_unavailable() {
    let app = Setup::default().without_worker().start().await;
    let operator = operator(&app).await;
    app.database.accept_connections(false).await;
    for path in ["/carts", "/queues"] {
        let answer = operator.get(path).await;
        assert_eq!(answer.status, 503, "{}", answer.text);
        assert!(answer.text.contains(">Temporarily unavailable</h1>"), "{}", answer.text);
        assert!(
            answer.text.contains(r#"id="request-id""#) && answer.text.contains(">Try again</a>"),
            "{}",
            answer.text
        );
    }
    app.get("/api/carts").await.is_error(503, "UNAVAILABLE");
    app.database.accept_connections(true).await;
    eventually("it is there again", async || operator.get("/carts").await.status == 200).await;
}
