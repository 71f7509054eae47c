//! Refusals that another request heals, and keys that Stripe does not accept.

use chrono::{DateTime, TimeDelta, Utc};
use sandbox::stripe::{Fault, KeyState, Operation};
use serde_json::json;
use tests::{App, Setup, a_line, eventually};

use crate::{dashboard::Operator, timeline::event_lines};

async fn cart_of(app: &App, email: &str) -> String {
    app.cart_of(&a_line(json!({"customerEmail": email}))).await
}

/// The versions of the requests so far, with the number of requests that each replaces.
async fn versions(app: &App) -> Vec<(i32, i16)> {
    let versions = "select version, replacements from payment_links order by version";
    sqlx::query_as(versions).fetch_all(&app.pool).await.unwrap()
}

/// The last request's error, as `GET` shows it while the request is pending.
async fn last_error(app: &App, id: &str) -> String {
    let shown = app.get(&format!("/api/carts/{id}/payment-link")).await.data(200);
    if shown["status"] == "pending" {
        shown["lastError"].as_str().unwrap_or_default().to_owned()
    } else {
        String::new()
    }
}

/// Addresses that exist and that Stripe refuses: the shopper types one on Stripe's page.
#[tokio::test]
async fn a_refused_address_is_left_out() {
    for email in ["hana..s.@docomo.ne.jp", "\"ada l\"@example.com", "jörg@müller.example"] {
        let app = Setup::default().at("2026-03-10T12:00:00Z").start().await;
        let id = cart_of(&app, email).await;
        let session = app.session(&id).await;
        assert_eq!(app.stripe.sessions()[0].customer_email, None, "{email}");
        assert_eq!(app.stripe.calls(Operation::Create), 2, "one refused request and one without the address");
        assert_eq!(versions(&app).await, [(1, 0), (2, 1)]);
        let expected = [
            "created: api",
            "link_requested 1: api",
            "link_not_made 1: email_invalid",
            "link_requested 2: replacement",
            "link_made 2",
        ];
        assert_eq!(event_lines(&app, &id).await, expected);
        app.stripe.pay(&session).await.unwrap();
        assert_eq!(app.show(&id).await["status"], "recovered");
        assert_eq!(app.get("/api/jobs?state=dead").await.data(200)["pagination"]["total"], 0);
    }
}

#[tokio::test]
async fn a_refused_address_stays_left_out_until_the_cart_has_another() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").start().await;
    let id = cart_of(&app, "hana..s.@docomo.ne.jp").await;
    app.session(&id).await;
    // The session ends, and other fields of the cart change.
    for change in [
        json!({"locale": "ja"}),
        json!({"customerName": "Hana"}),
        json!({"items": [{"name": "Cup", "quantity": 1, "price": 9}]}),
    ] {
        let asked = app.stripe.calls(Operation::Create);
        app.clock.advance(TimeDelta::hours(24));
        app.patch(&format!("/api/carts/{id}"), &change).await.data(200);
        app.session(&id).await;
        assert_eq!(app.stripe.calls(Operation::Create), asked + 1, "{change}");
        assert_eq!(app.stripe.sessions().last().unwrap().customer_email, None, "{change}");
    }
    let asked = app.stripe.calls(Operation::Create);
    app.patch(&format!("/api/carts/{id}"), &json!({"customerEmail": "hana@example.com"})).await.data(200);
    app.session(&id).await;
    app.idle().await;
    assert_eq!(app.stripe.calls(Operation::Create), asked + 1);
    let [session] = &app.stripe.open_sessions()[..] else { panic!("{:?}", app.stripe.open_sessions()) };
    assert_eq!(session.customer_email.as_deref(), Some("hana@example.com"));
}

/// Stripe knows ASCII domains only.
#[tokio::test]
async fn a_domain_is_sent_in_ascii() {
    let app = App::new().await;
    let id = cart_of(&app, "Jorg@müller.example").await;
    app.session(&id).await;
    assert_eq!(app.stripe.sessions()[0].customer_email.as_deref(), Some("Jorg@xn--mller-kva.example"));
    assert_eq!(
        (app.show(&id).await["customerEmail"].as_str(), versions(&app).await.len()),
        (Some("Jorg@müller.example"), 1)
    );
}

