//! The operators' view: jobs, queues, the command line.

use std::{process::Output, time::Duration};

use common::jobs::{ClosePaymentLink, CreatePaymentLink, DeleteOldRecords, ExpireCarts};
use queue::{EnqueueOptions, JobId};
use reqwest::Method;
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
    for bad in [
        json!([]),
        json!({}),
        json!({"queue": "nowhere"}),
        json!({"queue": "expiry", "dryRun": 1}),
        json!({"queue": "payment-links", "cartId": "cart_1"}),
        json!({"queue": "payment-links", "dryrun": true}),
    ] {
        for action in ["retry", "cancel", "discard"] {
            app.post(&format!("/api/jobs/{action}"), &bad).await.is_error(422, "VALIDATION_ERROR");
        }
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
async fn jobs_name_their_cart_and_are_found_by_it() {
    let app = App::new().await;
    let (cart, other) = (app.cart().await, app.cart().await);
    for id in [&cart, &other] {
        app.ask(id).await.data(200);
    }
    app.patch(&format!("/api/carts/{cart}"), &json!({"status": "expired"})).await.data(200);
    app.idle().await;
    let of_cart = async |filter: &str| {
        let page = app.get(&format!("/api/jobs?cartId={cart}{filter}")).await.data(200);
        let jobs = page["jobs"].as_array().unwrap().clone();
        assert_eq!(page["pagination"]["total"], json!(jobs.len()));
        for job in &jobs {
            assert_eq!((&job["cartId"], &job["arguments"]), (&json!(cart), &json!({"cartId": cart, "version": 1})));
        }
        jobs.iter().map(|job| job["kind"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of_cart("").await, ["close_payment_link", "create_payment_link"]);
    assert_eq!(of_cart("&kind=create_payment_link&state=done&queue=payment-links").await, ["create_payment_link"]);
    assert!(of_cart("&error=nothing").await.is_empty());
    app.get("/api/jobs?cartId=nonsense%20").await.is_error(400, "BAD_REQUEST");
    let scheduled = app.get("/api/jobs?queue=expiry").await.data(200)["jobs"][0].clone();
    assert_eq!((&scheduled["cartId"], &scheduled["arguments"]), (&json!(null), &json!({"helper": 0})));
    // Every job with a cart among its arguments names it.
    let nameless: i64 = sqlx::query_scalar("select count(*) from jobs where payload ? 'cartId' and subject is null")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    assert_eq!(nameless, 0);
}

async fn link_status(app: &App, cart: &str) -> String {
    let newest = "select status from payment_links where cart_id = $1 order by version desc limit 1";
    sqlx::query_scalar(newest).bind(cart).fetch_one(&app.pool).await.unwrap()
}

#[tokio::test]
async fn a_dismissed_job_leaves_no_link_pending() {
    let app = Setup::default().without_worker().start().await;
    let ask_and_cancel = async |cart: &str| {
        let job = app.ask_later(cart).await["jobId"].as_str().unwrap().to_owned();
        let path = format!("/api/jobs/{job}");
        app.delete(&path).await.is_error(409, "CONFLICT");
        app.post(&format!("{path}/cancel"), &json!(null)).await.data(200);
        (job, path)
    };
    let cart = app.cart().await;
    let (job, path) = ask_and_cancel(&cart).await;
    assert_eq!(link_status(&app, &cart).await, "pending", "a retry may still make it");
    assert_eq!(app.delete(&path).await.data(200), json!({"id": job, "deleted": true}));
    for request in [Method::GET, Method::DELETE] {
        app.send(app.request(request, &path)).await.is_error(404, "NOT_FOUND");
    }
    assert_eq!(link_status(&app, &cart).await, "failed");
    let link = app.get(&format!("/api/carts/{cart}/payment-link")).await.data(200);
    assert_eq!(link, json!({"status": "failed", "reason": "cancelled by an operator", "code": "job_cancelled"}));
    app.ask_later(&cart).await;

    // Stripe may have the session of a request that was sent: a job finds and closes it.
    let sent = app.cart().await;
    let (_, path) = ask_and_cancel(&sent).await;
    sqlx::query("update payment_links set attempted_at = now() where cart_id = $1")
        .bind(&sent)
        .execute(&app.pool)
        .await
        .unwrap();
    app.delete(&path).await.data(200);
    assert_eq!(link_status(&app, &sent).await, "settling");
    let jobs = app.get(&format!("/api/jobs?cartId={sent}")).await.data(200)["jobs"].clone();
    assert_eq!((&jobs[0]["kind"], &jobs[0]["state"]), (&json!("close_payment_link"), &json!("ready")));

    // A job that is gone for another reason, such as its retention.
    let lost = app.cart().await;
    let (job, _) = ask_and_cancel(&lost).await;
    sqlx::query("delete from jobs where id = $1::uuid").bind(&job).execute(&app.pool).await.unwrap();
    let waiting = app.cart().await;
    let waiting_job = app.ask_later(&waiting).await["jobId"].as_str().unwrap().to_owned();
    sqlx::query("update jobs set run_at = now() + interval '1 hour' where id = $1::uuid")
        .bind(&waiting_job)
        .execute(&app.pool)
        .await
        .unwrap();
    app.post("/api/queues/payment-links/pause", &json!(null)).await.data(200);
    enqueue(&app, &DeleteOldRecords::default()).await;
    let worker = app.start_worker();
    eventually("it is given up", async || link_status(&app, &lost).await == "failed").await;
    assert_eq!(link_status(&app, &waiting).await, "pending");
    worker.stop().await;
}

#[tokio::test]
async fn filtered_jobs_are_cancelled_and_dismissed_after_a_count() {
    let app = Setup::default().without_worker().start().await;
    for n in 0..3 {
        enqueue(&app, &link_of(&format!("cart_{n}"))).await;
    }
    let flaky = enqueue(&app, &link_of("cart_flaky")).await;
    sqlx::query("update jobs set last_error = 'Stripe answered 503', attempts = 1, run_at = now() + interval '1 h' where id = $1")
        .bind(flaky)
        .execute(&app.pool)
        .await
        .unwrap();
    enqueue(&app, &ExpireCarts::default()).await;
    let post = async |action: &str, body: Value| app.post(&format!("/api/jobs/{action}"), &body).await.data(200);
    let of = |error: Option<&str>, dry_run: bool| json!({"queue": "payment-links", "kind": "create_payment_link", "error": error.unwrap_or("503"), "dryRun": dry_run});
    assert_eq!(post("cancel", of(None, true)).await, json!({"matched": 1, "cancelled": 0}));
    assert_eq!(show(&app, flaky).await["state"], "retrying", "counting changes nothing");
    assert_eq!(post("cancel", of(None, false)).await, json!({"matched": 1, "cancelled": 1}));
    assert_eq!(show(&app, flaky).await["state"], "dead");
    assert_eq!(post("cancel", json!({"queue": "payment-links"})).await, json!({"matched": 3, "cancelled": 3}));
    let dead = json!({"queue": "payment-links", "error": "BY AN OPERATOR", "dryRun": true});
    assert_eq!(post("discard", dead.clone()).await, json!({"matched": 4, "discarded": 0}));
    assert_eq!(post("discard", json!({"queue": "expiry"})).await, json!({"matched": 0, "discarded": 0}));
    let mut dead = dead;
    dead["dryRun"] = json!(false);
    assert_eq!(post("discard", dead).await, json!({"matched": 4, "discarded": 4}));
    assert_eq!(app.get("/api/jobs").await.data(200)["pagination"]["total"], 1, "the other queue's job");
    for action in ["cancel", "discard"] {
        for bad in [json!([]), json!({}), json!({"queue": "nowhere"}), json!({"queue": "expiry", "kind": ""})] {
            app.post(&format!("/api/jobs/{action}"), &bad).await.is_error(422, "VALIDATION_ERROR");
        }
    }
}

#[tokio::test]
async fn workers_are_listed_with_what_they_run() {
    let app = Setup::default().set("PAYMENT_LINK_WAIT", "100ms").without_worker().start().await;
    assert_eq!(app.get("/api/workers").await.data(200), json!({"workers": []}));
    app.stripe.fail_next(Operation::Create, Fault::Slow(Duration::from_secs(3_600)));
    let cart = app.cart().await;
    let job = app.ask(&cart).await.data(202)["jobId"].clone();
    let worker = app.start_worker();
    eventually("it runs the job", async || {
        let workers = app.get("/api/workers").await.data(200)["workers"].clone();
        let running = workers[0]["running"].as_array().cloned().unwrap_or_default();
        running.iter().any(|one| one["id"] == job && one["kind"] == "create_payment_link")
            && workers[0]["concurrency"] == 16
            && workers[0]["queues"].as_array().unwrap().len() == 4
    })
    .await;
    app.post(&format!("/api/jobs/{}/cancel", job.as_str().unwrap()), &json!(null)).await.data(200);
    worker.stop().await;
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
