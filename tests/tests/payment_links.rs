use std::{collections::HashSet, sync::Arc};

use chrono::TimeDelta;
use reqwest::Method;
use sandbox::stripe::{Fault, Operation};
use serde_json::{Value, json};
use sqlx::postgres::PgQueryResult;
use tests::{App, Setup, a_cart, eventually};

#[tokio::test]
async fn a_repeated_request_returns_the_same_link() {
    let app = App::new().await;
    let id = app.cart().await;
    let before = app.now();
    let link = app.ask(&id).await.data(200);
    let instant = |value: &Value| value.as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    let (expires_at, recovery) = (instant(&link["expiresAt"]), instant(&link["recoveryExpiresAt"]));
    assert!(expires_at > before + TimeDelta::hours(23) && expires_at <= before + TimeDelta::hours(24));
    assert!(recovery >= before + TimeDelta::days(7) && recovery < before + TimeDelta::days(7) + TimeDelta::minutes(1));
    assert!(link["recoveryUrl"].as_str().unwrap().starts_with(&app.url("/pay/")));
    assert_eq!(app.ask(&id).await.data(200), link, "a live link is answered at once");
    let cart = app.show(&id).await;
    assert_eq!((&cart["paymentLink"], &cart["paymentLinkExpiresAt"]), (&link["paymentLink"], &link["expiresAt"]));
    let mut shown = app.get(&format!("/api/carts/{id}/payment-link")).await.data(200);
    assert_eq!(shown["status"].take(), "ready");
    assert_eq!(shown["paymentLink"], link["paymentLink"]);

    let session = &app.stripe.sessions()[0];
    assert_eq!((session.amount_total, session.currency.as_str()), (9_998, "usd"));
    assert_eq!(session.client_reference_id.as_deref(), Some(id.as_str()));
    assert_eq!(session.metadata["cart_id"], id);
    assert_eq!(session.payment_intent_metadata["cart_id"], id);
    assert_eq!(session.customer_email.as_deref(), Some("ada@example.com"));
}

#[tokio::test]
async fn twenty_at_once_make_one_session() {
    let app = Arc::new(App::new().await);
    // Several rounds: the worker may finish at any point of the twenty requests.
    for round in 1..=10 {
        let id = app.cart().await;
        let asks: Vec<_> = (0..20)
            .map(|_| {
                let (app, id) = (app.clone(), id.clone());
                tokio::spawn(async move { app.ask(&id).await.data(200)["paymentLink"].as_str().unwrap().to_owned() })
            })
            .collect();
        let mut links = HashSet::new();
        for ask in asks {
            links.insert(ask.await.unwrap());
        }
        assert_eq!(links.len(), 1);
        assert_eq!(app.stripe.sessions().len(), round);
        assert_eq!(app.stripe.calls(Operation::Create), round);
    }
}

#[tokio::test]
async fn without_a_worker_it_is_accepted_and_made_later() {
    let app = Setup::default().without_worker().set("PAYMENT_LINK_WAIT", "200ms").start().await;
    let id = app.cart().await;
    let path = format!("/api/carts/{id}/payment-link");
    let accepted = app.ask(&id).await;
    assert_eq!((accepted.header("location"), accepted.header("retry-after")), (path.as_str(), "2"));
    let pending = accepted.data(202);
    assert_eq!(pending["status"], "pending");
    // A shop that only wants to mail the recovery link need not wait.
    let recovery = app.extend(&id).await.data(200);
    assert_eq!((&pending["recoveryUrl"], &pending["recoveryExpiresAt"].is_string()), (&recovery["recoveryUrl"], &true));
    let again = app.ask(&id).await.data(202);
    assert_eq!(again["jobId"], pending["jobId"], "asking twice queues one job");
    let shown = app.get(&path).await;
    assert_eq!(shown.header("retry-after"), "2");
    let shown = shown.data(200);
    assert_eq!((&shown["status"], &shown["attempts"]), (&json!("pending"), &json!(0)));
    assert_eq!(shown["recoveryUrl"], recovery["recoveryUrl"]);
    let worker = app.start_worker();
    eventually("the link is ready", async || app.get(&path).await.data(200)["status"] == "ready").await;
    assert_eq!(app.get(&path).await.header("retry-after"), "", "there is nothing to wait for");
    worker.stop().await;
}

