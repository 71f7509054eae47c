//! Tests of the first promises of `queue/src/lib.rs`, with the failures they prevent.
//! `interruptions.rs` has the third.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use apalis::prelude::{Monitor, WorkerBuilder};
use nix::sys::signal::Signal;
use queue::{Backoff, Config, Job};
use serde::{Deserialize, Serialize};
use tests::{
    TestDatabase, connection, eventually,
    probe::{Act, Probe, QUICKLY, Seen, count, enqueue, probe, start, state, with_workers},
    processes::Process,
    transaction,
};
use uuid::Uuid;

use crate::interruptions::leases_run_out;

// 1. Enqueue in the caller's transaction. apalis-postgres raises 23505 here and aborts the transaction.
#[tokio::test]
async fn a_key_taken_twice_in_one_transaction_is_already_queued() {
    let database = TestDatabase::create().await;
    let pool = database.pool(2);
    let keyed = Probe { n: 7, act: Act::Succeed };
    let mut tx = transaction(&pool).await;
    let first = queue::enqueue(&mut tx, &keyed).await.unwrap();
    assert!(first.is_some());
    assert_eq!(queue::enqueue(&mut tx, &keyed).await.unwrap(), None);
    let more = [keyed.clone(), probe(Act::Succeed), Probe { n: 8, act: Act::Succeed }];
    assert_eq!(queue::enqueue_many(&mut tx, &more).await.unwrap().len(), 2, "the transaction still works");
    tx.commit().await.unwrap();
    assert_eq!(count(&pool, "true").await, 3);

    let mut tx = transaction(&pool).await;
    queue::enqueue(&mut tx, &probe(Act::Succeed)).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(count(&pool, "true").await, 3, "what is rolled back was never queued");

    // The key is free again once the job is finished.
    let seen = Arc::new(Seen::default());
    let running = start(&database, Config::default(), &seen);
    eventually("all are done", async || count(&pool, "state = 'done'").await == 3).await;
    assert!(queue::enqueue(&mut connection(&pool).await, &keyed).await.unwrap().is_some());
    running.stop().await;
}

// 2. A job is never fetched before there is a free permit to run it. (Live workers took jobs from
// each other.)
#[tokio::test]
async fn no_more_jobs_are_fetched_than_can_run() {
    let (_database, pool, seen, running) = with_workers(Config { concurrency: 3, ..Config::default() }).await;
    let jobs: Vec<Probe> = (0..10).map(|_| probe(Act::Wait)).collect();
    queue::enqueue_many(&mut connection(&pool).await, &jobs).await.unwrap();
    eventually("three run", async || seen.starts.load(Ordering::SeqCst) == 3).await;
    assert_eq!((count(&pool, "state = 'running'").await, count(&pool, "attempts > 0").await), (3, 3));
    assert_eq!(running.runtime.running(), 3);
    running.stop.send(()).unwrap();
    running.runtime.close().await; // returns the running jobs
    assert_eq!(count(&pool, "state = 'running'").await, 0);
}

// 2. A job that takes longer than its lease keeps it.
#[tokio::test]
async fn a_lease_is_renewed_while_the_job_runs() {
    // A short lease would run out on a busy machine, so the test checks that a long one is extended.
    let config = Config { renew_every: Duration::from_millis(200), ..Config::default() };
    let taken_for = config.lease.as_secs_f64();
    let (_database, pool, seen, running) = with_workers(config).await;
    let id = enqueue(&pool, &probe(Act::Wait)).await;
    eventually("its lease is renewed", async || {
        let query = "select extract(epoch from lease_until - started_at)::float8 > $2 from jobs where id = $1";
        let longer: Option<Option<bool>> =
            sqlx::query_scalar(query).bind(id).bind(taken_for + 1.0).fetch_optional(&pool).await.unwrap();
        longer.flatten() == Some(true)
    })
    .await;
    seen.permits.add_permits(1);
    eventually("it is done", async || state(&pool, id).await == ("done".to_owned(), 1)).await;
    assert_eq!(seen.starts.load(Ordering::SeqCst), 1);
    running.stop().await;
}

