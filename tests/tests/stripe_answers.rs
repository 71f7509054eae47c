//! Malformed responses of Stripe, and responses of a proxy.

use std::time::Duration;

use chrono::TimeDelta;
use common::payment_links::checkout::{self, NewAttempt};
use sandbox::stripe::{Fault, Operation};
use serde_json::json;
use tests::{
    Answer, App, Setup, a_cart,
    events::{event, intent, session},
    eventually,
};

use crate::{
    early_events::without_worker,
    foreign_events::{COMPLETED, outcome, refused, status},
    lost_sessions::{link, lose_a_session, open_sessions},
};

/// Expires the cart, and waits until its session is recorded as closed.
async fn close(app: &App, id: &str) {
    app.patch(&format!("/api/carts/{id}"), &json!({"status": "expired"})).await.data(200);
    eventually("the link is closed", async || link(app).await.0 == "closed").await;
}

async fn error_of_closing(app: &App) -> String {
    let errors = "select coalesce(last_error, '') from jobs where kind = 'close_payment_link'";
    sqlx::query_scalar(errors).fetch_one(&app.pool).await.unwrap()
}

/// A 404 counts only with Stripe's own error that the session is unknown.
#[tokio::test]
async fn only_stripes_own_404_closes_a_session() {
    for faults in [
        vec![(Operation::Expire, Fault::Html { status: 404 })],
        vec![(Operation::Expire, Fault::Repeats { status: 404 })],
        vec![(Operation::Expire, Fault::Html { status: 400 })],
        vec![(Operation::Expire, Fault::RefusedWith("No.")), (Operation::Retrieve, Fault::Html { status: 404 })],
    ] {
        let app = App::new().await;
        let id = app.cart().await;
        app.session(&id).await;
        for (operation, fault) in &faults {
            app.stripe.fail_next(*operation, *fault);
        }
        close(&app, &id).await;
        assert_eq!(open_sessions(&app), 0, "{faults:?}");
    }
}

#[tokio::test]
async fn a_session_that_stripe_does_not_know_is_closed() {
    let app = App::new().await;
    let id = app.cart().await;
    app.session(&id).await;
    sqlx::query("update payment_links set session_id = 'cs_unknown'").execute(&app.pool).await.unwrap();
    close(&app, &id).await;
    assert_eq!(app.stripe.calls(Operation::Expire), 1);
}