/// A link that is not available has the code that the timeline has.
#[tokio::test]
async fn a_failed_link_has_a_code() {
    let app = Setup::default().at("2026-03-01T12:00:00Z").start().await;
    let failed = async |id: &str| {
        let shown = app.get(&format!("/api/carts/{id}/payment-link")).await;
        assert_eq!(shown.header("retry-after"), "");
        let shown = shown.data(200);
        assert_eq!(shown["status"], "failed", "{shown}");
        shown["code"].as_str().unwrap().to_owned()
    };
    let refused = app.cart().await;
    app.stripe.fail_next(Operation::Create, Fault::Refused);
    app.ask(&refused).await.is_error(502, "PAYMENT_PROVIDER_ERROR");
    let timeline = app.get(&format!("/api/carts/{refused}/timeline")).await.data(200);
    let events = timeline["events"].as_array().unwrap();
    let not_made = events.iter().find(|event| event["kind"] == "link_not_made").unwrap();
    assert_eq!(failed(&refused).await, not_made["why"].as_str().unwrap());

    let cancelled = app.cart().await;
    app.post("/api/queues/payment-links/pause", &json!(null)).await.data(200);
    let job = app.ask_later(&cancelled).await["jobId"].as_str().unwrap().to_owned();
    app.send(app.request(Method::POST, &format!("/api/jobs/{job}/cancel"))).await.data(200);
    assert_eq!(failed(&cancelled).await, "job_cancelled");
    app.send(app.request(Method::POST, "/api/queues/payment-links/resume")).await.data(200);

    let paid = app.cart().await;
    let link = app.ask(&paid).await.data(200);
    app.pay(link["paymentLink"].as_str().unwrap()).await;
    eventually("it is paid", async || app.show(&paid).await["status"] == "recovered").await;
    assert_eq!(failed(&paid).await, "recovered");

    let closed = app.cart().await;
    app.ask(&closed).await.data(200);
    app.patch(&format!("/api/carts/{closed}"), &json!({"status": "expired"})).await.data(200);
    assert_eq!(failed(&closed).await, "session_closed");

    let expired = app.cart().await;
    app.ask(&expired).await.data(200);
    app.clock.advance(chrono::TimeDelta::days(2));
    assert_eq!(failed(&expired).await, "link_expired");
}

#[tokio::test]
async fn prefer_sets_the_maximum_wait() {
    let app = Setup::default().without_worker().set("PAYMENT_LINK_WAIT", "80s").start().await;
    let id = app.cart().await;
    for (prefer, applied) in [
        ("respond-async", "respond-async"),
        ("wait=0", "wait=0"),
        ("handling=lenient, Respond-Async", "respond-async"),
        // Together: asynchronously after that time.
        ("respond-async, wait=1", "respond-async, wait=1"),
    ] {
        let request = app.request(Method::POST, &format!("/api/carts/{id}/payment-link")).header("prefer", prefer);
        let answer = tokio::time::timeout(tests::DEADLINE, app.send(request)).await.expect("it does not wait");
        assert_eq!(answer.header("preference-applied"), applied);
        answer.data(202);
    }
    let worker = app.start_worker();
    let request = app.request(Method::POST, &format!("/api/carts/{id}/payment-link"));
    let answer = app.send(request.header("prefer", "wait=60")).await;
    assert_eq!((answer.status, answer.header("preference-applied")), (200, "wait=60"));
    let request = app.request(Method::POST, &format!("/api/carts/{id}/payment-link"));
    let answer = app.send(request.header("prefer", "respond-async")).await;
    assert_eq!((answer.status, answer.header("preference-applied")), (200, ""), "the link is there");
    worker.stop().await;
}

#[tokio::test]
async fn polling_alone_works_too() {
    let app = Setup::default().set("QUEUE_LISTEN", "off").start().await;
    let id = app.cart().await;
    app.ask(&id).await.data(200);
}

