//! Responses of Stripe that do not match the request, and the search for lost sessions among very
//! many.

use chrono::TimeDelta;
use sandbox::stripe::{Fault, Operation};
use serde_json::json;
use tests::{App, Setup, eventually};

pub(crate) fn open_sessions(app: &App) -> usize {
    app.stripe.open_sessions().iter().filter(|session| session.client_reference_id.is_some()).count()
}

pub(crate) async fn link(app: &App) -> (String, Option<String>) {
    sqlx::query_as("select status, failure_code from payment_links").fetch_one(&app.pool).await.unwrap()
}

/// Requests a link; Stripe creates the session, but its response is lost before the cart is
/// deleted.
pub(crate) async fn lose_a_session(app: &App, before_deletion: impl FnOnce()) {
    let id = app.cart().await;
    app.stripe.fail_next(Operation::Create, Fault::ResetAfter);
    app.stripe.fail_next(Operation::Create, Fault::Unavailable { retry_after: 600 });
    app.ask(&id).await.data(202);
    eventually("Stripe made it and nobody knows", async || app.stripe.calls(Operation::Create) == 2).await;
    before_deletion();
    app.delete(&format!("/api/carts/{id}")).await.data(200);
}

#[tokio::test]
async fn a_session_that_differs_from_the_request_is_closed_and_never_shown() {
    for (fault, code, why) in [
        (Fault::OtherAmount, "other_amount", "its amount is not the cart's total"),
        (Fault::Altered(r#"{"currency": "eur"}"#), "other_currency", "its currency is not the cart's"),
        (Fault::Altered(r#"{"mode": "setup"}"#), "other_mode", "its mode is not payment"),
        (Fault::Altered(r#"{"livemode": true}"#), "other_livemode", "its livemode differs (test or live)"),
        (Fault::Altered(r#"{"livemode": null}"#), "other_livemode", "its livemode differs (test or live)"),
        (Fault::Altered(r#"{"status": "expired"}"#), "status", "its status does not fit"),
    ] {
        let app = App::new().await;
        app.stripe.fail_next(Operation::Create, fault);
        let id = app.cart().await;
        let refused = app.ask(&id).await;
        let message = refused.is_error(502, "PAYMENT_PROVIDER_ERROR")["message"].as_str().unwrap();
        assert!(message.contains(why), "{message}");
        app.idle().await;
        assert_eq!((app.stripe.sessions().len(), open_sessions(&app)), (1, 0), "{code}");
        assert_eq!(link(&app).await, ("closed".to_owned(), Some(code.to_owned())));
        app.session(&id).await; // the next one is correct
    }
}

#[tokio::test]
async fn the_session_of_another_request_is_not_taken() {
    let app = Setup::default().set("PAYMENT_LINK_WAIT", "300ms").start().await;
    app.stripe.fail_next(Operation::Create, Fault::OtherSession);
    let id = app.cart().await;
    app.ask(&id).await.data(202);
    let shown = app.get(&format!("/api/carts/{id}/payment-link")).await.data(200);
    assert_eq!(
        shown["lastError"],
        "Stripe's answer does not match the request: the session belongs to another request"
    );
}

/// The link's amount differs from the amount that Stripe charged: the link is not paid, and the
/// operator sees the reason.
#[tokio::test]
async fn a_retrieved_session_with_another_amount_is_not_paid() {
    let app = App::new().await;
    let id = app.cart().await;
    let session = app.session(&id).await;
    app.stripe.send_webhooks_to(None);
    app.stripe.pay(&session).await.unwrap();
    sqlx::query("update payment_links set amount_minor = amount_minor + 1").execute(&app.pool).await.unwrap();
    app.patch(&format!("/api/carts/{id}"), &json!({"status": "expired"})).await.data(200);
    app.idle().await;
    assert_eq!(link(&app).await.0, "closed");
    assert_eq!(app.show(&id).await["status"], "expired");
    let noted: (String, String) = sqlx::query_as("select effect, reason from stripe_events where object_id = $1")
        .bind(&session)
        .fetch_one(&app.pool)
        .await
        .unwrap();
    assert_eq!(noted, ("mismatch".to_owned(), "other_amount".to_owned()));
}

/// One run of a job can't read 45 pages, and one page fails: the search continues where it stopped.
#[tokio::test]
async fn a_lost_session_among_thousands_is_found_and_closed() {
    let app = Setup::default().set("PAYMENT_LINK_WAIT", "100ms").set("STRIPE_RATE", "0").start().await;
    lose_a_session(&app, || app.stripe.add_foreign_sessions(4_500, app.now())).await;
    eventually("the search is on its way", async || app.stripe.calls(Operation::List) > 25).await;
    app.stripe.fail_next(Operation::List, Fault::HtmlBadGateway);
    eventually("it is closed all the same", async || link(&app).await.0 == "closed").await;
    let (calls, attempts): (usize, i16) = (
        app.stripe.calls(Operation::List),
        sqlx::query_scalar("select attempts from jobs where kind = 'close_payment_link'")
            .fetch_one(&app.pool)
            .await
            .unwrap(),
    );
    assert!((46..=48).contains(&calls), "each page is read once, but the one that failed: {calls}");
    assert!(attempts <= 2, "runs that came further do not count: {attempts}");
    assert_eq!(open_sessions(&app), 0);
}

/// Stripe may still create a session that is not in its list yet: the list is read again before the
/// search ends.
#[tokio::test]
async fn a_search_that_found_nothing_is_repeated_once_no_request_is_on_its_way() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").set("PAYMENT_LINK_WAIT", "100ms").start().await;
    let id = app.cart().await;
    app.stripe.fail_next(Operation::Create, Fault::Unavailable { retry_after: 600 });
    app.ask(&id).await.data(202);
    eventually("Stripe was asked", async || app.stripe.calls(Operation::Create) == 1).await;
    app.delete(&format!("/api/carts/{id}")).await.data(200);
    let waits = "select count(*) from jobs where kind = 'close_payment_link' and state = 'pending'
                 and attempts = 0 and last_error like '%Stripe may still make it%'";
    eventually("the search is put off", async || {
        sqlx::query_scalar::<_, i64>(waits).fetch_one(&app.pool).await.unwrap() == 1
    })
    .await;
    assert_eq!((link(&app).await.0, app.stripe.calls(Operation::List)), ("settling".to_owned(), 1));
    let hurry = "update jobs set run_at = now(), last_error = null where kind = 'close_payment_link'";
    let put_off = async || sqlx::query_scalar::<_, i64>(waits).fetch_one(&app.pool).await.unwrap() == 1;
    // Stripe may take far longer than the worker's timeout.
    app.clock.advance(TimeDelta::seconds(90));
    sqlx::query(hurry).execute(&app.pool).await.unwrap();
    eventually("it is too early", put_off).await;
    assert_eq!((link(&app).await.0, app.stripe.calls(Operation::List)), ("settling".to_owned(), 1));
    app.clock.advance(TimeDelta::seconds(31));
    sqlx::query(hurry).execute(&app.pool).await.unwrap();
    eventually("it ends", async || link(&app).await.0 == "closed").await;
    assert_eq!(app.stripe.calls(Operation::List), 2);
}