/// No worker ran for almost a day: the session that was requested would end at once.
#[tokio::test]
async fn a_first_attempt_that_comes_late_renews_the_end_of_the_session() {
    let setup = Setup::default().at("2026-03-10T12:00:00Z").without_worker().set("PAYMENT_LINK_WAIT", "10ms");
    let app = setup.start().await;
    for hours in [23, 30] {
        let id = app.cart().await;
        app.ask(&id).await.data(202);
        app.clock.advance(TimeDelta::hours(hours) + TimeDelta::minutes(40));
        let worker = app.start_worker();
        eventually("the link is ready", async || app.show(&id).await["paymentLink"].is_string()).await;
        worker.stop().await;
        let session = app.stripe.sessions().pop().unwrap();
        assert!(session.expires_at > app.now() + TimeDelta::hours(23), "{}", session.expires_at);
        assert_eq!(session.metadata["link_version"], "1");
    }
    assert_eq!(app.stripe.calls(Operation::Create), 2);
}

/// Stripe was unavailable: the request of the first attempt, which retries must repeat, ends too soon
/// by now.
#[tokio::test]
async fn a_stale_end_of_a_session_is_renewed_by_another_request() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").set("PAYMENT_LINK_WAIT", "10ms").start().await;
    let id = app.cart().await;
    app.stripe.fail_next(Operation::Create, Fault::Unavailable { retry_after: 600 });
    app.ask(&id).await.data(202);
    eventually("Stripe was asked", async || last_error(&app, &id).await == "Stripe answered 503 Service Unavailable")
        .await;
    app.clock.advance(TimeDelta::hours(23) + TimeDelta::minutes(40));
    eventually("the link is ready", async || {
        app.hurry().await;
        app.show(&id).await["paymentLink"].is_string()
    })
    .await;
    app.idle().await;
    assert_eq!(versions(&app).await, [(1, 0), (2, 1)]);
    let [session] = &app.stripe.open_sessions()[..] else { panic!("{:?}", app.stripe.open_sessions()) };
    assert!(session.expires_at > app.now() + TimeDelta::hours(23), "{}", session.expires_at);
    assert_eq!(app.stripe.sessions().len(), 1);
}

/// A session's end is computed by Postgres' clock, so a wrong clock of the api costs no link.
#[tokio::test]
async fn an_api_with_a_wrong_clock_makes_links() {
    for (hours, ttl, longest) in [(1, "7d", 24), (-1, "7d", 24), (1, "90m", 4), (-1, "90m", 2)] {
        let wrong = Setup::default().with_api_clock_wrong_by(TimeDelta::hours(hours)).set("PAYMENT_LINK_TTL", ttl);
        let app = wrong.start().await;
        let id = app.cart().await;
        let link = app.ask(&id).await.data(200);
        let ends: DateTime<Utc> = link["expiresAt"].as_str().unwrap().parse().unwrap();
        let left = ends - app.now();
        assert!(left > TimeDelta::minutes(30) && left < TimeDelta::hours(longest), "{hours} h, {ttl}: {left}");
        assert_eq!(versions(&app).await, [(1, 0)], "Stripe refused nothing");
    }
}

/// A parameter that is refused whatever its value is: five replacements, and the reason is shown.
#[tokio::test]
async fn healing_ends() {
    let app = Setup::default().set("PAYMENT_LINK_WAIT", "10ms").start().await;
    for _ in 0..20 {
        app.stripe.fail_next(Operation::Create, Fault::RefusedAbout("expires_at"));
    }
    let id = app.cart().await;
    app.ask(&id).await.data(202);
    eventually("it is given up", async || {
        app.hurry().await;
        app.unfinished_jobs().await == 0
    })
    .await;
    let shown = app.get(&format!("/api/carts/{id}/payment-link")).await.data(200);
    assert_eq!((&shown["status"], &shown["reason"]), (&json!("failed"), &json!("Invalid expires_at")));
    assert!(shown["code"].as_str().is_some_and(|code| code != "other"), "{shown}");
    assert_eq!(versions(&app).await, [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4), (6, 5)]);
    assert_eq!((app.stripe.calls(Operation::Create), app.stripe.sessions().len()), (6, 0));
}

/// The address is refused although it is left out: that does not heal.
#[tokio::test]
async fn an_address_is_left_out_once() {
    let app = App::new().await;
    for _ in 0..2 {
        app.stripe.fail_next(Operation::Create, Fault::RefusedAbout("customer_email"));
    }
    let id = app.cart().await;
    app.ask(&id).await.is_error(502, "PAYMENT_PROVIDER_ERROR");
    assert_eq!((app.stripe.calls(Operation::Create), versions(&app).await), (2, vec![(1, 0), (2, 1)]));
    app.session(&id).await;
}