// 2. A stolen lease drops the future here, and the thief's row is untouched. (A zombie must not
// commit.)
#[tokio::test]
async fn a_lost_lease_ends_the_run_and_writes_nothing() {
    let config = Config { renew_every: Duration::from_millis(100), ..Config::default() };
    let (_database, pool, seen, running) = with_workers(config).await;
    let id = enqueue(&pool, &probe(Act::Wait)).await; // never released
    eventually("it runs", async || seen.starts.load(Ordering::SeqCst) == 1).await;
    let thief = Uuid::new_v4();
    sqlx::query(
        "update jobs set lease_token = $2, worker = 'thief', lease_until = now() + interval '1 hour' where id = $1",
    )
    .bind(id)
    .bind(thief)
    .execute(&pool)
    .await
    .unwrap();
    eventually("the run is dropped", async || seen.dropped.load(Ordering::SeqCst) == 1).await;
    eventually("its slot is free", async || running.runtime.running() == 0).await;
    running.stop().await;
    let (token, worker): (Option<Uuid>, String) =
        sqlx::query_as("select lease_token, worker from jobs where id = $1").bind(id).fetch_one(&pool).await.unwrap();
    assert_eq!((token, worker.as_str()), (Some(thief), "thief"));
}

// 2. A killed process: its jobs run again elsewhere, and none is lost.
#[tokio::test]
async fn a_killed_process_loses_no_job() {
    let database = TestDatabase::create().await;
    let pool = database.pool(2);
    sqlx::query(
        "insert into jobs (id, queue, kind, payload, max_attempts)
         select gen_random_uuid(), 'tests', 'in_process', jsonb_build_object('n', n), 3 from generate_series(1, 300) n",
    )
    .execute(&pool)
    .await
    .unwrap();
    let variables = |mode: &str| [("DATABASE_URL", database.url.clone()), ("MODE", mode.to_owned())];
    let mut one = Process::start("queue_process", variables("hang")).await;
    eventually("one runs what it can", async || count(&pool, "state = 'running'").await == 8).await;
    let mut two = Process::start("queue_process", variables("work")).await;
    eventually("two did the rest", async || count(&pool, "state = 'done'").await == 292).await;
    assert_eq!(count(&pool, "attempts > 1").await, 0, "what runs elsewhere is left alone");
    one.signal(Signal::SIGKILL);
    assert_eq!(one.ends().await, None);
    leases_run_out(&pool).await;
    eventually("all are done", async || count(&pool, "state = 'done'").await == 300).await;
    assert_eq!(count(&pool, "interruptions = 1").await, 8, "what was in flight ran again, and nothing else did");
    assert_eq!(count(&pool, "attempts <> 1").await, 0);
    two.signal(Signal::SIGTERM);
    assert_eq!(two.ends().await, Some(0));
}

// 4. Retries are rows. (apalis-postgres: 25 attempts in 0.14 s.)
#[tokio::test]
async fn a_failing_job_is_retried_later_and_dead_at_its_limit() {
    let (_database, pool, seen, running) = with_workers(Config::default()).await;
    let id = enqueue(&pool, &probe(Act::Fail)).await;
    eventually("it is dead", async || state(&pool, id).await == ("dead".to_owned(), 3)).await;
    let numbers: Vec<i16> = seen.attempts.lock().unwrap().iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
    let (waits, last_error): (Vec<f64>, String) = sqlx::query_as(
        "select array(select extract(epoch from (next.value->>'startedAt')::timestamptz - (this.value->>'endedAt')::timestamptz)::float8
             from jsonb_array_elements(attempt_log) with ordinality this (value, n)
             join jsonb_array_elements(attempt_log) with ordinality next (value, n) on next.n = this.n + 1 order by this.n), last_error
         from jobs where id = $1",
    )
    .bind(id)
    .fetch_one(&pool)
    .await
    .unwrap();
    assert!(waits[0] >= 0.019 && waits[1] >= 0.039, "it backs off: {waits:?}");
    assert_eq!(last_error, "no luck");
    running.stop().await;
}

