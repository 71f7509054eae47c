//! The events of a cart, with their time and reason; see
//! `migrations/20261129000005_cart_events.sql`.

use chrono::{DateTime, TimeDelta, Utc};
use common::{
    audit::KeyName,
    carts::{self, RecoveredBy},
    jobs::ExpireCarts,
};
use queue::Job;
use reqwest::Method;
use sandbox::stripe::Session;
use serde_json::{Value, json};
use tests::{App, Setup, a_cart, connection, imports::import, transaction};

pub(crate) async fn events(app: &App, id: &str) -> Vec<Value> {
    let timeline = app.get(&format!("/api/carts/{id}/timeline")).await.data(200);
    assert_eq!(timeline["pagination"], json!({"limit": 100, "nextCursor": null}));
    timeline["events"].as_array().unwrap().clone()
}

/// Each event as `kind`, or `kind 1` for a link, with its reason.
pub(crate) async fn event_lines(app: &App, id: &str) -> Vec<String> {
    let line = |event: &Value| {
        assert!(event["summary"].as_str().is_some_and(|summary| summary.len() > 3), "{event}");
        let link = event["link"].as_i64().map(|link| format!(" {link}")).unwrap_or_default();
        let why = event["why"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
        format!("{}{link}{why}", event["kind"].as_str().unwrap())
    };
    events(app, id).await.iter().map(line).collect()
}

pub(crate) async fn run(app: &App, job: &impl Job) {
    queue::enqueue(&mut connection(&app.pool).await, job).await.unwrap();
    app.idle().await;
}

pub(crate) async fn open_recovery_link(app: &App, method: Method, id: &str) -> u16 {
    let token: Option<String> = sqlx::query_scalar("select token from recovery_links where cart_id = $1")
        .bind(id)
        .fetch_one(&app.pool)
        .await
        .unwrap();
    app.send(app.bare_request(method, &format!("/pay/{}", token.unwrap()))).await.status
}

async fn patch(app: &App, id: &str, status: &str) {
    app.patch(&format!("/api/carts/{id}"), &json!({"status": status})).await.data(200);
}

pub(crate) fn start() -> Setup {
    Setup::default().at("2026-03-10T12:00:00Z")
}

#[tokio::test]
async fn the_events_of_a_recovered_cart() {
    let app = start().start().await;
    let id = app.cart().await;
    let mut moments = vec![app.now()];
    let later = || {
        app.clock.advance(TimeDelta::minutes(2));
        app.now()
    };
    moments.push(later());
    let session = app.session(&id).await;
    moments.push(app.now());
    moments.push(later());
    assert_eq!(open_recovery_link(&app, Method::POST, &id).await, 303);
    let paid_at = later();
    moments.extend([paid_at, paid_at]);
    app.stripe.pay(&session).await.unwrap();
    assert_eq!(
        event_lines(&app, &id).await,
        [
            "created: api",
            "link_requested 1: api",
            "link_made 1",
            "recovery_link_opened: checkout",
            "payment_received 1",
            "recovered: payment"
        ]
    );
    let events = events(&app, &id).await;
    let at: Vec<DateTime<Utc>> = events.iter().map(|event| event["at"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!(at, moments);
    let recovered_at = app.show(&id).await["recoveredAt"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    let told_at = events[5]["details"]["recoveredAt"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    assert_eq!(told_at, recovered_at);
    let rows: i64 = sqlx::query_scalar("select count(*) from cart_events").fetch_one(&app.pool).await.unwrap();
    assert_eq!(rows, 1, "all but the opening is told by the rows of the cart and its link");
}

#[tokio::test]
async fn a_payment_that_fails_and_a_second_link() {
    let app = start().start().await;
    let id = app.cart().await;
    let session = app.session(&id).await;
    app.clock.advance(TimeDelta::minutes(1));
    app.stripe.pay_later(&session).await.unwrap();
    app.clock.advance(TimeDelta::minutes(1));
    open_recovery_link(&app, Method::POST, &id).await;
    app.clock.advance(TimeDelta::minutes(1));
    app.stripe.money_arrives(&session, false).await.unwrap();
    app.clock.advance(TimeDelta::minutes(1));
    app.session(&id).await;
    let expected = [
        "created: api",
        "link_requested 1: api",
        "link_made 1",
        "payment_processing 1",
        "recovery_link_opened: payment_under_way",
        "payment_failed 1",
        "link_requested 2: api",
        "link_made 2",
    ];
    assert_eq!(event_lines(&app, &id).await, expected);
}

#[tokio::test]
async fn a_skipped_expiry_is_recorded_once() {
    let app = start().set("CART_TTL", "1d").start().await;
    let (linked, paying, plain) = (app.cart().await, app.cart().await, app.cart().await);
    app.session(&linked).await;
    let session = app.session(&paying).await;
    app.stripe.pay_later(&session).await.unwrap();
    for _ in 0..3 {
        app.clock.advance(TimeDelta::days(2));
        run(&app, &ExpireCarts::default()).await;
    }
    app.clock.advance(TimeDelta::days(2)); // the recovery link has expired after a week
    run(&app, &ExpireCarts::default()).await;
    let of_linked = event_lines(&app, &linked).await;
    assert_eq!(
        of_linked[3..].iter().filter(|event| *event != "session_closed 1").collect::<Vec<_>>(),
        ["not_expired: recovery_link_good", "expired: age"]
    );
    let spared = events(&app, &linked).await.into_iter().find(|event| event["kind"] == "not_expired").unwrap();
    assert_eq!(spared["details"], json!({"until": "2026-03-17T12:00:00Z"}));
    assert_eq!(event_lines(&app, &paying).await[3..], ["payment_processing 1", "not_expired: payment_under_way"]);
    assert_eq!(event_lines(&app, &plain).await, ["created: api", "expired: age"]);
    app.stripe.money_arrives(&session, true).await.unwrap();
    assert_eq!(event_lines(&app, &paying).await[5..], ["payment_received 1", "recovered: payment"]);
}

#[tokio::test]
async fn operator_actions_are_recorded() {
    let app = start().start().await;
    let id = app.cart().await;
    app.session(&id).await;
    for status in ["expired", "abandoned", "expired", "abandoned", "abandoned", "recovered", "recovered"] {
        app.clock.advance(TimeDelta::minutes(1));
        patch(&app, &id, status).await;
        app.idle().await;
    }
    let lines = event_lines(&app, &id).await;
    let without_closing: Vec<_> = lines.iter().filter(|event| *event != "session_closed 1").skip(3).collect();
    assert_eq!(
        without_closing,
        ["expired: operator", "reopened: operator", "expired: operator", "reopened: operator", "recovered: operator"]
    );
    assert_eq!(lines[4], "session_closed 1", "in the moment in which it expired");

    let withdrawn = app.cart().await;
    let busy = Setup::default().without_worker().start().await;
    assert_eq!(event_lines(&app, &withdrawn).await, ["created: api"]);
    let id = busy.cart().await;
    busy.send(busy.request(Method::POST, &format!("/api/carts/{id}/payment-link")).header("prefer", "wait=0"))
        .await
        .data(202);
    patch(&busy, &id, "expired").await;
    let of_withdrawn = event_lines(&busy, &id).await;
    assert!(of_withdrawn.contains(&"link_withdrawn 1".to_owned()), "{of_withdrawn:?}");
}

#[tokio::test]
async fn imports_and_manual_sql_are_recorded() {
    let app = start().start().await;
    let mut line = a_cart();
    line["status"] = json!("recovered");
    line["abandonedAt"] = json!("2026-01-01T00:00:00Z");
    line["recoveredAt"] = json!("2026-01-02T00:00:00Z");
    let (lines, _) = import(&app, "application/x-ndjson", line.to_string()).await;
    let id = lines[0]["id"].as_str().unwrap();
    assert_eq!(event_lines(&app, id).await, ["created: import", "recovered: import"]);
    let events = events(&app, id).await;
    assert_eq!(
        (&events[1]["at"], &events[1]["details"]),
        (&json!(app.now()), &json!({"recoveredAt": "2026-01-02T00:00:00Z"}))
    );

    let by_hand = app.cart().await;
    for status in ["recovered", "abandoned", "expired"] {
        sqlx::query("update carts set status = $1 where id = $2")
            .bind(status)
            .bind(&by_hand)
            .execute(&app.pool)
            .await
            .unwrap();
    }
    assert_eq!(event_lines(&app, &by_hand).await, ["created: api", "recovered: sql", "reopened: sql", "expired: sql"]);
}

#[tokio::test]
async fn money_that_recovers_nothing() {
    let app = start().start().await;
    let id = app.cart().await;
    let session = app.session(&id).await;
    app.clock.advance(TimeDelta::minutes(1));
    app.stripe.send_webhooks_to(None);
    app.stripe.pay(&session).await.unwrap();
    patch(&app, &id, "recovered").await;
    app.idle().await; // closing the session finds the payment
    app.clock.advance(TimeDelta::minutes(1));
    for kind in ["checkout.session.completed", "payment_intent.succeeded"] {
        app.webhook(&app.stripe.event_of(&session, kind, |_| ())).await.data(200);
    }
    let expected = ["payment_received 1", "not_recovered 1: already_recovered", "recovered: operator"];
    assert_eq!(event_lines(&app, &id).await[3..], expected);

    // The same by Stripe's events alone; the two events of a payment count once.
    let (twice, once) = (app.cart().await, app.cart().await);
    let sessions = [app.session(&twice).await, app.session(&once).await];
    sqlx::query("update carts set status = 'recovered' where id = $1").bind(&twice).execute(&app.pool).await.unwrap();
    for session in &sessions {
        for kind in ["checkout.session.completed", "payment_intent.succeeded"] {
            app.webhook(&app.stripe.event_of(session, kind, Session::complete)).await.data(200);
        }
    }
    let not_recovered = |lines: Vec<String>| lines.iter().filter(|event| event.starts_with("not_recovered")).count();
    assert_eq!(not_recovered(event_lines(&app, &twice).await), 1);
    assert_eq!(not_recovered(event_lines(&app, &once).await), 0);
}

#[tokio::test]
async fn repeated_visits_of_a_link_are_bounded() {
    let app = start().start().await;
    let id = app.cart().await;
    app.session(&id).await;
    let openings =
        async || event_lines(&app, &id).await.iter().filter(|event| event.starts_with("recovery_link_opened")).count();
    for method in [Method::HEAD, Method::GET] {
        assert_eq!(open_recovery_link(&app, method, &id).await, 303);
    }
    assert_eq!(openings().await, 0, "programs send HEAD and GET");
    for _ in 0..20 {
        assert_eq!(open_recovery_link(&app, Method::POST, &id).await, 303);
    }
    assert_eq!(openings().await, 1);
    let all_at_once: Vec<_> = (0..10).map(|_| open_recovery_link(&app, Method::POST, &id)).collect();
    app.clock.advance(TimeDelta::minutes(1));
    futures_util::future::join_all(all_at_once).await;
    assert_eq!(openings().await, 2);
    for _ in 0..70 {
        app.clock.advance(TimeDelta::minutes(1));
        open_recovery_link(&app, Method::POST, &id).await;
    }
    assert_eq!(openings().await, 11, "the first ten, and one an hour");
    app.clock.advance(TimeDelta::days(30));
    assert_eq!(open_recovery_link(&app, Method::POST, &id).await, 410);
    assert_eq!(
        event_lines(&app, &id).await.iter().filter(|event| *event == "recovery_link_opened: link_expired").count(),
        1
    );
}

#[tokio::test]
async fn an_event_is_atomic_with_its_change() {
    let app = start().without_worker().start().await;
    let id = app.cart().await;
    let cart_id = id.parse().unwrap();
    patch(&app, &id, "expired").await;
    let before = events(&app, &id).await;
    app.clock.advance(TimeDelta::minutes(1));
    let mut tx = transaction(&app.pool).await;
    assert!(carts::reopen(&mut tx, &cart_id, &KeyName::new("anna"), app.now()).await.unwrap());
    assert!(carts::recover(&mut tx, &cart_id, RecoveredBy::Manual, app.now(), None, app.now()).await.unwrap());
    assert_eq!(events(&app, &id).await, before, "nothing is told before it is done");
    tx.rollback().await.unwrap();
    assert_eq!(events(&app, &id).await, before);
    let rows: i64 = sqlx::query_scalar("select count(*) from cart_events").fetch_one(&app.pool).await.unwrap();
    assert_eq!(rows, 0);

    let mut tx = transaction(&app.pool).await;
    assert!(carts::recover(&mut tx, &cart_id, RecoveredBy::Payment, app.now(), None, app.now()).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(event_lines(&app, &id).await, ["created: api", "expired: operator", "recovered: payment"]);
    for change in ["update cart_events set why = null", "delete from cart_events"] {
        let refused = sqlx::query(change).execute(&app.pool).await.unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{refused}");
    }
}

#[tokio::test]
async fn a_deleted_cart_has_no_timeline() {
    let app = start().start().await;
    let (deleted, kept) = (app.cart().await, app.cart().await);
    for id in [&deleted, &kept] {
        app.session(id).await;
        open_recovery_link(&app, Method::POST, id).await;
        patch(&app, id, "expired").await;
        app.clock.advance(TimeDelta::minutes(1));
        patch(&app, id, "abandoned").await;
    }
    let before = events(&app, &kept).await;
    app.delete(&format!("/api/carts/{deleted}")).await.data(200);
    app.idle().await; // its session is closed now, without an event
    app.get(&format!("/api/carts/{deleted}/timeline")).await.is_error(404, "NOT_FOUND");
    let rows: Vec<String> =
        sqlx::query_scalar("select distinct cart_id from cart_events").fetch_all(&app.pool).await.unwrap();
    assert_eq!(rows, std::slice::from_ref(&kept));
    assert_eq!(events(&app, &kept).await[..before.len()], before);
    for unknown in ["cart_unknown", "x", "%00"] {
        app.get(&format!("/api/carts/{unknown}/timeline")).await.is_error(404, "NOT_FOUND");
    }
    sqlx::query("delete from carts").execute(&app.pool).await.unwrap();
    let rows: i64 = sqlx::query_scalar("select count(*) from cart_events").fetch_one(&app.pool).await.unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn pages_equal_the_whole_timeline() {
    let app = start().without_worker().start().await;
    let id = app.cart().await;
    for status in ["expired", "abandoned"].repeat(6) {
        app.clock.advance(TimeDelta::seconds(1));
        patch(&app, &id, status).await;
    }
    let whole = events(&app, &id).await;
    assert_eq!(whole.len(), 13);
    let (mut parts, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/carts/{id}/timeline?limit=3&cursor={cursor}");
        let part = app.get(&path).await.data(200);
        parts.extend(part["events"].as_array().unwrap().iter().cloned());
        match part["pagination"]["nextCursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(parts, whole);
    for bad in ["limit=0", "limit=101", "limit=x", "cursor=x", "cursor=1-2-x"] {
        app.get(&format!("/api/carts/{id}/timeline?{bad}")).await.is_error(400, "BAD_REQUEST");
    }
    let past_the_end = app.get(&format!("/api/carts/{id}/timeline?cursor=4102444800000000-0")).await.data(200);
    assert_eq!(past_the_end["events"], json!([]));
}
