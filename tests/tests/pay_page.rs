use chrono::TimeDelta;
use reqwest::Method;
use sandbox::stripe::{Fault, Operation};
use serde_json::json;
use tests::{Answer, App, Setup, a_cart};

async fn recovery_path(app: &App, id: &str) -> String {
    let link = app.ask(id).await.data(200);
    link["recoveryUrl"].as_str().unwrap().strip_prefix(&app.url("")).unwrap().to_owned()
}

async fn open(app: &App, path: &str) -> Answer {
    app.send(app.bare_request(Method::GET, path)).await
}

#[tokio::test]
async fn the_recovery_link_leads_to_the_live_session_or_makes_one() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").start().await;
    let id = app.cart().await;
    let path = recovery_path(&app, &id).await;
    let answer = open(&app, &path).await;
    assert_eq!(answer.status, 303);
    let first = app.show(&id).await["paymentLink"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("location"), first);

    app.clock.advance(TimeDelta::days(2));
    let answer = open(&app, &path).await;
    assert_eq!(answer.status, 303);
    assert_ne!(answer.header("location"), first, "made on the spot");
    assert_eq!(app.show(&id).await["paymentLink"], json!(answer.header("location")));

    app.clock.advance(TimeDelta::days(5) - TimeDelta::seconds(1));
    assert_eq!(open(&app, &path).await.status, 303);
    app.clock.advance(TimeDelta::seconds(1));
    let gone = open(&app, &path).await;
    assert_eq!(gone.status, 410, "opening it did not make it good for longer");
    assert!(gone.text.contains("This link has expired"));
}

#[tokio::test]
async fn it_says_why_there_is_nothing_to_pay() {
    let app = App::new().await;
    let (paid, expired, deleted) = (app.cart().await, app.cart().await, app.cart().await);
    let mut paths = Vec::new();
    for id in [&paid, &expired, &deleted] {
        paths.push(recovery_path(&app, id).await);
    }
    app.stripe.pay(&app.session(&paid).await).await.unwrap();
    app.patch(&format!("/api/carts/{expired}"), &json!({"status": "expired"})).await.data(200);
    app.delete(&format!("/api/carts/{deleted}")).await.data(200);
    for (path, why) in paths.iter().zip(["has been paid", "has expired", "no longer exists"]) {
        let gone = open(&app, path).await;
        assert_eq!(gone.status, 410);
        assert!(gone.text.contains(why), "{}", gone.text);
        assert_eq!((gone.header("cache-control"), gone.header("referrer-policy")), ("no-store", "no-referrer"));
    }
    for unknown in ["/pay/00000000000000000000000000000000", "/pay/x", "/pay/%00"] {
        assert_eq!(open(&app, unknown).await.status, 404);
    }
    assert_eq!(open(&app, &format!("{}/thanks", paths[0])).await.status, 200);
}

#[tokio::test]
async fn it_waits_with_a_page_that_reloads_and_a_payment_under_way_is_told() {
    let app = Setup::default().set("PAYMENT_LINK_WAIT", "100ms").at("2026-03-10T12:00:00Z").start().await;
    let id = app.cart().await;
    app.ask(&id).await;
    app.idle().await;
    let path = recovery_path(&app, &id).await;
    app.clock.advance(TimeDelta::days(1));
    app.stripe.fail_next(Operation::Create, Fault::RateLimited { retry_after: 1 });
    let waiting = open(&app, &path).await;
    assert_eq!((waiting.status, waiting.header("retry-after")), (503, "3"));
    assert!(waiting.text.contains(r#"http-equiv="refresh""#));
    tests::eventually("it leads on", async || open(&app, &path).await.status == 303).await;

    let session = app.session(&id).await;
    app.stripe.pay_later(&session).await.unwrap();
    let processing = open(&app, &path).await;
    assert_eq!(processing.status, 200);
    assert!(processing.text.contains("being processed"));
}

#[tokio::test]
async fn a_refused_session_is_not_asked_for_at_every_reload() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").start().await;
    let id = app.cart_of(&a_cart()).await;
    let path = recovery_path(&app, &id).await;
    app.clock.advance(TimeDelta::days(1));
    app.stripe.fail_next(Operation::Create, Fault::Refused);
    assert_eq!(open(&app, &path).await.status, 503);
    let calls = app.stripe.calls(Operation::Create);
    for _ in 0..5 {
        assert_eq!(open(&app, &path).await.status, 503);
    }
    assert_eq!(app.stripe.calls(Operation::Create), calls);
    app.clock.advance(TimeDelta::seconds(31));
    assert_eq!(open(&app, &path).await.status, 303);
}
