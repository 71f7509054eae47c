//! The audit log: what was changed, when, and with which key.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use common::{
    api_keys::Scope::{Operator, Read, Support, Write},
    jobs::{DeleteOldRecords, ExpireCarts},
};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{
    App, Contract, OF_THE_SHOPPER, Setup, a_cart, connection, eventually,
    imports::{NDJSON, import, ndjson},
};

use crate::{
    api_keys::{ask, key},
    dashboard::Operator as SignedIn,
    timeline::{events, run},
};

/// `key action subject`, newest first.
async fn entries(app: &App) -> Vec<String> {
    let log = app.get("/api/audit").await.data(200);
    let line = |entry: &Value| {
        let subject: Vec<&str> = entry["subject"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
        let count = entry["count"].as_i64().unwrap();
        let count = if count == 1 { String::new() } else { format!(" x{count}") };
        format!("{} {} {}{count}", entry["key"].as_str().unwrap(), entry["action"].as_str().unwrap(), subject.join(","))
    };
    log["entries"].as_array().unwrap().iter().map(line).collect()
}

async fn newest(app: &App) -> String {
    entries(app).await.into_iter().next().unwrap_or_default()
}

async fn a_job(app: &App) -> String {
    let id = queue::enqueue(&mut connection(&app.pool).await, &ExpireCarts::default()).await.unwrap();
    id.expect("it was not queued yet").to_string()
}

/// Sends a successful request to every route that changes something, and looks at its entry.
#[tokio::test]
async fn every_changing_route_leaves_an_entry() {
    let app = Setup::default().start().await;
    let mut left: BTreeSet<String> =
        Contract::get().operations().into_iter().filter(|operation| !operation.starts_with("GET ")).collect();
    for open in ["POST /api/webhooks/stripe", "POST /pay/{token}"] {
        assert!(left.remove(open), "{open}");
    }
    let mut done = |operation: &str| assert!(left.remove(operation), "{operation}");

    let id = app.cart().await;
    assert_eq!(newest(&app).await, format!("API_KEY cart.created {id}"));
    done("POST /api/carts");
    let path = format!("/api/carts/{id}");
    for (body, action) in [
        (json!({"customerName": "Grace"}), "changed"),
        (json!({"status": "expired"}), "expired"),
        (json!({"status": "abandoned"}), "reopened"),
    ] {
        app.patch(&path, &body).await.data(200);
        assert_eq!(newest(&app).await, format!("API_KEY cart.{action} {id}"));
    }
    done("PATCH /api/carts/{id}");
    app.ask(&id).await.data(200);
    assert_eq!(newest(&app).await, format!("API_KEY payment_link.requested {id}"));
    done("POST /api/carts/{id}/payment-link");
    app.extend(&id).await.data(200);
    assert_eq!(newest(&app).await, format!("API_KEY recovery_link.extended {id}"));
    done("POST /api/carts/{id}/recovery-link");
    app.patch(&path, &json!({"status": "recovered"})).await.data(200);
    assert_eq!(newest(&app).await, format!("API_KEY cart.recovered {id}"));
    app.delete(&path).await.data(200);
    assert_eq!(newest(&app).await, format!("API_KEY cart.deleted {id}"));
    done("DELETE /api/carts/{id}");

    import(&app, NDJSON, ndjson((0..3).map(|_| a_cart()))).await;
    assert_eq!(newest(&app).await, "API_KEY carts.imported  x3");
    done("POST /api/carts/import");
    let receipt = app.post("/api/erasure", &json!({"email": "ada@example.com"})).await.data(200);
    assert_eq!(newest(&app).await, format!("API_KEY shopper.erased {}", receipt["id"].as_str().unwrap()));
    done("POST /api/erasure");

    app.post("/api/queues/expiry/pause", &json!(null)).await.data(200);
    assert_eq!(newest(&app).await, "API_KEY queue.paused expiry");
    done("POST /api/queues/{name}/pause");
    app.idle().await;
    let ran = app.post("/api/schedules/delete_old_records/run", &json!(null)).await;
    assert!([200, 409].contains(&ran.status), "{}", ran.text);
    if ran.status == 200 {
        assert_eq!(newest(&app).await, "API_KEY schedule.run delete_old_records");
    }
    done("POST /api/schedules/{name}/run");
    let job = a_job(&app).await;
    for (method, action, entry) in [
        (Method::POST, "/cancel", "cancelled"),
        (Method::POST, "/retry", "retried"),
        (Method::POST, "/cancel", "cancelled"),
        (Method::DELETE, "", "discarded"),
    ] {
        app.send(app.request(method, &format!("/api/jobs/{job}{action}"))).await.data(200);
        assert_eq!(newest(&app).await, format!("API_KEY job.{entry} {job}"));
    }
    for action in ["POST /api/jobs/{id}/cancel", "POST /api/jobs/{id}/retry", "DELETE /api/jobs/{id}"] {
        done(action);
    }
    sqlx::query("delete from jobs where queue = 'expiry'").execute(&app.pool).await.unwrap();
    for _ in 0..2 {
        a_job(&app).await;
    }
    for (action, entry) in
        [("cancel", "cancelled"), ("retry", "retried"), ("cancel", "cancelled"), ("discard", "discarded")]
    {
        let before = entries(&app).await.len();
        let body = |dry_run: bool| json!({"queue": "expiry", "kind": "expire_carts", "dryRun": dry_run});
        app.post(&format!("/api/jobs/{action}"), &body(true)).await.data(200);
        assert_eq!(entries(&app).await.len(), before, "that was a count");
        app.post(&format!("/api/jobs/{action}"), &body(false)).await.data(200);
        let entry = format!("API_KEY job.{entry} expiry");
        assert!(newest(&app).await.starts_with(&entry), "{entry}: {}", newest(&app).await);
    }
    for action in ["cancel", "retry", "discard"] {
        done(&format!("POST /api/jobs/{action}"));
    }
    app.post("/api/queues/expiry/resume", &json!(null)).await.data(200);
    assert_eq!(newest(&app).await, "API_KEY queue.resumed expiry");
    done("POST /api/queues/{name}/resume");
    assert!(left.is_empty(), "{left:?}");

    let log = app.get("/api/audit").await.text.to_lowercase();
    for word in OF_THE_SHOPPER {
        assert!(!log.contains(&word.to_lowercase()), "{word}: {log}");
    }
}

#[tokio::test]
async fn a_change_that_does_not_happen_leaves_no_entry() {
    let app = Setup::default().without_worker().start().await;
    let mut cart = a_cart();
    cart["externalId"] = json!("order-1");
    let id = app.cart_of(&cart).await;
    let other = app.cart().await;
    let path = format!("/api/carts/{id}");
    let before = entries(&app).await;
    app.post("/api/carts", &cart).await.data(200);
    app.post("/api/carts", &json!({})).await.is_error(422, "VALIDATION_ERROR");
    app.patch(&path, &json!({"status": "abandoned"})).await.data(200);
    let taken = app.patch(&format!("/api/carts/{other}"), &json!({"externalId": "order-1", "customerName": "x"})).await;
    taken.is_error(409, "CONFLICT");
    let stale = app.request(Method::DELETE, &path).header("if-match", "\"x\"");
    app.send(stale).await.is_error(412, "PRECONDITION_FAILED");
    app.post("/api/queues/expiry/resume", &json!(null)).await.data(200);
    app.post("/api/jobs/discard", &json!({"queue": "expiry"})).await.data(200);
    app.post("/api/schedules/nothing/run", &json!(null)).await.is_error(404, "NOT_FOUND");
    assert_eq!(entries(&app).await, before);
    // The entry and the change are one transaction.
    app.sql(
        "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$;
             create trigger refuse before delete on carts for each row execute function refuse()",
    )
    .await;
    app.delete(&path).await.is_error(500, "INTERNAL_ERROR");
    assert_eq!(entries(&app).await, before);
}

#[tokio::test]
async fn entries_and_timelines_name_the_key() {
    let app = Setup::default().start().await;
    let shop = key(&app.pool, "shop", &[Read, Write], None).await;
    let anna = key(&app.pool, "anna", &[Operator], None).await;
    for key in [&shop, &anna] {
        eventually("it is known", async || ask(&app, key, Method::GET, "/api/nothing").await.status == 404).await;
    }
    let created = app.bare_request(Method::POST, "/api/carts").header("x-api-key", &shop).json(&a_cart());
    let id = app.send(created).await.data(201)["id"].as_str().unwrap().to_owned();
    let path = format!("/api/carts/{id}");
    let rename = app.bare_request(Method::PATCH, &path).header("x-api-key", &shop);
    app.send(rename.json(&json!({"customerName": "Grace"}))).await.data(200);
    let operator = SignedIn::sign_in(&app, &anna).await;
    for action in ["link", "expire", "reopen", "recover"] {
        assert_eq!(operator.post(&format!("/carts/{id}/{action}"), "confirmed=yes").await.status, 303, "{action}");
    }
    let told: Vec<(String, Value)> = events(&app, &id)
        .await
        .iter()
        .filter(|event| !event["details"]["key"].is_null())
        .map(|event| (event["summary"].as_str().unwrap().to_owned(), event["details"]["key"].clone()))
        .collect();
    let (shop, anna) = (json!("shop"), json!("anna"));
    assert_eq!(
        told,
        [
            ("Received via API from shop".to_owned(), shop.clone()),
            ("Changed by shop: customer name".to_owned(), shop),
            ("Payment link 1 requested by anna".to_owned(), anna.clone()),
            ("Expired by anna".to_owned(), anna.clone()),
            ("Reopened by anna".to_owned(), anna.clone()),
            ("Marked recovered by anna".to_owned(), anna),
        ]
    );
    assert_eq!(
        entries(&app).await,
        [
            format!("anna cart.recovered {id}"),
            format!("anna cart.reopened {id}"),
            format!("anna cart.expired {id}"),
            format!("anna payment_link.requested {id}"),
            format!("shop cart.changed {id}"),
            format!("shop cart.created {id}"),
        ]
    );
    let page = operator.get("/audit").await.text;
    assert!(page.contains("cart.recovered") && page.contains(&format!("/carts/{id}")), "{page}");
    operator.post("/sign-out", "").await;
    assert_eq!(newest(&app).await, "anna session.ended ");

    // A shopper's export names none of the shop's staff.
    let exported = app.get("/api/erasure/export?email=ada@example.com").await;
    assert!(exported.text.contains("\"recovered\"") && !exported.text.contains("anna"), "{}", exported.text);
}

#[tokio::test]
async fn carts_that_are_stored_together_share_an_entry() {
    let app = Setup::default().without_worker().start().await;
    let carts = futures_util::future::join_all((0..40).map(|_| app.cart())).await;
    let log = app.get("/api/audit").await.data(200);
    let entries = log["entries"].as_array().unwrap();
    let mut named: Vec<&str> =
        entries.iter().flat_map(|entry| entry["subject"].as_array().unwrap()).map(|id| id.as_str().unwrap()).collect();
    named.sort_unstable();
    let mut carts: Vec<&str> = carts.iter().map(String::as_str).collect();
    carts.sort_unstable();
    assert_eq!(named, carts, "each is named once");
    assert!(entries.iter().all(|entry| entry["count"] == json!(entry["subject"].as_array().unwrap().len())));
}

#[tokio::test]
async fn the_log_is_read_by_cursor_and_kept_for_a_year() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").start().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(app.cart().await);
        app.clock.advance(TimeDelta::days(90));
    }
    let (mut named, mut path) = (Vec::new(), "/api/audit?limit=2".to_owned());
    loop {
        let part = app.get(&path).await;
        let link = part.header("link").to_owned();
        let part = part.data(200);
        named.extend(part["entries"].as_array().unwrap().iter().map(|entry| entry["subject"][0].clone()));
        let Some(next) = part["pagination"]["nextCursor"].as_str() else { break };
        path = format!("/api/audit?limit=2&cursor={next}");
        assert_eq!(link, format!("<{path}>; rel=\"next\""));
    }
    ids.reverse();
    assert_eq!(named, ids.iter().map(|id| json!(id)).collect::<Vec<_>>(), "newest first");
    for bad in ["cursor=x", "limit=0", "cursor=1-1"] {
        app.get(&format!("/api/audit?{bad}")).await.is_error(400, "BAD_REQUEST");
    }
    app.first_runs_have_ended().await;
    run(&app, &DeleteOldRecords::default()).await;
    let kept = entries(&app).await;
    assert_eq!(kept.len(), 4, "{kept:?}");
}

