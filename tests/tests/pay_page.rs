use chrono::TimeDelta;
use reqwest::Method;
use sandbox::stripe::{Fault, Operation, SessionStatus};
use serde_json::json;
use tests::{Answer, App, OF_THE_SHOPPER, Setup, eventually};

use crate::processes::Shop;

pub(crate) async fn recovery_path(app: &App, id: &str) -> String {
    let link = app.ask(id).await.data(200);
    link["recoveryUrl"].as_str().unwrap().strip_prefix(&app.url("")).unwrap().to_owned()
}

/// Sends GET, as a browser that opens the recovery link does.
pub(crate) async fn open(app: &App, path: &str) -> Answer {
    hold(app.send(app.bare_request(Method::GET, path)).await)
}

/// Sends the form of the page, and again once a checkout that takes longer is created.
pub(crate) async fn go_on(app: &App, path: &str) -> Answer {
    loop {
        let answer = press(app, path).await;
        if answer.status != 503 {
            return answer;
        }
        eventually("no checkout is being created", async || {
            let pending = sqlx::query_scalar("select count(*) from payment_links where status = 'pending'");
            pending.fetch_one(&app.pool).await.unwrap_or(1_i64) == 0
        })
        .await;
    }
}

/// Sends the form of the page.
pub(crate) async fn press(app: &App, path: &str) -> Answer {
    let form = app.bare_request(Method::POST, path).header("content-type", "application/x-www-form-urlencoded");
    hold(app.send(form.header("origin", "null").body("")).await)
}

/// A page shows nothing of the cart, is neither cached nor indexed, and loads nothing.
fn hold(answer: Answer) -> Answer {
    if answer.status == 303 {
        assert_eq!(answer.header("cache-control"), "no-store");
        return answer;
    }
    for (name, value) in
        [("cache-control", "no-store"), ("referrer-policy", "no-referrer"), ("x-robots-tag", "noindex")]
    {
        assert_eq!(answer.header(name), value, "{name} of {}", answer.text);
    }
    let policy = answer.header("content-security-policy");
    let script = policy.strip_prefix("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'").unwrap();
    assert_eq!(answer.text.contains("<script>"), script.starts_with("; script-src 'sha256-"), "{policy}");
    assert!(!script.contains("unsafe"), "{policy}");
    for word in OF_THE_SHOPPER.into_iter().chain(["49.99", "99.98", "cart_", "/pay/", "cs_test_"]) {
        assert!(!answer.text.contains(word), "{word} in {}", answer.text);
    }
    answer
}

#[tokio::test]
async fn the_recovery_link_leads_to_the_live_session_or_makes_one() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").start().await;
    let id = app.cart().await;
    let path = recovery_path(&app, &id).await;
    let first = app.show(&id).await["paymentLink"].as_str().unwrap().to_owned();
    for answer in [open(&app, &path).await, go_on(&app, &path).await] {
        assert_eq!((answer.status, answer.header("location")), (303, &*first));
    }

    app.clock.advance(TimeDelta::days(2));
    assert_eq!(open(&app, &path).await.status, 200);
    let answer = go_on(&app, &path).await;
    assert_eq!(answer.status, 303);
    assert_ne!(answer.header("location"), first, "made on the spot");
    assert_eq!(app.show(&id).await["paymentLink"], json!(answer.header("location")));
    assert_eq!(open(&app, &path).await.header("location"), answer.header("location"));

    app.clock.advance(TimeDelta::days(5) - TimeDelta::seconds(1));
    assert_eq!(go_on(&app, &path).await.status, 303);
    app.clock.advance(TimeDelta::seconds(1));
    for gone in [open(&app, &path).await, go_on(&app, &path).await] {
        assert_eq!(gone.status, 410, "opening it did not make it good for longer");
        assert!(gone.text.contains("This link has expired"));
    }
}

#[tokio::test]
async fn the_page_explains_why_nothing_can_be_paid() {
    let app = App::new().await;
    let (paid, expired, deleted) = (app.cart().await, app.cart().await, app.cart().await);
    let mut paths = Vec::new();
    for id in [&paid, &expired, &deleted] {
        paths.push(recovery_path(&app, id).await);
    }
    app.stripe.pay(&app.session(&paid).await).await.unwrap();
    app.patch(&format!("/api/carts/{expired}"), &json!({"status": "expired"})).await.data(200);
    app.delete(&format!("/api/carts/{deleted}")).await.data(200);
    for (path, why) in paths.iter().zip(["has been received", "has expired", "no longer exists"]) {
        for gone in [open(&app, path).await, go_on(&app, path).await] {
            assert_eq!(gone.status, 410);
            assert!(gone.text.contains(why), "{}", gone.text);
        }
    }
    for unknown in ["/pay/00000000000000000000000000000000", "/pay/x", "/pay/%00"] {
        assert_eq!((open(&app, unknown).await.status, go_on(&app, unknown).await.status), (404, 404));
    }
    assert_eq!(open(&app, &format!("{}/thanks", paths[0])).await.status, 200);
}

