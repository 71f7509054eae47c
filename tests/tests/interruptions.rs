//! Interrupted is not failed: attempts that a shutdown or the loss of a worker ended do not count.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use nix::sys::signal::Signal;
use queue::{Config, FailedAttempt, Job};
use sandbox::stripe::{Fault, Operation};
use serde_json::json;
use sqlx::PgPool;
use tests::{
    Setup, TestDatabase, connection, eventually,
    probe::{Act, Probe, Seen, count, enqueue, probe, start, state},
    processes::Process,
};
use uuid::Uuid;

use crate::timeline::event_lines;

const STOPPED: &str = "interrupted: the worker stopped before it ended";
const LOST: &str = "interrupted: the worker that ran it was lost";

/// Ends the leases of running jobs, as if their time had passed.
pub(crate) async fn leases_run_out(pool: &PgPool) {
    sqlx::query("update jobs set lease_until = now() where state = 'running'").execute(pool).await.unwrap();
}

async fn history(pool: &PgPool, id: Uuid) -> Vec<FailedAttempt> {
    queue::history(&mut connection(pool).await, id).await.unwrap().unwrap()
}

/// Each of the attempts that were interrupted: its number and error.
async fn errors(pool: &PgPool, id: Uuid) -> Vec<(i64, String)> {
    history(pool, id).await.into_iter().map(|attempt| (attempt.attempt, attempt.error.unwrap_or_default())).collect()
}

/// A job of the process `queue_process`, which fails after three attempts.
async fn insert_job(pool: &PgPool) -> Uuid {
    let id = Uuid::now_v7();
    let insert =
        "insert into jobs (id, queue, kind, payload, max_attempts) values ($1, 'tests', 'in_process', '{\"n\": 1}', 3)";
    sqlx::query(insert).bind(id).execute(pool).await.unwrap();
    id
}

