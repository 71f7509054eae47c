//! The operators' view: jobs, queues, the command line.

use std::{process::Output, time::Duration};

use common::jobs::{ClosePaymentLink, CreatePaymentLink, ExpireCarts};
use queue::{EnqueueOptions, JobId};
use sandbox::stripe::{Fault, Operation};
use serde_json::{Value, json};
use tests::{App, Setup, connection, eventually};

async fn enqueue<J: queue::Job>(app: &App, job: &J) -> JobId {
    queue::enqueue(&mut connection(&app.pool).await, job).await.unwrap().expect("it was not queued yet")
}

async fn kill(app: &App, id: JobId, error: &str) {
    sqlx::query(
        "update jobs set state = 'dead', attempts = max_attempts, finished_at = now(), last_error = $2,
         lease_token = null, lease_until = null where id = $1",
    )
    .bind(id)
    .bind(error)
    .execute(&app.pool)
    .await
    .unwrap();
}

fn link_of(cart: &str) -> CreatePaymentLink {
    CreatePaymentLink { cart_id: cart.to_owned(), version: 1 }
}

async fn show(app: &App, id: JobId) -> Value {
    app.get(&format!("/api/jobs/{id}")).await.data(200)
}

#[tokio::test]
async fn jobs_are_listed_newest_first_by_queue_and_state() {
    let app = Setup::default().without_worker().start().await;
    let mut ids = Vec::new();
    for n in 0..12 {
        ids.push(enqueue(&app, &link_of(&format!("cart_{n}"))).await);
    }
    enqueue(&app, &ExpireCarts::default()).await;
    kill(&app, ids[3], "no luck").await;
    let options = EnqueueOptions { delay: Duration::from_secs(3_600), ..EnqueueOptions::default() };
    queue::enqueue_with(&mut connection(&app.pool).await, &link_of("cart_later"), options).await.unwrap();

    let page = app.get("/api/jobs?queue=payment-links&state=ready&page=2&limit=5").await.data(200);
    assert_eq!(page["pagination"], json!({"page": 2, "limit": 5, "total": 11, "totalPages": 3}));
    let listed: Vec<&str> = page["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect();
    let expected: Vec<String> =
        ids.iter().rev().filter(|id| **id != ids[3]).skip(5).take(5).map(JobId::to_string).collect();
    assert_eq!(listed, expected);

    let dead = app.get("/api/jobs?state=dead").await.data(200)["jobs"].clone();
    let job = &dead[0];
    assert_eq!(
        (&job["id"], &job["queue"], &job["kind"], &job["state"]),
        (&json!(ids[3]), &json!("payment-links"), &json!("create_payment_link"), &json!("dead"))
    );
    assert_eq!((&job["attempts"], &job["maxAttempts"], &job["lastError"]), (&json!(12), &json!(12), &json!("no luck")));
    for (field, there) in [("runAt", true), ("createdAt", true), ("finishedAt", true), ("slot", false)] {
        assert_eq!(job[field].is_string(), there, "{field}");
    }
    assert_eq!(app.get("/api/jobs?state=scheduled").await.data(200)["pagination"]["total"], 1);
    assert_eq!(app.get("/api/jobs?page=99").await.data(200)["jobs"], json!([]));
    for bad in ["state=lost", "queue=nowhere", "page=0", "limit=101"] {
        app.get(&format!("/api/jobs?{bad}")).await.is_error(400, "BAD_REQUEST");
    }
}

/// Stripe refuses; the job is dead with its history, is retried, and succeeds.
#[tokio::test]
async fn a_dead_job_has_its_history_and_can_be_retried() {
    let app = Setup::default().start().await;
    app.stripe.fail_next(Operation::Create, Fault::Refused);
    let id = app.cart().await;
    app.ask(&id).await.is_error(502, "PAYMENT_PROVIDER_ERROR");
    app.idle().await; // the api responds before the queue has stored the outcome
    let dead = app.get("/api/jobs?queue=payment-links&state=dead").await.data(200)["jobs"][0].clone();
    let path = format!("/api/jobs/{}", dead["id"].as_str().unwrap());
    let job = app.get(&path).await.data(200);
    let attempt = &job["history"][0];
    assert_eq!((&job["state"], &attempt["attempt"]), (&json!("dead"), &json!(1)));
    assert!(attempt["error"].as_str().unwrap().contains("cannot currently make charges"), "{attempt}");
    assert!(attempt["startedAt"].is_string() && attempt["endedAt"].is_string() && attempt["worker"].is_string());

    let retried = app.post(&format!("{path}/retry"), &json!(null)).await.data(200);
    assert_eq!(
        (&retried["state"], &retried["attempts"], &retried["finishedAt"]),
        (&json!("ready"), &json!(0), &json!(null))
    );
    // The request failed for good, so the job has nothing to do; a new request is a new job.
    eventually("it is done", async || app.get(&path).await.data(200)["state"] == "done").await;
    app.post(&format!("{path}/retry"), &json!(null)).await.is_error(409, "CONFLICT");
    app.post(&format!("{path}/cancel"), &json!(null)).await.is_error(409, "CONFLICT");
    app.ask(&id).await.data(200);
}

#[tokio::test]
async fn a_job_can_be_cancelled_before_it_runs_and_while_it_does() {
    let app = Setup::default().set("PAYMENT_LINK_WAIT", "100ms").without_worker().start().await;
    let waiting = enqueue(&app, &ExpireCarts::default()).await;
    let cancelled = app.post(&format!("/api/jobs/{waiting}/cancel"), &json!(null)).await.data(200);
    assert_eq!((&cancelled["state"], &cancelled["lastError"]), (&json!("dead"), &json!("cancelled by an operator")));

    app.stripe.fail_next(Operation::Create, Fault::Slow(Duration::from_secs(3_600)));
    let cart = app.cart().await;
    let asked = app.ask(&cart).await.data(202);
    let running: JobId = asked["jobId"].as_str().unwrap().parse().unwrap();
    let worker = app.start_worker();
    eventually("Stripe is asked", async || app.stripe.calls(Operation::Create) == 1).await;
    app.post(&format!("/api/jobs/{running}/cancel"), &json!(null)).await.data(200);
    assert_eq!(show(&app, running).await["state"], "dead");
    // A new request finds the failed one, closes its session at Stripe if there is one, and creates
    // the next.
    eventually("a new link", async || app.ask(&cart).await.status == 200).await;
    assert_eq!(show(&app, running).await["state"], "dead", "whatever became of the run");
    app.idle().await;
    worker.stop().await;
}

#[tokio::test]
async fn actions_in_the_wrong_state_are_refused() {
    let app = Setup::default().without_worker().start().await;
    for action in ["retry", "cancel"] {
        let path = |id: &str| format!("/api/jobs/{id}/{action}");
        app.post(&path("01a20a8d-47f2-72fe-9743-e55eae145464"), &json!(null)).await.is_error(404, "NOT_FOUND");
        app.post(&path("nonsense"), &json!(null)).await.is_error(404, "NOT_FOUND");
    }
    app.get("/api/jobs/nonsense").await.is_error(404, "NOT_FOUND");
    // The same link is requested again while its dead job exists.
    let dead = enqueue(&app, &link_of("cart_1")).await;
    kill(&app, dead, "no luck").await;
    enqueue(&app, &link_of("cart_1")).await;
    app.post(&format!("/api/jobs/{dead}/retry"), &json!(null)).await.is_error(409, "CONFLICT");
    for pull in ["pause", "resume"] {
        app.post(&format!("/api/queues/nowhere/{pull}"), &json!(null)).await.is_error(404, "NOT_FOUND");
    }
    for bad in [json!([]), json!({}), json!({"queue": "nowhere"}), json!({"queue": "expiry", "dryRun": 1})] {
        app.post("/api/jobs/retry", &bad).await.is_error(422, "VALIDATION_ERROR");
    }
}

#[tokio::test]
async fn filtered_dead_jobs_are_retried_after_a_count() {
    let app = Setup::default().without_worker().start().await;
    let close = |cart: &str| ClosePaymentLink { cart_id: cart.to_owned(), version: 1 };
    for n in 0..5 {
        let id = enqueue(&app, &link_of(&format!("cart_{n}"))).await;
        kill(&app, id, if n < 3 { "Stripe answered 503" } else { "Stripe refused it" }).await;
    }
    let other = enqueue(&app, &close("cart_9")).await;
    kill(&app, other, "Stripe answered 503").await;
    // One is queued again, one died twice under one key.
    enqueue(&app, &link_of("cart_0")).await;
    let again = enqueue(&app, &link_of("cart_1")).await;
    kill(&app, again, "Stripe answered 503").await;

    let mut filter =
        json!({"queue": "payment-links", "kind": "create_payment_link", "error": "ANSWERED 503", "dryRun": true});
    let dry = app.post("/api/jobs/retry", &filter).await.data(200);
    assert_eq!(dry, json!({"matched": 4, "retried": 0, "alreadyQueued": 0}));
    assert_eq!(app.get("/api/jobs?state=dead").await.data(200)["pagination"]["total"], 7, "counting changes nothing");
    filter["dryRun"] = json!(false);
    let done = app.post("/api/jobs/retry", &filter).await.data(200);
    assert_eq!(done, json!({"matched": 4, "retried": 2, "alreadyQueued": 2}));
    assert_eq!(show(&app, again).await["state"], "ready", "of two with one key the newest comes back");
    assert_eq!(app.get("/api/jobs?state=dead").await.data(200)["pagination"]["total"], 5);
}

#[tokio::test]
async fn queues_are_counted_paused_and_resumed() {
    let app = Setup::default().without_worker().start().await;
    let paused = app.post("/api/queues/expiry/pause", &json!(null)).await.data(200);
    assert_eq!((&paused["name"], &paused["paused"]), (&json!("expiry"), &json!(true)));
    let again = app.post("/api/queues/expiry/pause", &json!(null)).await.data(200);
    assert_eq!(again["pausedAt"], paused["pausedAt"], "it is paused since the first time");
    let id = enqueue(&app, &ExpireCarts::default()).await;
    let dead = enqueue(&app, &link_of("cart_1")).await;
    kill(&app, dead, "no luck").await;
    sqlx::query("update jobs set run_at = now() - interval '90 seconds' where id = $1")
        .bind(id)
        .execute(&app.pool)
        .await
        .unwrap();
    let worker = app.start_worker();
    let queues = app.get("/api/queues").await.data(200)["queues"].clone();
    let names: Vec<&str> = queues.as_array().unwrap().iter().map(|queue| queue["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["payment-links", "expiry", "analytics", "maintenance"]);
    assert_eq!((&queues[0]["counts"]["dead"], &queues[0]["oldestReadyAgeSeconds"]), (&json!(1), &json!(null)));
    assert!(queues[1]["counts"]["ready"].as_i64().unwrap() >= 1);
    assert!((90..600).contains(&queues[1]["oldestReadyAgeSeconds"].as_i64().unwrap()));

    app.post("/api/queues/expiry/resume", &json!(null)).await.data(200);
    eventually("it runs", async || show(&app, id).await["state"] == "done").await;
    worker.stop().await;
}

async fn command(app: &App, arguments: &[&str]) -> Output {
    let variables = [("DATABASE_URL", app.database.url.clone()), ("STRIPE_SECRET_KEY", "sk_test_1".to_owned())];
    tests::processes::run("worker", arguments, variables).await
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn the_command_line_has_the_same_actions() {
    let app = Setup::default().without_worker().start().await;
    let dead = enqueue(&app, &link_of("cart_1")).await;
    kill(&app, dead, "Stripe answered 503").await;
    let id = dead.to_string();
    let listed = text(&command(&app, &["jobs", "--state", "dead"]).await);
    assert!(listed.contains(&id) && listed.contains("Stripe answered 503") && listed.contains("1 of 1"), "{listed}");
    assert!(text(&command(&app, &["jobs", &id]).await).contains("create_payment_link"));
    let dry = text(&command(&app, &["retry", "--queue", "payment-links", "--error", "503", "--dry-run"]).await);
    assert_eq!(dry, "1 dead jobs would be retried\n");
    assert!(text(&command(&app, &["retry", &id]).await).contains("ready"));
    assert!(text(&command(&app, &["cancel", &id]).await).contains("cancelled by an operator"));
    assert!(text(&command(&app, &["retry", "--queue", "payment-links"]).await).starts_with("1 of 1"));

    text(&command(&app, &["pause", "expiry"]).await);
    assert!(text(&command(&app, &["queues"]).await).contains("PAUSED"));
    text(&command(&app, &["resume", "expiry"]).await);
    assert!(!text(&command(&app, &["queues"]).await).contains("PAUSED"));
    text(&command(&app, &["schedules"]).await);

    for (bad, says) in [
        (vec!["jobs", "--queue", "nowhere"], "payment-links"),
        (vec!["retry"], "required"),
        (vec!["retry", "01a20a8d-47f2-72fe-9743-e55eae145464"], "there is no such job"),
        (vec!["frobnicate"], "unrecognized subcommand"),
    ] {
        let refused = command(&app, &bad).await;
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && why.contains(says), "{bad:?}: {why}");
    }
}
