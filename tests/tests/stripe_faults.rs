use std::time::Duration;

use common::{
    carts,
    payment_links::{self, Failure, Remedy},
};
use sandbox::stripe::{Fault, Operation};
use serde_json::json;
use tests::{App, Setup, a_cart, connection, eventually, transaction};

/// Waits until the first attempt has failed with this error.
async fn failed_once(app: &App, id: &str, error: &str) {
    eventually("the attempt has failed", async || {
        let shown = app.get(&format!("/api/carts/{id}/payment-link")).await.data(200);
        assert_eq!(shown["status"], "pending");
        shown["attempts"].as_u64() >= Some(1) && shown["lastError"] == error
    })
    .await;
}

/// After each kind of fault, the link is made within the wait, with one session.
#[tokio::test]
async fn transient_faults_are_retried_with_one_session() {
    for fault in [
        Fault::RateLimited { retry_after: 1 },
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::HtmlBadGateway,
        Fault::Garbage,
        Fault::Slow(Duration::from_millis(300)),
    ] {
        let app = Setup::default().set("PAYMENT_LINK_WAIT", "25s").start().await;
        app.stripe.fail_next(Operation::Create, fault);
        let id = app.cart().await;
        let link = app.ask(&id).await.data(200);
        assert_eq!(app.stripe.sessions().len(), 1, "{fault:?}");
        assert_eq!(app.stripe.open_sessions().len(), 1, "{fault:?}");
        assert!(link["paymentLink"].as_str().unwrap().ends_with(&app.stripe.sessions()[0].id));
    }
}

#[tokio::test]
async fn several_faults_in_a_row() {
    let app = Setup::default().set("PAYMENT_LINK_WAIT", "25s").start().await;
    for fault in [Fault::ResetAfter, Fault::HtmlBadGateway, Fault::ResetBefore] {
        app.stripe.fail_next(Operation::Create, fault);
    }
    let id = app.cart().await;
    app.ask(&id).await.data(200);
    assert_eq!((app.stripe.sessions().len(), app.stripe.calls(Operation::Create)), (1, 4));
}

#[tokio::test]
async fn a_retry_after_is_kept() {
    let app = Setup::default().set("PAYMENT_LINK_WAIT", "300ms").start().await;
    app.stripe.fail_next(Operation::Create, Fault::RateLimited { retry_after: 90 });
    let id = app.cart().await;
    app.ask(&id).await.data(202);
    failed_once(&app, &id, "Stripe asks to slow down (429)").await;
    let wait: f64 = sqlx::query_scalar(
        "select extract(epoch from run_at - now())::float8 from jobs where kind = 'create_payment_link'",
    )
    .fetch_one(&app.pool)
    .await
    .unwrap();
    assert!((20.0..=90.0).contains(&wait), "it waits {wait} s"); // a busy machine checks late
}

#[tokio::test]
async fn permanent_faults_are_reported_at_once_and_can_be_retried() {
    for (fault, reason) in [
        (Fault::Refused, "Your account cannot currently make charges."),
        (Fault::RefusedAbout("locale"), "Invalid locale"),
        (Fault::RefusedAbout("automatic_tax[enabled]"), "Invalid automatic_tax[enabled]"),
    ] {
        let app = App::new().await;
        app.stripe.fail_next(Operation::Create, fault);
        let id = app.cart().await;
        let refused = app.ask(&id).await;
        let message = refused.is_error(502, "PAYMENT_PROVIDER_ERROR")["message"].as_str().unwrap();
        assert!(message.contains(reason), "{message}");
        let shown = app.get(&format!("/api/carts/{id}/payment-link")).await.data(200);
        assert_eq!((&shown["status"], &shown["reason"]), (&json!("failed"), &json!(reason)));
        assert!(shown["code"].as_str().is_some_and(|code| code != "other"), "{shown}");
        app.ask(&id).await.data(200);
        assert_eq!(app.stripe.sessions()[0].metadata["link_version"], "2");
    }
}

/// The first response was lost, the second is a refusal: Stripe created a session, which is closed
/// before the next one is created.
#[tokio::test]
async fn a_refusal_after_a_lost_answer_leaves_no_second_session() {
    let app = Setup::default().set("PAYMENT_LINK_WAIT", "25s").start().await;
    app.stripe.fail_next(Operation::Create, Fault::ResetAfter);
    app.stripe.fail_next(Operation::Create, Fault::RefusedWith("No."));
    let id = app.cart().await;
    app.ask(&id).await.is_error(502, "PAYMENT_PROVIDER_ERROR");
    app.idle().await;
    let shown = app.get(&format!("/api/carts/{id}/payment-link")).await.data(200);
    assert_eq!(shown["reason"], "No.", "settling keeps the reason");
    app.ask(&id).await.data(200);
    app.idle().await;
    assert_eq!((app.stripe.sessions().len(), app.stripe.open_sessions().len()), (2, 1));
}

