//! What the pages of a recovery link do, and for whom: programs create nothing, people get on.

use chrono::TimeDelta;
use reqwest::Method;
use sandbox::stripe::{Fault, Operation};
use tests::{App, Setup, a_line, eventually};

use crate::{
    pay_page::{go_on, open, press, recovery_path},
    timeline::event_lines,
};

/// A cart whose session has ended, and the path of its recovery link.
async fn without_session(app: &App) -> (String, String) {
    let id = app.cart().await;
    app.ask(&id).await;
    app.idle().await;
    let path = recovery_path(app, &id).await;
    app.clock.advance(TimeDelta::days(2));
    (id, path)
}

/// The path of a recovery link for which Stripe was never called.
async fn unopened(app: &App) -> String {
    let id = app.cart().await;
    let link = app.extend(&id).await.data(200);
    link["recoveryUrl"].as_str().unwrap().strip_prefix(&app.url("")).unwrap().to_owned()
}

async fn openings(app: &App, id: &str) -> usize {
    event_lines(app, id).await.iter().filter(|event| event.starts_with("recovery_link_opened")).count()
}

fn setup() -> Setup {
    Setup::default().at("2026-03-10T12:00:00Z")
}

/// Mail servers, previews and prefetching browsers open links, too.
#[tokio::test]
async fn opening_creates_nothing_and_counts_for_nothing() {
    let app = setup().start().await;
    let (id, path) = without_session(&app).await;
    let calls = app.stripe.calls(Operation::Create);
    for (method, name, value) in [
        (Method::HEAD, "user-agent", "scanner"),
        (Method::GET, "user-agent", "scanner"),
        (Method::GET, "sec-purpose", "prefetch"),
        (Method::GET, "sec-purpose", "prefetch;prerender"),
        (Method::GET, "purpose", "prefetch"),
        (Method::GET, "x-moz", "prefetch"),
    ] {
        let answer = app.send(app.bare_request(method.clone(), &path).header(name, value)).await;
        assert_eq!(answer.status, 200, "{method} with {name}: {value}");
    }
    app.idle().await;
    assert_eq!(app.stripe.calls(Operation::Create), calls);
    let links: i64 = sqlx::query_scalar("select count(*) from payment_links").fetch_one(&app.pool).await.unwrap();
    assert_eq!((links, openings(&app, &id).await), (1, 0));

    assert_eq!(go_on(&app, &path).await.status, 303);
    assert_eq!(openings(&app, &id).await, 1);
    // Opening a link that leads straight to a session does not count either.
    assert_eq!(open(&app, &path).await.status, 303);
    assert_eq!(openings(&app, &id).await, 1);
}

/// The page is a form that needs no script, and one script that needs nothing.
#[tokio::test]
async fn the_page_has_a_button() {
    let app = setup().start().await;
    let (_, path) = without_session(&app).await;
    let page = open(&app, &path).await;
    for part in [
        r#"<html lang="en" dir="ltr">"#,
        r#"<form method="post" action="?""#,
        r#"<button type="submit">Continue to payment</button>"#,
        r#"<p role="status">"#,
        r#"name="viewport""#,
    ] {
        assert!(page.text.contains(part), "{part}: {}", page.text);
    }
    assert!(!page.text.contains("http-equiv"), "it does not reload");
}

#[tokio::test]
async fn twenty_shoppers_at_once_get_one_session() {
    let app = setup().start().await;
    let (_, path) = without_session(&app).await;
    let calls = app.stripe.calls(Operation::Create);
    let answers = futures_util::future::join_all((0..20).map(|_| go_on(&app, &path))).await;
    let first = answers[0].header("location");
    for answer in &answers {
        assert_eq!((answer.status, answer.header("location")), (303, first));
    }
    assert_eq!(app.stripe.calls(Operation::Create), calls + 1);
}

#[tokio::test]
async fn a_page_reloads_until_the_checkout_is_there() {
    let app = setup().set("PAYMENT_LINK_WAIT", "100ms").start().await;
    let (id, path) = without_session(&app).await;
    app.stripe.fail_next(Operation::Create, Fault::RateLimited { retry_after: 1 });
    let waiting = press(&app, &path).await;
    assert_eq!((waiting.status, waiting.header("retry-after")), (503, "3"));
    // Another address, so that the browser does not ask whether to send the form again.
    let reload = r#"<meta http-equiv="refresh" content="3;url=?waiting=1">"#;
    assert!(waiting.text.contains(reload), "{}", waiting.text);
    let reloaded = open(&app, &format!("{path}?waiting=1")).await;
    if reloaded.status == 200 {
        assert!(reloaded.text.contains("waiting=2") && reloaded.text.contains("<form"), "{}", reloaded.text);
        assert!(!reloaded.text.contains("<script>"), "the form was sent already");
    }
    eventually("it leads on", async || open(&app, &format!("{path}?waiting=2")).await.status == 303).await;
    let session = app.session(&id).await;
    assert!(open(&app, &path).await.header("location").ends_with(&session));

    app.stripe.pay_later(&session).await.unwrap();
    for processing in [open(&app, &path).await, go_on(&app, &path).await] {
        assert_eq!(processing.status, 200);
        assert!(processing.text.contains("being processed"));
    }
}