/// A shop's link redirects only to Stripe, whatever is stored in its place.
#[tokio::test]
async fn shoppers_are_redirected_only_to_stripe() {
    let app = App::new().await;
    let id = app.cart().await;
    let path = recovery_path(&app, &id).await;
    assert_eq!(open(&app, &path).await.status, 303);
    for elsewhere in [
        "https://evil.example/c/pay/cs_test_1",
        "https://checkout.stripe.com@evil.example/",
        "https://evil.example\\@checkout.stripe.com/",
        "//evil.example",
        "javascript:alert(1)",
        "http://checkout.stripe.com/c/pay/cs_test_1",
    ] {
        let put = sqlx::query("update payment_links set url = $2 where cart_id = $1").bind(&id).bind(elsewhere);
        assert_eq!(put.execute(&app.pool).await.unwrap().rows_affected(), 1);
        let refused = open(&app, &path).await;
        assert_eq!((refused.status, refused.header("location")), (502, ""), "{elsewhere}");
        assert!(
            refused.text.contains("This link can&#39;t be opened")
                || refused.text.contains("This link can't be opened"),
            "{}",
            refused.text
        );
    }
    let real = "https://checkout.stripe.com/c/pay/cs_live_1#fidkdWxOYHwnPyd1blppbHNgWjA0";
    sqlx::query("update payment_links set url = $2 where cart_id = $1")
        .bind(&id)
        .bind(real)
        .execute(&app.pool)
        .await
        .unwrap();
    let led = open(&app, &path).await;
    assert_eq!((led.status, led.header("location")), (303, real));
}

#[tokio::test]
async fn a_foreign_checkout_url_is_logged_with_the_cart_id() {
    let shop = Shop::open().await;
    let (mut api, _worker) = (shop.api().await, shop.worker().await);
    let id = shop.cart().await;
    let (status, link) = shop.link(&id).await;
    assert_eq!(status, 200, "{link}");
    sqlx::query("update payment_links set url = 'https://evil.example/c/pay/cs_test_1'")
        .execute(&shop.database.pool(1))
        .await
        .unwrap();
    let refused = shop.http.get(link["data"]["recoveryUrl"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(refused.status(), 502);
    let line = api.says("\"status\":502").await;
    assert!(line.contains(&id) && line.contains("CHECKOUT_HOSTS") && !line.contains("evil"), "{line}");
}

/// A session with a URL outside of Stripe is discarded and closed. Stripe's event about that may
/// arrive before Stripe's response; the shop receives the reason in both cases.
#[tokio::test]
async fn a_session_with_a_foreign_url_is_closed() {
    let app = App::new().await;
    let id = app.cart().await;
    app.stripe.fail_next(Operation::Create, Fault::ForeignUrl);
    app.stripe.fail_next(Operation::Expire, Fault::Held);
    let event_first = async {
        let stored = "select count(*) from stripe_events where kind = 'checkout.session.expired'";
        tests::eventually("the event is stored", async || {
            sqlx::query_scalar::<_, i64>(stored).fetch_one(&app.pool).await.unwrap() == 1
        })
        .await;
        app.stripe.let_go();
    };
    let (refused, ()) = tokio::join!(app.ask(&id), event_first);
    let message = refused.is_error(502, "PAYMENT_PROVIDER_ERROR")["message"].as_str().unwrap().to_owned();
    assert!(message.contains("checkout.stripe.com.evil.example") && message.contains("CHECKOUT_HOSTS"), "{message}");
    app.idle().await;
    assert!(app.stripe.sessions().iter().all(|session| session.status == SessionStatus::Expired));
    let shown = app.get(&format!("/api/carts/{id}/payment-link")).await.data(200);
    assert!(shown["status"] == "failed" && message.ends_with(shown["reason"].as_str().unwrap()), "{shown}");
    let events = app.get(&format!("/api/carts/{id}/timeline")).await.data(200);
    assert!(events["events"].as_array().unwrap().iter().any(|event| event["why"] == "foreign_checkout"), "{events}");
    app.session(&id).await; // the next one is correct
}

#[tokio::test]
async fn recovery_tokens_can_not_be_guessed() {
    let app = App::new().await;
    let mut tokens = std::collections::HashSet::new();
    for _ in 0..20 {
        let id = app.cart().await;
        let path = recovery_path(&app, &id).await;
        let token = path.rsplit('/').next().unwrap().to_owned();
        // 128 bits in hexadecimal, unique per cart.
        assert!(token.len() == 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit()) && !id.contains(&token[..8]));
        tokens.insert(token);
    }
    assert_eq!(tokens.len(), 20);
    // Tokens are found by their hash: a part or another case finds nothing.
    let token = tokens.iter().next().unwrap();
    for near in [&token[..31], &token.to_uppercase(), &format!("{token}0"), "%", "________________________________"] {
        if near != token {
            assert_eq!(open(&app, &format!("/pay/{near}")).await.status, 404, "{near}");
        }
    }
}