/// The job that creates the session waits for a long retry: closing does not wait for it.
#[tokio::test]
async fn closing_does_not_wait_for_a_retry_that_will_not_ask() {
    let app = Setup::default().set("PAYMENT_LINK_WAIT", "100ms").start().await;
    app.stripe.fail_next(Operation::Create, Fault::ResetAfter);
    app.stripe.fail_next(Operation::Create, Fault::Unavailable { retry_after: 600 });
    let id = app.cart().await;
    app.ask(&id).await.data(202);
    eventually("it waits for ten minutes", async || app.stripe.calls(Operation::Create) == 2).await;
    app.delete(&format!("/api/carts/{id}")).await.data(200);
    eventually("the session is closed meanwhile", async || app.stripe.open_sessions().is_empty()).await;
}

/// Stripe stores a 500 under its idempotency key and replays it, so only another key helps.
#[tokio::test]
async fn a_stored_server_error_gets_a_new_idempotency_key() {
    let app = Setup::default().set("PAYMENT_LINK_WAIT", "25s").start().await;
    app.stripe.fail_next(Operation::Create, Fault::ServerError);
    let id = app.cart().await;
    app.ask(&id).await.data(200);
    app.idle().await;
    assert_eq!((app.stripe.sessions().len(), app.stripe.open_sessions().len()), (1, 1));
    assert_eq!(app.stripe.sessions()[0].metadata["link_version"], "2");
}

/// … but not forever: the pause grows with each spent key, and the sixth is the last.
#[tokio::test]
async fn replacing_spent_idempotency_keys_ends() {
    let app = Setup::default().set("PAYMENT_LINK_WAIT", "100ms").start().await;
    // Each request is sent at least three times: the first attempt, a retry, and the look-up of the
    // outcome.
    for _ in 0..500 {
        app.stripe.fail_next(Operation::Create, Fault::ServerError);
    }
    // The pauses are stored, and skipped here.
    sqlx::raw_sql(
        "create table pauses (n bigserial, pause float8);
         create function note_pause() returns trigger language plpgsql security definer as $$ begin
             insert into public.pauses (pause) values (extract(epoch from new.run_at - new.created_at));
             new.run_at := new.created_at;
             return new;
         end $$;
         create trigger note_pause before insert on jobs for each row when (new.kind = 'create_payment_link')
             execute function note_pause()",
    )
    .execute(&app.pool)
    .await
    .unwrap();
    let id = app.cart().await;
    app.ask(&id).await.data(202);
    eventually("it is given up", async || {
        sqlx::query("update jobs set run_at = now() where state = 'pending' and run_at > now()")
            .execute(&app.pool)
            .await
            .unwrap();
        app.unfinished_jobs().await == 0
    })
    .await;
    let pauses: Vec<f64> =
        sqlx::query_scalar("select pause from pauses order by n").fetch_all(&app.pool).await.unwrap();
    let shown = app.get(&format!("/api/carts/{id}/payment-link")).await.data(200);
    assert_eq!(shown["status"], "failed");
    let versions: Vec<(i32, i16)> = sqlx::query_as("select version, replacements from payment_links order by version")
        .fetch_all(&app.pool)
        .await
        .unwrap();
    assert_eq!(versions, [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4), (6, 5)]);
    assert_eq!(pauses, [0.0, 1.0, 2.0, 4.0, 8.0, 16.0]);
    assert_eq!(app.stripe.sessions().len(), 0);
}

/// A cart that ends while a spent key is replaced leaves no request behind.
#[tokio::test]
async fn an_ended_cart_gets_no_new_idempotency_key() {
    let app = Setup::default().without_worker().set("PAYMENT_LINK_WAIT", "10ms").start().await;
    let id = app.cart().await;
    app.ask(&id).await.data(202);
    let link = payment_links::latest(&mut connection(&app.pool).await, &id).await.unwrap().unwrap();
    let mut ending = transaction(&app.pool).await;
    assert!(
        carts::expire(&mut ending, &id.parse().unwrap(), &common::audit::KeyName::new("test"), app.now())
            .await
            .unwrap()
    );
    let (pool, clock) = (app.pool.clone(), app.clock.clone());
    let replacing = tokio::spawn(async move {
        let mut tx = transaction(&pool).await;
        let why = Failure::new("spent", "spent");
        let next = payment_links::replace(&mut tx, &link, why, Remedy::NewKey, &clock).await.unwrap();
        tx.commit().await.unwrap();
        next
    });
    let waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    eventually("it waits for the cart", async || {
        sqlx::query_scalar::<_, i64>(waits).fetch_one(&app.pool).await.unwrap() > 0
    })
    .await;
    ending.commit().await.unwrap();
    assert!(replacing.await.unwrap().is_none());
    let statuses: Vec<String> =
        sqlx::query_scalar("select status from payment_links").fetch_all(&app.pool).await.unwrap();
    assert_eq!(statuses, ["closed"]);
}