/// A key that is revoked, or lacks a right, for longer than all attempts of a job would take: every
/// link waits, and comes once the key is mended.
#[tokio::test]
async fn links_wait_for_a_key_that_stripe_accepts() {
    for (state, shown) in [
        (
            KeyState::Revoked,
            "Stripe does not accept STRIPE_SECRET_KEY (401): Invalid API Key provided: …; set a valid key and restart the workers",
        ),
        (
            KeyState::ReadOnly,
            "'rak_checkout_session_write' permission would allow this request to continue.; give the key this right",
        ),
    ] {
        let app = Setup::default().set("PAYMENT_LINK_WAIT", "10ms").start().await;
        app.stripe.set_key(state);
        let id = app.cart().await;
        let job = app.ask(&id).await.data(202)["jobId"].clone();
        eventually("Stripe refused the key", async || last_error(&app, &id).await.contains(shown)).await;
        assert!(!last_error(&app, &id).await.contains("sk_test"), "a part of the key");
        eventually("more attempts than a job has", async || {
            app.hurry().await;
            app.stripe.calls(Operation::Create) > 20
        })
        .await;
        let waiting = app.get(&format!("/api/jobs/{}", job.as_str().unwrap())).await.data(200);
        assert!(waiting["attempts"].as_i64() <= Some(1) && waiting["history"] == json!([]), "{waiting}");
        app.stripe.set_key(KeyState::Accepted);
        eventually("the link comes", async || {
            app.hurry().await;
            app.ask(&id).await.status == 200
        })
        .await;
        assert_eq!((versions(&app).await, app.stripe.sessions().len()), (vec![(1, 0)], 1));
    }
}

/// Stripe made the session and its answer was lost before the key was revoked.
#[tokio::test]
async fn a_session_made_before_the_key_was_refused_is_the_one_that_is_kept() {
    let app = Setup::default().set("PAYMENT_LINK_WAIT", "10ms").start().await;
    app.stripe.fail_next(Operation::Create, Fault::ResetAfter);
    app.stripe.fail_next(Operation::Create, Fault::Unauthorized);
    let id = app.cart().await;
    app.ask(&id).await.data(202);
    eventually("the link comes", async || app.ask(&id).await.status == 200).await;
    assert_eq!(
        (versions(&app).await, app.stripe.sessions().len(), app.stripe.open_sessions().len()),
        (vec![(1, 0)], 1, 1)
    );
}

#[tokio::test]
async fn sessions_are_closed_once_the_key_may_write() {
    let app = App::new().await;
    let id = app.cart().await;
    app.session(&id).await;
    app.stripe.set_key(KeyState::ReadOnly);
    app.patch(&format!("/api/carts/{id}"), &json!({"status": "expired"})).await.data(200);
    eventually("Stripe was asked often", async || {
        app.hurry().await;
        app.stripe.calls(Operation::Expire) > 5
    })
    .await;
    assert_eq!(app.stripe.open_sessions().len(), 1);
    let attempts = "select max(attempts) from jobs where kind = 'close_payment_link'";
    assert!(sqlx::query_scalar::<_, i16>(attempts).fetch_one(&app.pool).await.unwrap() <= 1);
    app.stripe.set_key(KeyState::Accepted);
    eventually("the session is closed", async || {
        app.hurry().await;
        app.stripe.open_sessions().is_empty()
    })
    .await;
}

/// The dashboard says what is wrong and what to do, until the key is mended.
#[tokio::test]
async fn the_dashboard_shows_a_refused_key() {
    let app = Setup::default().set("PAYMENT_LINK_WAIT", "10ms").start().await;
    app.stripe.set_key(KeyState::Revoked);
    let ids = [app.cart().await, app.cart().await];
    for id in &ids {
        app.ask(id).await.data(202);
    }
    let refused = async || common::payment_links::refused_key(&mut tests::connection(&app.pool).await).await.unwrap();
    eventually("both wait", async || refused().await.is_some_and(|refused| refused.jobs == 2)).await;
    let operator = Operator::sign_in(&app, "test-key").await;
    let page = async || operator.get("/").await.text;
    eventually("the overview shows it", async || {
        let page = page().await;
        page.contains("Stripe does not accept the key: 2 jobs wait")
            && page.contains("set a valid key and restart the workers")
    })
    .await;
    app.stripe.set_key(KeyState::Accepted);
    eventually("the links come", async || {
        app.hurry().await;
        app.unfinished_jobs().await == 0
    })
    .await;
    assert_eq!(refused().await, None);
    assert!(!page().await.contains("does not accept"));
}