/// A job that never ends, with a short timeout.
#[derive(Debug, Serialize, Deserialize)]
struct Hangs {}

impl Job for Hangs {
    const QUEUE: &'static str = Probe::QUEUE;
    const KIND: &'static str = "hangs";
    const TIME_LIMIT: Duration = Duration::from_secs(1);
    const BACKOFF: Backoff = QUICKLY;
}

// 4. A panic and a timeout are errors like any other. (apalis-postgres leaves the row `Running`
// forever.)
#[tokio::test]
async fn a_panic_and_a_timeout_are_retried() {
    let (_database, pool, _seen, running) = with_workers(Config::default()).await;
    let backend = running.runtime.clone();
    let hanging = tokio::spawn(
        Monitor::new()
            .register(move |_| {
                WorkerBuilder::new("hangs").backend(backend.backend::<Hangs>()).build(async |_: Hangs| {
                    std::future::pending::<()>().await;
                })
            })
            .run_with_signal(std::future::pending()),
    );
    let panics = enqueue(&pool, &probe(Act::Panic)).await;
    let hangs = queue::enqueue(&mut connection(&pool).await, &Hangs {}).await.unwrap().unwrap();
    eventually("the panic is dead", async || state(&pool, panics).await == ("dead".to_owned(), 3)).await;
    eventually("the one that never ends was stopped and runs again", async || state(&pool, hangs).await.1 >= 2).await;
    let error = async |id: Uuid| queue::find(&mut connection(&pool).await, id).await.unwrap().unwrap().last_error;
    assert_eq!(error(panics).await.as_deref(), Some("panicked: on purpose"));
    assert_eq!(error(hangs).await.as_deref(), Some("took longer than its limit of 1s"));
    hanging.abort();
    running.stop.send(()).unwrap();
    running.runtime.close().await;
}

// 4. An error that requests a delay gets it and frees its permit meanwhile; a permanent error is
// dead at once.
#[tokio::test]
async fn a_requested_delay_is_kept_and_a_permanent_error_is_dead() {
    let (_database, pool, seen, running) = with_workers(Config { concurrency: 1, ..Config::default() }).await;
    let later = enqueue(&pool, &probe(Act::AskForDelay)).await;
    let hopeless = enqueue(&pool, &probe(Act::Abort)).await;
    let next = enqueue(&pool, &probe(Act::Succeed)).await;
    eventually("the next one is done", async || state(&pool, next).await.0 == "done").await;
    assert_eq!(state(&pool, later).await, ("retrying".to_owned(), 1));
    assert_eq!(state(&pool, hopeless).await, ("dead".to_owned(), 1));
    let wait: f64 = sqlx::query_scalar("select extract(epoch from run_at - now())::float8 from jobs where id = $1")
        .bind(later)
        .fetch_one(&pool)
        .await
        .unwrap();
    assert!((3_500.0..=3_600.0).contains(&wait), "{wait}");
    assert_eq!(seen.starts.load(Ordering::SeqCst), 3);
    running.stop().await;
}

// 4. A job with an unreadable payload is dead, and the worker continues.
#[tokio::test]
async fn an_unreadable_payload_is_dead_and_ends_no_worker() {
    let (_database, pool, _seen, running) = with_workers(Config::default()).await;
    let bad = Uuid::now_v7();
    sqlx::query(
        "insert into jobs (id, queue, kind, payload, max_attempts) values ($1, 'tests', 'probe', '{\"n\": \"x\"}', 3)",
    )
    .bind(bad)
    .execute(&pool)
    .await
    .unwrap();
    eventually("it is dead", async || state(&pool, bad).await.0 == "dead").await;
    let good = enqueue(&pool, &probe(Act::Succeed)).await;
    eventually("the next is done", async || state(&pool, good).await.0 == "done").await;
    running.stop().await;
}