/// Stripe repeats an address that it refuses; it is not stored, logged or returned.
#[tokio::test]
async fn a_refusal_contains_no_personal_data() {
    let app = App::new().await;
    let mut cart = a_cart();
    cart["customerEmail"] = json!("\"zora l\"@münchen.example");
    let id = app.cart_of(&cart).await;
    app.ask(&id).await.data(200);
    app.idle().await;
    let kept: Vec<String> = sqlx::query_scalar("select payment_links::text from payment_links order by version")
        .fetch_all(&app.pool)
        .await
        .unwrap();
    assert!(kept.len() == 2 && kept[0].contains("Invalid email address: …"), "{kept:?}");
    assert!(kept.iter().all(|row| !row.contains("nchen") && !row.contains("zora")), "{kept:?}");
}

/// The requests to the shop while a payment is in progress that no event has reported.
#[tokio::test]
async fn a_payment_in_progress_known_only_to_stripe_is_a_conflict() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").start().await;
    let id = app.cart().await;
    let session = app.session(&id).await;
    app.stripe.send_webhooks_to(None);
    app.stripe.pay_later(&session).await.unwrap();
    app.clock.advance(chrono::TimeDelta::hours(24));
    app.ask(&id).await.is_error(409, "CONFLICT");
    app.idle().await;
    assert_eq!(app.stripe.sessions().len(), 1);
}

#[tokio::test]
async fn a_session_without_an_address_is_not_taken() {
    let app = Setup::default().set("PAYMENT_LINK_WAIT", "300ms").start().await;
    app.stripe.fail_next(Operation::Create, Fault::NoUrl);
    let id = app.cart().await;
    app.ask(&id).await.data(202);
    failed_once(&app, &id, "Stripe's session has no address").await;
}

#[tokio::test]
async fn closing_is_tried_until_it_is_done() {
    let app = App::new().await;
    let id = app.cart().await;
    app.session(&id).await;
    for fault in [Fault::HtmlBadGateway, Fault::ResetBefore, Fault::ResetAfter] {
        app.stripe.fail_next(Operation::Expire, fault);
    }
    app.delete(&format!("/api/carts/{id}")).await.data(200);
    eventually("the session is closed", async || app.stripe.open_sessions().is_empty()).await;
    app.idle().await;
    let status: String = sqlx::query_scalar("select status from payment_links").fetch_one(&app.pool).await.unwrap();
    assert_eq!(status, "closed");
}

/// Stripe created the session, the response was lost, and the cart is deleted before the retry, so
/// the request can't be repeated. The session is searched for, and closed.
#[tokio::test]
async fn a_session_with_a_lost_response_is_found_and_closed() {
    let app = Setup::default().set("PAYMENT_LINK_WAIT", "100ms").start().await;
    let id = app.cart().await;
    app.stripe.fail_next(Operation::Create, Fault::ResetAfter);
    app.stripe.fail_next(Operation::Create, Fault::Unavailable { retry_after: 600 });
    app.ask(&id).await.data(202);
    eventually("Stripe made it and nobody knows", async || app.stripe.calls(Operation::Create) == 2).await;
    app.delete(&format!("/api/carts/{id}")).await.data(200);
    eventually("it is closed all the same", async || app.stripe.open_sessions().is_empty()).await;
    assert_eq!((app.stripe.sessions().len(), app.stripe.calls(Operation::List)), (1, 1));
}

/// A shopper pays, by card or by debit, before the worker has Stripe's response with the session:
/// the payment counts, and the session is stored afterwards.
#[tokio::test]
async fn a_payment_that_overtakes_the_answer_that_made_its_session_counts() {
    for (by_card, status, link_status) in [(true, "recovered", "paid"), (false, "abandoned", "processing")] {
        let app = App::new().await;
        let id = app.cart().await;
        app.stripe.fail_next(Operation::Create, Fault::Held);
        let pay = async {
            eventually("Stripe made the session", async || app.stripe.sessions().len() == 1).await;
            let session = app.stripe.sessions()[0].id.clone();
            let deliveries =
                if by_card { app.stripe.pay(&session).await } else { app.stripe.pay_later(&session).await }.unwrap();
            assert!(deliveries.iter().all(|delivery| delivery.status == Some(200)), "{deliveries:?}");
            app.stripe.let_go();
            session
        };
        let (asked, session) = tokio::join!(app.ask(&id), pay);
        asked.is_error(409, "CONFLICT");
        app.idle().await;
        assert_eq!(app.show(&id).await["status"], status);
        let kept: (String, Option<String>) =
            sqlx::query_as("select status, session_id from payment_links").fetch_one(&app.pool).await.unwrap();
        assert_eq!(kept, (link_status.to_owned(), Some(session)));
        let job: String = sqlx::query_scalar("select state from jobs where kind = 'create_payment_link'")
            .fetch_one(&app.pool)
            .await
            .unwrap();
        assert_eq!(job, "done");
    }
}