#[tokio::test]
async fn a_page_does_not_reload_for_ever() {
    let app = setup().set("PAYMENT_LINK_WAIT", "1ms").without_worker().start().await;
    let path = unopened(&app).await;
    assert_eq!(press(&app, &path).await.status, 503);
    let (mut reloads, mut query) = (0, "waiting=1".to_owned());
    loop {
        let page = open(&app, &format!("{path}?{query}")).await;
        assert_eq!(page.status, 200);
        let Some((_, next)) = page.text.split_once("3;url=?") else {
            for text in ["open your checkout right now", "Nothing was charged.", "contact the shop", "Try again"] {
                assert!(page.text.contains(text), "{text}: {}", page.text);
            }
            break;
        };
        query = next.split('"').next().unwrap().to_owned();
        reloads += 1;
        assert!(reloads < 100, "{query}");
    }
    assert!((15..=30).contains(&reloads), "every 3 s for about a minute: {reloads}");
    // The button begins anew.
    let again = press(&app, &path).await;
    assert!(again.status == 503 && again.text.contains("waiting=1\""), "{}", again.text);
}

/// A5 and A6 of what shoppers met: a blank tab for as long as a shop may wait, and no end of waiting.
#[tokio::test]
async fn the_page_that_waits_comes_after_a_second() {
    let app = setup().set("PAYMENT_LINK_WAIT", "10m").without_worker().start().await;
    let path = unopened(&app).await;
    let waiting = tokio::time::timeout(tests::DEADLINE, press(&app, &path)).await.expect("long before ten minutes");
    assert_eq!(waiting.status, 503);
    assert!(waiting.text.contains("is being prepared"), "{}", waiting.text);
}

/// The job of a link that was cancelled creates nothing, so that nobody waits for it.
#[tokio::test]
async fn a_cancelled_job_is_not_waited_for() {
    let app = setup().without_worker().start().await;
    let path = unopened(&app).await;
    assert_eq!(press(&app, &path).await.status, 503);
    assert!(open(&app, &path).await.text.contains("waiting=1"));
    app.sql("update jobs set state = 'dead', finished_at = now(), last_error = 'cancelled by an operator' where state = 'pending'").await;
    let opened = open(&app, &path).await;
    assert!(opened.text.contains("<script>") && !opened.text.contains("http-equiv"), "{}", opened.text);
    let worker = app.start_worker();
    assert_eq!(go_on(&app, &path).await.status, 303);
    worker.stop().await;
}

#[tokio::test]
async fn a_refusal_is_shown_and_not_repeated() {
    let app = setup().start().await;
    let id = app.cart_of(&a_line(serde_json::json!({"locale": "fr"}))).await;
    let path = recovery_path(&app, &id).await;
    app.clock.advance(TimeDelta::days(1));
    app.stripe.fail_next(Operation::Create, Fault::Refused);
    let refused = go_on(&app, &path).await;
    assert_eq!(refused.status, 502);
    assert!(
        refused.text.contains("Aucun montant n’a été débité") && !refused.text.contains("http-equiv"),
        "{}",
        refused.text
    );
    let calls = app.stripe.calls(Operation::Create);
    for _ in 0..5 {
        let opened = open(&app, &path).await;
        assert_eq!(opened.status, 200);
        assert!(
            opened.text.contains("Aucun montant n’a été débité") && !opened.text.contains("<script>"),
            "{}",
            opened.text
        );
        assert_eq!(go_on(&app, &path).await.status, 502);
    }
    assert_eq!(app.stripe.calls(Operation::Create), calls);
    app.clock.advance(TimeDelta::seconds(31));
    assert!(open(&app, &path).await.text.contains("<script>"));
    assert_eq!(go_on(&app, &path).await.status, 303);
}

/// Shoppers behind one proxy are many; a link is one.
#[tokio::test]
async fn links_are_limited_one_by_one() {
    let app = setup().set("RATE_LIMIT_PER_MINUTE", "20").without_worker().start().await;
    let (one, other) = (unopened(&app).await, unopened(&app).await);
    let mut limited = open(&app, &one).await;
    for _ in 0..200 {
        if limited.status == 429 {
            break;
        }
        assert_eq!(limited.status, 200);
        limited = open(&app, &one).await;
    }
    assert_eq!(limited.status, 429, "a link has a limit");
    let seconds = limited.header("retry-after").to_owned();
    assert!((1..=60).contains(&seconds.parse::<u32>().unwrap()), "{seconds}");
    assert!(limited.text.starts_with("<!DOCTYPE html>") && limited.text.contains("<h1>"), "{}", limited.text);
    assert!(limited.text.contains(&format!("content=\"{seconds};url=?")), "{}", limited.text);
    // Another link, from the same address, is not affected; nor are made-up ones remembered.
    assert_eq!(open(&app, &other).await.status, 200);
    for number in 0..100 {
        assert_eq!(open(&app, &format!("/pay/{number:032x}")).await.status, 404);
    }
    assert_eq!(open(&app, &other).await.status, 200);
}

#[tokio::test]
async fn pages_lead_back_to_the_shop() {
    let app = setup()
        .set("SHOP_NAME", "Tea & <Co>")
        .set("SHOP_URL", "https://shop.example/tea/")
        .without_worker()
        .start()
        .await;
    let unknown = open(&app, "/pay/x").await;
    assert!(unknown.text.contains("<bdi>Tea &amp; &lt;Co&gt;</bdi>"), "{}", unknown.text);
    assert!(unknown.text.contains(r#"<a href="https://shop.example/tea">Back to the shop</a>"#), "{}", unknown.text);
    let plain = setup().without_worker().start().await;
    let unknown = open(&plain, "/pay/x").await;
    assert!(!unknown.text.contains("<a ") && !unknown.text.contains("<bdi>"), "{}", unknown.text);
}