#[tokio::test]
async fn the_answer_about_another_session_closes_none() {
    let app = App::new().await;
    let id = app.cart().await;
    app.session(&id).await;
    app.stripe.send_webhooks_to(None);
    let another = Fault::Altered(r#"{"id": "cs_another"}"#);
    app.stripe.fail_next(Operation::Expire, another);
    app.stripe.fail_next(Operation::Retrieve, another);
    close(&app, &id).await;
    assert_eq!((app.stripe.calls(Operation::Expire), app.stripe.calls(Operation::Retrieve)), (3, 2));
    assert!(error_of_closing(&app).await.contains("the session has another id"));
}

/// Stripe creates the session, but a proxy responds: no second session is created, and the link is
/// made.
#[tokio::test]
async fn a_proxys_error_page_is_not_a_refusal() {
    for status in [400, 401, 402, 403, 404, 302] {
        let app = App::new().await;
        app.stripe.fail_next(Operation::Create, Fault::ResetAfter);
        app.stripe.fail_next(Operation::Create, Fault::Html { status });
        let id = app.cart().await;
        app.ask(&id).await.data(200);
        assert_eq!((app.stripe.sessions().len(), open_sessions(&app)), (1, 1), "{status}");
    }
}

/// An HTML page, a refusal and an unusable response don't prove that there is no session.
#[tokio::test]
async fn a_lost_session_is_closed_after_any_response_to_the_same_request() {
    for (lost, fault) in [
        (Fault::ResetAfter, Fault::Html { status: 400 }),
        (Fault::ResetAfter, Fault::Refused),
        (Fault::Altered(r#"{"id": "cs/1"}"#), Fault::Slow(Duration::ZERO)), // repeated under the key
    ] {
        let app = Setup::default().set("PAYMENT_LINK_WAIT", "100ms").start().await;
        app.stripe.fail_next(Operation::Create, lost);
        app.stripe.fail_next(Operation::Create, Fault::Unavailable { retry_after: 600 });
        let id = app.cart().await;
        app.ask(&id).await.data(202);
        eventually("Stripe made it and nobody knows", async || app.stripe.calls(Operation::Create) == 2).await;
        app.stripe.fail_next(Operation::Create, fault);
        close(&app, &id).await;
        assert_eq!((app.stripe.sessions().len(), open_sessions(&app)), (1, 0), "{lost:?} {fault:?}");
    }
}

/// The same request can't be made again: Stripe refuses different parameters, and may still process
/// the first.
#[tokio::test]
async fn a_changed_cart_does_not_hide_a_session_in_the_making() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").set("PAYMENT_LINK_WAIT", "100ms").start().await;
    app.stripe.fail_next(Operation::Create, Fault::ServerError); // stored under the key
    app.stripe.fail_next(Operation::Create, Fault::Unavailable { retry_after: 600 });
    let id = app.cart().await;
    app.ask(&id).await.data(202);
    eventually("Stripe was asked", async || app.stripe.calls(Operation::Create) == 2).await;
    sqlx::query("update carts set customer_email = 'grace@example.com'").execute(&app.pool).await.unwrap();
    app.patch(&format!("/api/carts/{id}"), &json!({"status": "expired"})).await.data(200);
    eventually("the search is put off", async || error_of_closing(&app).await.contains("may still make it")).await;
    assert_eq!((link(&app).await.0, app.stripe.calls(Operation::List)), ("settling".to_owned(), 1));
}

/// Whatever Stripe's message repeats, neither the token, nor the key, nor the shopper is stored or
/// returned.
#[tokio::test]
async fn errors_that_repeat_the_request_are_redacted() {
    const KEY: &str = "sk_test_never_repeat_this_key";
    for status in [400, 401, 402, 403, 404, 409, 429, 500] {
        let setup = Setup::default().set("STRIPE_SECRET_KEY", KEY).set("PAYMENT_LINK_WAIT", "1s");
        let app = setup.start().await;
        for operation in [Operation::Create, Operation::Expire] {
            app.stripe.fail_next(operation, Fault::Repeats { status });
        }
        let id = app.cart().await;
        let answer = app.ask(&id).await;
        eventually("the attempt has ended", async || {
            let ended =
                "select exists (select from jobs where kind = 'create_payment_link' and last_error is not null)";
            sqlx::query_scalar(ended).fetch_one(&app.pool).await.unwrap()
        })
        .await;
        let shown = app.get(&format!("/api/carts/{id}/payment-link")).await;
        let token: String = sqlx::query_scalar("select token from recovery_links").fetch_one(&app.pool).await.unwrap();
        let rows = "select jobs::text from jobs union all select payment_links::text from payment_links
                    union all select cart_events::text from cart_events";
        // Closing the session calls Stripe as well.
        eventually("the link comes", async || app.ask(&id).await.status == 200).await;
        app.delete(&format!("/api/carts/{id}")).await.data(200);
        // After a 401 or 403 the job waits for a minute.
        eventually("the session is closed", async || {
            app.hurry().await;
            app.unfinished_jobs().await == 0
        })
        .await;
        app.idle().await;
        let mut kept: Vec<String> = sqlx::query_scalar(rows).fetch_all(&app.pool).await.unwrap();
        // (`recoveryUrl` contains the token, as intended.)
        let without_url = |mut answer: Answer| {
            answer.body["data"].as_object_mut().map(|data| data.remove("recoveryUrl"));
            answer.body.to_string()
        };
        kept.extend([answer, shown].map(without_url));
        let email = a_cart()["customerEmail"].as_str().unwrap().to_owned();
        for secret in [KEY, token.as_str(), email.as_str()] {
            let leak = kept.iter().find(|text| text.contains(secret));
            assert!(leak.is_none(), "{status}: {secret} in {leak:?}");
        }
        if (400..=404).contains(&status) {
            assert!(kept.iter().any(|text| text.contains("Not possible with Bearer …")), "{status}: {kept:?}");
        }
    }
}

/// A message that is too long or can't be stored is still a refusal.
#[tokio::test]
async fn messages_are_stored_as_far_as_possible() {
    let long: &str = "é".repeat(1_500_000).leak();
    for (message, shown) in [(long, "é".repeat(2_000)), ("nul\0here", "nul here".to_owned())] {
        let app = App::new().await;
        app.stripe.fail_next(Operation::Create, Fault::RefusedWith(message));
        let id = app.cart().await;
        app.ask(&id).await.is_error(502, "PAYMENT_PROVIDER_ERROR");
        let link = app.get(&format!("/api/carts/{id}/payment-link")).await.data(200);
        assert_eq!((&link["status"], &link["reason"]), (&json!("failed"), &json!(shown)));
        assert!(link["code"].as_str().is_some_and(|code| code != "other"), "{link}");
    }
}

#[tokio::test]
async fn an_address_that_can_not_be_stored_is_refused() {
    let long: &str = format!(r#"{{"url": "https://checkout.stripe.com/{}"}}"#, "x".repeat(10_000)).leak();
    for fault in [r#"{"url": "https://checkout.stripe.com/c/pay/\u0000"}"#, long] {
        let app = App::new().await;
        app.stripe.fail_next(Operation::Create, Fault::Altered(fault));
        let id = app.cart().await;
        app.ask(&id).await.is_error(502, "PAYMENT_PROVIDER_ERROR");
        app.idle().await;
        assert_eq!((link(&app).await.0.as_str(), open_sessions(&app)), ("closed", 0));
        app.session(&id).await;
    }
}

#[tokio::test]
async fn malformed_session_ids_are_rejected() {
    let app = Setup::default().set("PAYMENT_LINK_WAIT", "300ms").start().await;
    app.stripe.fail_next(Operation::Create, Fault::Altered(r#"{"id": "cs_\u0000"}"#));
    let id = app.cart().await;
    app.ask(&id).await.data(202);
    eventually("the attempt has failed", async || {
        let shown = app.get(&format!("/api/carts/{id}/payment-link")).await.data(200);
        shown["lastError"].as_str().is_some_and(|error| error.starts_with("Stripe's answer can't be read"))
    })
    .await;
}

/// Stripe returns the id of another cart's session: that session stays open, and the created one is
/// closed.
#[tokio::test]
async fn the_session_of_another_cart_is_neither_taken_nor_closed() {
    let app = App::new().await;
    let other = app.cart().await;
    let session = app.session(&other).await;
    let id = app.cart().await;
    app.stripe.fail_next(Operation::Create, Fault::Altered(format!(r#"{{"id": "{session}"}}"#).leak()));
    let message = app.ask(&id).await.is_error(502, "PAYMENT_PROVIDER_ERROR")["message"].as_str().unwrap().to_owned();
    assert!(message.contains("another payment link has the session"), "{message}");
    app.idle().await;
    let open: Vec<String> = app.stripe.open_sessions().into_iter().map(|made| made.id).collect();
    assert_eq!(open, [session]);
    let links: Vec<(String, Option<String>)> =
        sqlx::query_as("select status, failure_code from payment_links order by created_at")
            .fetch_all(&app.pool)
            .await
            .unwrap();
    assert_eq!(links, [("open".to_owned(), None), ("closed".to_owned(), Some("other_session".to_owned()))]);
    app.session(&id).await; // the next one is its own
}

/// Before Stripe responds, the key's mode determines which events can be of the session.
#[tokio::test]
async fn an_early_event_of_the_other_mode_does_not_count() {
    let app = Setup::default().set("PAYMENT_LINK_WAIT", "10ms").start().await;
    app.stripe.fail_next(Operation::Create, Fault::Unavailable { retry_after: 600 });
    let id = app.cart().await;
    app.ask(&id).await.data(202);
    eventually("Stripe was asked", async || app.stripe.calls(Operation::Create) == 1).await;
    let mut of_session = session("cs_live", &id, "paid");
    let mut of_intent = intent("cs_live", &id);
    for (n, (kind, object)) in
        [(COMPLETED, &mut of_session), ("payment_intent.succeeded", &mut of_intent)].into_iter().enumerate()
    {
        object["livemode"] = json!(true);
        let mut live = event(&format!("evt_{n}"), kind, object);
        live["livemode"] = json!(true);
        assert_eq!(outcome(&app, &live).await, refused("not_ours", "other_livemode"));
    }
    assert_eq!(status(&app, &id).await, "abandoned");
    let test = event("evt_test", COMPLETED, &session("cs_test", &id, "paid"));
    assert_eq!(outcome(&app, &test).await, ("recovered".to_owned(), None));
}

/// The mode is stored for closing jobs as well, and is not known for every key.
#[tokio::test]
async fn an_attempt_keeps_the_mode_of_the_key() {
    for (key, livemode) in [("rk_live_1", Some(true)), ("sk_test_1", Some(false)), ("sk_fake", None)] {
        let app = Setup::default().set("STRIPE_SECRET_KEY", key).set("PAYMENT_LINK_WAIT", "10ms").start().await;
        app.stripe.fail_next(Operation::Create, Fault::Unavailable { retry_after: 600 });
        let id = app.cart().await;
        app.ask(&id).await.data(202);
        eventually("Stripe was asked", async || app.stripe.calls(Operation::Create) == 1).await;
        let kept: Option<bool> =
            sqlx::query_scalar("select livemode from payment_links").fetch_one(&app.pool).await.unwrap();
        assert_eq!(kept, livemode, "{key}");
    }
    let app = without_worker().await;
    let id = app.cart().await;
    app.ask(&id).await.data(202);
    let mut conn = tests::connection(&app.pool).await;
    let settings = common::payment_links::SessionSettings {
        checkout: common::config::Env::default().read().unwrap(),
        public_url: app.url(""),
        without_email: false,
    };
    for (livemode, kept) in [(None, None), (Some(true), Some(true)), (None, Some(true))] {
        let attempt = NewAttempt { cart_id: id.clone(), version: 1, older_are_closed: false };
        let mut begun = checkout::begin(&mut conn, &[attempt], &settings, livemode, &app.clock).await.unwrap();
        assert_eq!(begun.remove(0).unwrap().attempt.unwrap().settings, settings);
        let livemode: Option<bool> =
            sqlx::query_scalar("select livemode from payment_links").fetch_one(&app.pool).await.unwrap();
        assert_eq!(livemode, kept);
    }
}

async fn attempts(app: &App) -> i16 {
    let attempts = "select attempts from jobs where kind = 'close_payment_link'";
    sqlx::query_scalar(attempts).fetch_one(&app.pool).await.unwrap()
}

/// Pages without progress don't end a search: the list is read again, and the attempts count.
#[tokio::test]
async fn a_list_without_progress_is_an_error() {
    for page in [
        r#"{"data": [], "has_more": true}"#,
        r#"{"data": [{"id": "cs_same", "status": "open"}, {"id": "cs_same", "status": "open"}], "has_more": true}"#,
    ] {
        let app = Setup::default().set("PAYMENT_LINK_WAIT", "100ms").start().await;
        lose_a_session(&app, || (0..3).for_each(|_| app.stripe.fail_next(Operation::List, Fault::Altered(page)))).await;
        eventually("it is closed all the same", async || link(&app).await.0 == "closed").await;
        assert_eq!(open_sessions(&app), 0);
        assert!(attempts(&app).await >= 3, "{}", attempts(&app).await);
        assert!(app.stripe.calls(Operation::List) >= 4);
    }
    let app = Setup::default().set("PAYMENT_LINK_WAIT", "100ms").start().await;
    lose_a_session(&app, || app.stripe.fail_next(Operation::List, Fault::Altered(r#"{"data": [], "has_more": null}"#)))
        .await;
    eventually("it is closed all the same", async || link(&app).await.0 == "closed").await;
    assert_eq!(open_sessions(&app), 0);
}

#[tokio::test]
async fn a_search_at_an_unknown_session_restarts() {
    let app = Setup::default().set("PAYMENT_LINK_WAIT", "100ms").start().await;
    let pages = r#"{"data": [{"id": "cs_gone", "status": "open"}], "has_more": true}"#;
    lose_a_session(&app, || app.stripe.fail_next(Operation::List, Fault::Altered(pages))).await;
    eventually("it is closed all the same", async || link(&app).await.0 == "closed").await;
    assert_eq!((open_sessions(&app), app.stripe.calls(Operation::List), attempts(&app).await), (0, 3, 2));
}

/// 150 sessions of 60 kB: a page of 100 exceeds the maximum response size.
#[tokio::test]
async fn pages_that_are_too_large_are_halved() {
    let app = Setup::default().set("PAYMENT_LINK_WAIT", "100ms").set("STRIPE_RATE", "0").start().await;
    lose_a_session(&app, || {
        app.stripe.add_foreign_sessions(150, app.now() + TimeDelta::seconds(1));
        (0..20).for_each(|_| app.stripe.fail_next(Operation::List, Fault::Padded(60_000)));
    })
    .await;
    eventually("it is closed", async || link(&app).await.0 == "closed").await;
    assert_eq!((open_sessions(&app), app.stripe.calls(Operation::List), attempts(&app).await), (0, 5, 1));
}