#[tokio::test]
async fn support_sees_the_dashboard_and_changes_nothing() {
    let app = Setup::default().without_worker().start().await;
    let id = app.cart().await;
    let job = a_job(&app).await;
    let helper = key(&app.pool, "helper", &[Support], None).await;
    eventually("it is known", async || ask(&app, &helper, Method::GET, "/api/queues").await.status == 200).await;
    let support = SignedIn::sign_in(&app, &helper).await;
    for path in [
        "/",
        "/start",
        "/carts",
        &format!("/carts/{id}"),
        "/jobs",
        &format!("/jobs/{job}"),
        "/queues",
        "/schedules",
        "/audit",
    ] {
        let page = support.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        let forms: Vec<&str> =
            page.text.split("<form").skip(1).filter(|form| form.contains("method=\"post\"")).collect();
        assert_eq!(forms.len(), 1, "only that for signing out: {path} {forms:?}");
        assert!(!page.text.contains("/delete\"") && !page.text.contains("type=\"checkbox\""), "{path}");
    }
    for path in [
        format!("/carts/{id}/delete"),
        format!("/carts/{id}/expire"),
        format!("/carts/{id}/recover"),
        "/carts/export".to_owned(),
        "/jobs/cancel".to_owned(),
        format!("/jobs/selected?action=cancel&id={job}"),
        format!("/carts/selected?action=link&id={id}"),
    ] {
        assert_eq!(support.get(&path).await.status, 403, "{path}");
    }
    for path in [
        format!("/carts/{id}/expire"),
        format!("/carts/{id}/link"),
        format!("/carts/{id}/delete"),
        format!("/jobs/{job}/cancel"),
        "/jobs/cancel".to_owned(),
        "/queues/expiry/pause".to_owned(),
        "/schedules/expire_carts/run".to_owned(),
    ] {
        assert_eq!(support.post(&path, "").await.status, 403, "{path}");
    }
    for path in [
        "/api/carts",
        &format!("/api/carts/{id}"),
        &format!("/api/carts/{id}/timeline"),
        "/api/analytics",
        "/api/audit",
    ] {
        ask(&app, &helper, Method::GET, path).await.data(200);
    }
    for path in ["/api/carts/export", "/api/erasure/export?email=ada@example.com"] {
        ask(&app, &helper, Method::GET, path).await.is_error(403, "FORBIDDEN");
    }
    ask(&app, &helper, Method::DELETE, &format!("/api/carts/{id}")).await.is_error(403, "FORBIDDEN");
    assert_eq!(app.show(&id).await["status"], "abandoned");
    assert_eq!(entries(&app).await, [format!("API_KEY cart.created {id}")]);
    assert_eq!(support.post("/sign-out", "").await.status, 303);
    assert_eq!(support.get("/").await.status, 303);
}