#[tokio::test]
async fn carts_that_cannot_be_paid_are_refused_before_stripe_is_called() {
    let app = App::new().await;
    for status in ["recovered", "expired"] {
        let id = app.cart().await;
        app.patch(&format!("/api/carts/{id}"), &json!({"status": status})).await.data(200);
        app.ask(&id).await.is_error(409, "CONFLICT");
    }
    for (price, quantity) in [(json!(0.49), 1), (json!(0), 1), (json!(999_999.99), 2)] {
        let mut cart = a_cart();
        cart["items"] = json!([{"name": "x", "quantity": quantity, "price": price}]);
        let id = app.cart_of(&cart).await;
        assert_eq!(app.ask(&id).await.is_error(422, "VALIDATION_ERROR")["details"][0]["field"], "totalValue");
    }
    let mut cart = a_cart();
    cart["items"] = json!([{"name": "x", "quantity": 1, "price": 0.5}]);
    app.session(&app.cart_of(&cart).await).await;
    assert_eq!(app.stripe.calls(Operation::Create), 1);
}

#[tokio::test]
async fn an_old_session_is_closed_before_the_next_is_made() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").start().await;
    let id = app.cart().await;
    let first = app.ask(&id).await.data(200);
    app.clock.advance(TimeDelta::hours(24));
    let cart = app.show(&id).await;
    assert_eq!((&cart["paymentLink"], &cart["paymentLinkExpiresAt"]), (&Value::Null, &Value::Null));
    let second = app.ask(&id).await.data(200);
    assert_ne!(first["paymentLink"], second["paymentLink"]);
    assert_eq!(first["recoveryUrl"], second["recoveryUrl"], "one token a cart, for its life");
    assert_ne!(first["recoveryExpiresAt"], second["recoveryExpiresAt"]);
    assert_eq!((app.stripe.sessions().len(), app.stripe.open_sessions().len()), (2, 1));
}

#[tokio::test]
async fn the_old_session_turns_out_to_be_paid() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").start().await;
    let id = app.cart().await;
    let session = app.session(&id).await;
    app.stripe.send_webhooks_to(None); // Stripe's events are lost
    app.stripe.pay(&session).await.unwrap();
    app.clock.advance(TimeDelta::hours(24));
    app.ask(&id).await.is_error(409, "CONFLICT");
    assert_eq!(app.show(&id).await["status"], "recovered");
    assert_eq!(app.stripe.sessions().len(), 1);
}

#[tokio::test]
async fn sessions_are_closed_when_their_cart_ends() {
    let app = App::new().await;
    let (recovered, expired, deleted) = (app.cart().await, app.cart().await, app.cart().await);
    for id in [&recovered, &expired, &deleted] {
        app.session(id).await;
    }
    app.patch(&format!("/api/carts/{recovered}"), &json!({"status": "recovered"})).await.data(200);
    app.patch(&format!("/api/carts/{expired}"), &json!({"status": "expired"})).await.data(200);
    app.delete(&format!("/api/carts/{deleted}")).await.data(200);
    assert_eq!(app.show(&recovered).await["paymentLink"], Value::Null);
    eventually("all sessions are closed", async || app.stripe.open_sessions().is_empty()).await;
    app.idle().await;
    // A reopened cart needs a new request.
    app.patch(&format!("/api/carts/{expired}"), &json!({"status": "abandoned"})).await.data(200);
    assert_eq!(app.show(&expired).await["paymentLink"], Value::Null);
    app.session(&expired).await;
    assert_eq!(app.stripe.open_sessions().len(), 1);
}

#[tokio::test]
async fn a_request_withdrawn_while_stripe_works_leaves_no_open_session() {
    let app = Arc::new(App::new().await);
    for end in ["recovered", "expired", "deleted"] {
        let id = app.cart().await;
        let made = app.stripe.sessions().len();
        app.stripe.fail_next(Operation::Create, Fault::Held);
        let ask = tokio::spawn({
            let (app, id) = (app.clone(), id.clone());
            async move { app.ask(&id).await }
        });
        eventually("Stripe makes the session", async || app.stripe.sessions().len() > made).await;
        let path = format!("/api/carts/{id}");
        match end {
            "deleted" => app.delete(&path).await.data(200),
            status => app.patch(&path, &json!({"status": status})).await.data(200),
        };
        ask.await.unwrap().is_error(409, "CONFLICT");
        app.stripe.let_go();
        app.idle().await;
        assert_eq!(app.stripe.open_sessions().len(), 0, "{end}");
    }
    assert_eq!(app.stripe.sessions().len(), 3);
}

