//! A locked row delays only itself: jobs, heartbeats of workers, and the deletion of old records.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use common::jobs::DeleteOldRecords;
use queue::Config;
use serde_json::json;
use sqlx::PgPool;
use tests::{
    Setup, TestDatabase, connection, eventually,
    probe::{Act, Probe, Seen, count, enqueue, probe, start, state, with_workers},
    transaction,
};
use uuid::Uuid;

async fn lock_job(pool: &PgPool, id: Uuid) -> queue::Connection {
    let mut holding = transaction(pool).await;
    sqlx::query("update jobs set last_error = last_error where id = $1").bind(id).execute(&mut holding).await.unwrap();
    holding
}

async fn lease_left(pool: &PgPool, id: Uuid) -> f64 {
    let left = "select extract(epoch from lease_until - started_at)::float8 from jobs where id = $1";
    sqlx::query_scalar(left).bind(id).fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn a_locked_job_delays_no_other_outcome_and_no_lease() {
    let lease = Duration::from_secs(300);
    let config = Config { concurrency: 4, renew_every: Duration::from_millis(500), lease, ..Config::default() };
    let (_database, pool, seen, running) = with_workers(config).await;
    let ended: Vec<Uuid> = [enqueue(&pool, &probe(Act::Wait)).await, enqueue(&pool, &probe(Act::Wait)).await].into();
    eventually("both run", async || seen.starts.load(Ordering::SeqCst) == 2).await;
    let holding = lock_job(&pool, ended[0]).await;
    seen.permits.add_permits(2);
    eventually("the other job is acknowledged", async || state(&pool, ended[1]).await.0 == "done").await;

    // New jobs run and are acknowledged, including failures.
    let failing = enqueue(&pool, &probe(Act::Abort)).await;
    let jobs: Vec<Probe> = (0..40).map(|_| probe(Act::Succeed)).collect();
    queue::enqueue_many(&mut connection(&pool).await, &jobs).await.unwrap();
    eventually("new jobs are acknowledged", async || count(&pool, "state = 'done'").await == 41).await;
    eventually("so is the failure", async || state(&pool, failing).await.0 == "dead").await;
    // The lease of a running job is renewed.
    let long = enqueue(&pool, &probe(Act::Wait)).await;
    eventually("it runs", async || state(&pool, long).await.0 == "running").await;
    eventually("its lease is renewed", async || lease_left(&pool, long).await > lease.as_secs_f64() + 0.2).await;
    assert_eq!(state(&pool, ended[0]).await, ("running".to_owned(), 1));

    holding.rollback().await.unwrap();
    eventually("the locked job is acknowledged", async || state(&pool, ended[0]).await.0 == "done").await;
    seen.permits.add_permits(1);
    eventually("all are done", async || count(&pool, "state = 'done'").await == 43).await;
    assert_eq!(count(&pool, "attempts <> 1").await, 0);
    assert_eq!(seen.starts.load(Ordering::SeqCst), 44);
    running.stop().await;
}

#[tokio::test]
async fn a_worker_ends_while_a_job_is_locked() {
    let (_database, pool, seen, running) = with_workers(Config::default()).await;
    let (locked, free) = (enqueue(&pool, &probe(Act::Wait)).await, enqueue(&pool, &probe(Act::Wait)).await);
    eventually("both run", async || seen.starts.load(Ordering::SeqCst) == 2).await;
    let holding = lock_job(&pool, locked).await;
    seen.permits.add_permits(2);
    let stopping = tokio::time::timeout(Duration::from_secs(7), running.stop());
    stopping.await.expect("shorter than the timeout of a statement");
    assert_eq!((state(&pool, locked).await.0, state(&pool, free).await.0), ("running".to_owned(), "done".to_owned()));
    holding.rollback().await.unwrap();
}

#[tokio::test]
async fn a_locked_row_of_a_lost_worker_delays_no_heartbeat() {
    let database = TestDatabase::create().await;
    let pool = database.pool(3);
    let lost =
        "insert into workers (name, queues, concurrency, seen_at) values ('lost', '{}', 1, now() - interval '1 day')";
    sqlx::query(lost).execute(&pool).await.unwrap();
    let mut holding = transaction(&pool).await;
    sqlx::query("update workers set concurrency = 2").execute(&mut holding).await.unwrap();
    let running = start(&database, Config::default(), &Arc::new(Seen::default()));
    eventually("the worker is listed", async || {
        !queue::workers(&mut connection(&pool).await).await.unwrap().is_empty()
    })
    .await;
    holding.rollback().await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn a_locked_record_keeps_no_other_from_being_deleted() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").start().await;
    for n in 0..3 {
        app.webhook(&json!({"id": format!("evt_{n}"), "type": "customer.created", "data": {"object": {}}}))
            .await
            .data(200);
    }
    let mut holding = transaction(&app.pool).await;
    sqlx::query("update stripe_events set kind = kind where id = 'evt_1'").execute(&mut holding).await.unwrap();
    // Not earlier: the schedule's first run may be about to delete old records.
    app.clock.advance(chrono::TimeDelta::days(100));
    let clean = async || queue::enqueue(&mut connection(&app.pool).await, &DeleteOldRecords {}).await.unwrap();
    let left = async || -> Vec<String> {
        sqlx::query_scalar("select id from stripe_events order by id").fetch_all(&app.pool).await.unwrap()
    };
    clean().await;
    eventually("the others are deleted", async || left().await == ["evt_1"]).await;
    app.idle().await;
    holding.rollback().await.unwrap();
    clean().await;
    eventually("the last one is deleted", async || left().await.is_empty()).await;
}