#[tokio::test]
async fn shutdowns_cost_a_job_no_attempt() {
    let database = TestDatabase::create().await;
    let pool = database.pool(2);
    let id = enqueue(&pool, &probe(Act::Wait)).await;
    let shutdowns = usize::try_from(2 * Probe::MAX_ATTEMPTS).unwrap();
    for _ in 0..shutdowns {
        let seen = Arc::new(Seen::default());
        let running = start(&database, Config::default(), &seen);
        eventually("it runs", async || seen.starts.load(Ordering::SeqCst) == 1).await;
        assert_eq!(state(&pool, id).await, ("running".to_owned(), 1));
        running.stop.send(()).unwrap();
        running.runtime.close().await; // returns the running job
        assert_eq!(state(&pool, id).await, ("ready".to_owned(), 0));
    }
    assert_eq!(errors(&pool, id).await, vec![(1, STOPPED.to_owned()); shutdowns]);

    // It has all its attempts yet: it fails as often as if it had never been interrupted.
    sqlx::query(r#"update jobs set payload = '{"n": 0, "act": "Fail"}'"#).execute(&pool).await.unwrap();
    let running = start(&database, Config::default(), &Arc::new(Seen::default()));
    eventually("it is dead", async || state(&pool, id).await == ("dead".to_owned(), Probe::MAX_ATTEMPTS)).await;
    let failed: Vec<i64> = errors(&pool, id).await[shutdowns..].iter().map(|(attempt, _)| *attempt).collect();
    assert_eq!(failed, [1, 2, 3]);
    running.stop().await;
}

#[tokio::test]
async fn lost_workers_cost_a_job_no_attempt() {
    let database = TestDatabase::create().await;
    let pool = database.pool(2);
    let id = insert_job(&pool).await;
    let variables = |mode: &str| [("DATABASE_URL", database.url.clone()), ("MODE", mode.to_owned())];
    for lost in 0..4 {
        let mut process = Process::start("queue_process", variables("hang")).await;
        let runs = format!("state = 'running' and attempts = 1 and interruptions = {lost}");
        eventually("it runs", async || count(&pool, &runs).await == 1).await;
        process.signal(Signal::SIGKILL);
        assert_eq!(process.ends().await, None);
        leases_run_out(&pool).await;
    }
    let mut survivor = Process::start("queue_process", variables("work")).await;
    eventually("it is done", async || state(&pool, id).await == ("done".to_owned(), 1)).await;
    assert_eq!(errors(&pool, id).await, vec![(1, LOST.to_owned()); 4]);
    survivor.signal(Signal::SIGTERM);
    assert_eq!(survivor.ends().await, Some(0));
}

/// An operator who retries such a job gives it all its chances again.
#[tokio::test]
async fn a_job_that_runs_each_time_its_worker_dies_is_dead_after_ten_times() {
    let database = TestDatabase::create().await;
    let pool = database.pool(2);
    let id = insert_job(&pool).await;
    let variables = || [("DATABASE_URL", database.url.clone()), ("MODE", "abort".to_owned())];
    for lost in 0..10 {
        assert_eq!(count(&pool, &format!("state = 'dead' or interruptions > {lost}")).await, 0, "after {lost}");
        let mut process = Process::start("queue_process", variables()).await;
        assert_eq!(process.ends().await, None, "it aborts");
        leases_run_out(&pool).await;
    }
    let mut survivor = Process::start("queue_process", variables()).await;
    eventually("it is dead", async || state(&pool, id).await == ("dead".to_owned(), 0)).await;
    assert_eq!(errors(&pool, id).await, vec![(1, LOST.to_owned()); 10]);
    let job = queue::find(&mut connection(&pool).await, id).await.unwrap().unwrap();
    assert_eq!(job.last_error.as_deref(), Some(LOST));
    survivor.signal(Signal::SIGTERM);
    assert_eq!(survivor.ends().await, Some(0));
    queue::retry(&mut connection(&pool).await, id).await.unwrap();
    assert_eq!(count(&pool, "state = 'pending' and attempts = 0 and interruptions = 0").await, 1);
}

#[tokio::test]
async fn the_api_shows_interruptions_and_the_link_is_made_after_them() {
    let app = Setup::default().without_worker().start().await;
    let id = app.cart().await;
    let asked = app.ask_later(&id).await;
    let job = format!("/api/jobs/{}", asked["jobId"].as_str().unwrap());
    app.stripe.fail_next(Operation::Create, Fault::Slow(Duration::from_secs(3_600)));
    let worker = app.start_worker();
    eventually("Stripe is called", async || app.stripe.calls(Operation::Create) == 1).await;
    worker.stop().await;
    let shown = app.get(&job).await.data(200);
    assert_eq!(
        (&shown["state"], &shown["attempts"], &shown["lastError"]),
        (&json!("ready"), &json!(0), &json!(STOPPED))
    );
    let attempt = &shown["history"][0];
    assert_eq!((&attempt["attempt"], &attempt["error"]), (&json!(1), &json!(STOPPED)));

    let worker = app.start_worker();
    app.ask(&id).await.data(200);
    eventually("it is done", async || app.get(&job).await.data(200)["state"] == "done").await;
    assert_eq!(app.get(&job).await.data(200)["attempts"], 1);
    assert_eq!(app.stripe.sessions().len(), 1, "under the same idempotency key");
    worker.stop().await;
}

#[tokio::test]
async fn a_link_whose_job_was_lost_too_often_is_in_the_timeline() {
    let app = Setup::default().without_worker().start().await;
    let id = app.cart().await;
    app.ask_later(&id).await;
    let lost =
        "update jobs set state = 'running', attempts = 1, interruptions = 9, started_at = now(), worker = 'lost',
                                lease_token = gen_random_uuid(), lease_until = now()";
    sqlx::query(lost).execute(&app.pool).await.unwrap();
    let worker = app.start_worker();
    eventually("it is dead", async || count(&app.pool, "state = 'dead'").await == 1).await;
    assert_eq!(event_lines(&app, &id).await[2..], ["link_not_made 1: job_lost"]);
    app.ask(&id).await.data(200); // a new request
    worker.stop().await;
}