#[tokio::test]
async fn a_payment_in_progress_allows_no_second_link() {
    let app = App::new().await;
    let id = app.cart().await;
    let session = app.session(&id).await;
    app.stripe.pay_later(&session).await.unwrap();
    app.ask(&id).await.is_error(409, "CONFLICT");
    assert_eq!(app.show(&id).await["paymentLink"], Value::Null);
    app.stripe.money_arrives(&session, false).await.unwrap();
    assert_ne!(app.session(&id).await, session, "a failed payment frees the cart");
}

/// The constraint that a statement violates.
fn constraint(result: sqlx::Result<PgQueryResult>) -> Option<String> {
    match result {
        Err(sqlx::Error::Database(error)) => error.constraint().map(str::to_owned),
        _ => None,
    }
}

#[tokio::test]
async fn the_database_allows_one_pending_and_one_open_link_a_cart() {
    let app = Setup::default().without_worker().start().await;
    let insert = async |version: i32, status: &str| {
        sqlx::query(
            "insert into payment_links (cart_id, version, status, job_id, session_id, url, session_expires_at, created_at, updated_at)
             values ('cart_x', $1, $2, gen_random_uuid(), 'cs_' || $1, 'https://x', now(), now(), now())",
        )
        .bind(version)
        .bind(status)
        .execute(&app.pool)
        .await
    };
    insert(1, "open").await.unwrap();
    for (version, status) in [(2, "open"), (3, "closing"), (4, "processing")] {
        assert_eq!(constraint(insert(version, status).await).as_deref(), Some("payment_links_one_open"));
    }
    insert(5, "pending").await.unwrap();
    assert_eq!(constraint(insert(6, "pending").await).as_deref(), Some("payment_links_one_pending"));
}

#[tokio::test]
async fn the_database_knows_statuses_and_a_payment_intent_once() {
    let app = Setup::default().without_worker().start().await;
    app.cart().await;
    let links = [(1, "pi_1"), (2, "pi_2")].map(|(version, intent)| {
        sqlx::query(
            "insert into payment_links (cart_id, version, status, job_id, payment_intent, session_expires_at, created_at, updated_at)
             values ('cart_x', $1, 'failed', gen_random_uuid(), $2, now(), now(), now())",
        )
        .bind(version)
        .bind(intent)
        .execute(&app.pool)
    });
    for inserted in futures_util::future::join_all(links).await {
        inserted.unwrap();
    }
    // A trigger sets the times of a status; without it a constraint rejects the row.
    let times = async || -> (bool, bool) {
        let times = "select recovered_at is not null, expired_at is not null from carts";
        sqlx::query_as(times).fetch_one(&app.pool).await.unwrap()
    };
    for (statement, expected) in [
        ("update carts set status = 'recovered'", (true, false)),
        ("update carts set status = 'expired'", (false, true)),
        ("update carts set status = 'abandoned'", (false, false)),
        ("alter table carts disable trigger user", (false, false)),
    ] {
        sqlx::query(statement).execute(&app.pool).await.unwrap();
        assert_eq!(times().await, expected, "{statement}");
    }
    for (statement, refused_by) in [
        ("update carts set status = 'lost'", Some("carts_status_known")),
        ("update carts set status = 'recovered'", Some("carts_recovered_at_set")),
        ("update carts set status = 'expired'", Some("carts_expired_at_set")),
        ("update carts set recovered_at = now()", Some("carts_recovered_at_set")),
        ("update carts set expired_at = now()", Some("carts_expired_at_set")),
        ("update payment_links set status = 'lost' where version = 1", Some("payment_links_status_known")),
        ("update payment_links set status = 'closing' where version = 1", Some("payment_links_session_known")),
        (
            "update payment_links set status = 'open', session_id = 'cs_1' where version = 1",
            Some("payment_links_url_known"),
        ),
        ("update payment_links set session_id = 'cs_1'", Some("payment_links_session_id_key")),
        ("update payment_links set payment_intent = 'pi_1'", Some("payment_links_payment_intent")),
        ("update carts set status = 'expired', expired_at = now()", None),
        ("update payment_links set payment_intent = 'pi_3' where version = 1", None),
    ] {
        let changed = sqlx::query(statement).execute(&app.pool).await;
        if refused_by.is_none() {
            assert!(changed.is_ok(), "{statement}: {changed:?}");
        }
        assert_eq!(constraint(changed).as_deref(), refused_by, "{statement}");
    }
}
