//! The other promises of `queue/src/lib.rs`: pickup, history, lost connections, stopping, pausing.

use std::{
    collections::BTreeSet,
    sync::atomic::Ordering,
    sync::{Arc, Mutex},
    time::Duration,
};

use apalis::prelude::{Data, Monitor, WorkerBuilder};
use chrono::TimeDelta;
use queue::{Config, EnqueueOptions, Job, Listen, Retention};
use serde::{Deserialize, Serialize};
use sqlx::Connection;
use tests::{
    TestDatabase, connection, eventually,
    probe::{Act, Probe, Running, Seen, count, enqueue, probe, start, start_on, state, with_workers},
    transaction,
};

// 6. One wake-up per commit, and scheduled jobs start when due: nothing waits for the hourly poll.
#[tokio::test]
async fn pickup_does_not_wait_for_the_poll() {
    let config = Config { poll_every: Duration::from_secs(3_600), ..Config::default() };
    let (_database, pool, seen, running) = with_workers(config).await;
    for n in 1..=5 {
        enqueue(&pool, &probe(Act::Succeed)).await;
        eventually("it ran", async || seen.starts.load(Ordering::SeqCst) == n).await;
    }
    // now() does not advance within the transaction.
    let mut tx = transaction(&pool).await;
    let now: chrono::DateTime<chrono::Utc> = sqlx::query_scalar("select now()").fetch_one(&mut tx).await.unwrap();
    let options = EnqueueOptions { run_at: Some(now + TimeDelta::milliseconds(700)), ..EnqueueOptions::default() };
    let later = queue::enqueue_with(&mut tx, &probe(Act::Succeed), options).await.unwrap().unwrap();
    assert_eq!(queue::find(&mut tx, later).await.unwrap().unwrap().state.as_str(), "scheduled");
    tx.commit().await.unwrap();
    eventually("it ran when due", async || state(&pool, later).await.0 == "done").await;
    let early: bool = sqlx::query_scalar("select started_at < run_at from jobs where id = $1")
        .bind(later)
        .fetch_one(&pool)
        .await
        .unwrap();
    assert!(!early);
    running.stop().await;
}

// 6. NOTIFY is optional.
#[tokio::test]
async fn polling_alone_finds_everything() {
    let config = Config { poll_every: Duration::from_millis(50), ..Config::default() };
    let (database, seen) = (TestDatabase::create().await, Arc::new(Seen::default()));
    let pool = database.pool(3);
    let running = start_on(&database.reach(Listen::Off, 1), config, &seen);
    eventually("the workers have looked", async || running.runtime.running() == 0).await;
    let jobs: Vec<Probe> = (0..100).map(|_| probe(Act::Succeed)).collect();
    queue::enqueue_many(&mut connection(&pool).await, &jobs).await.unwrap();
    eventually("all ran", async || seen.starts.load(Ordering::SeqCst) == 100).await;
    running.stop().await;
}

// 7. A fetch, an outcome and a renewal cost the same with a million finished jobs, measured in rows
// touched, not time: with plans from when the table was empty, and with new ones.
#[tokio::test]
async fn a_million_finished_jobs_cost_nothing() {
    let database = TestDatabase::create().await;
    let seen = Arc::new(Seen::default());
    let config =
        Config { renew_every: Duration::from_millis(50), poll_every: Duration::from_millis(50), ..Config::default() };
    let running = start(&database, config, &seen);
    let pool = database.pool(2);
    let run_batches = async |batches: std::ops::RangeInclusive<usize>| {
        for batch in batches {
            let jobs: Vec<Probe> = (0..50).map(|_| probe(Act::Succeed)).collect();
            queue::enqueue_many(&mut connection(&pool).await, &jobs).await.unwrap();
            eventually("they ran", async || seen.starts.load(Ordering::SeqCst) == batch * 50).await;
            eventually("all are acknowledged", async || running.runtime.running() == 0).await;
        }
    };
    run_batches(1..=1).await;
    sqlx::query(
        "insert into jobs (id, queue, kind, payload, state, attempts, max_attempts, run_at, finished_at)
         select gen_random_uuid(), 'tests', 'probe', '{}', case when n % 10 = 0 then 'dead' else 'done' end, 1, 3,
                now() - interval '1 hour', now() - interval '1 hour' from generate_series(1, 1000000) n",
    )
    .execute(&pool)
    .await
    .unwrap();
    let before = touched(&database.url).await;
    run_batches(2..=6).await;
    sqlx::query("analyze jobs").execute(&pool).await.unwrap(); // new plans
    run_batches(7..=11).await;
    running.stop().await;
    pool.close().await;
    let cost = touched(&database.url).await - before;
    assert!(cost < 50_000, "500 jobs touched {cost} rows");
}

/// Rows of `jobs` that statements have read; exact once the sessions that counted have ended.
async fn touched(url: &str) -> i64 {
    let mut fresh = sqlx::PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar(
        "select coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) from pg_stat_user_tables where relname = 'jobs'",
    )
    .fetch_one(&mut fresh)
    .await
    .unwrap()
}

// 7. Jobs that were taken cost a fetch nothing while a snapshot is open, so that Postgres can't remove
// their entries from the index: measured in entries read, not time.
#[tokio::test]
async fn taken_jobs_cost_a_fetch_nothing_while_a_snapshot_is_open() {
    const JOBS: usize = 5_000;
    let database = TestDatabase::create().await;
    let pool = database.pool(2);
    let mut snapshot = sqlx::PgConnection::connect(&database.url).await.unwrap();
    sqlx::raw_sql("begin isolation level repeatable read; select count(*) from jobs")
        .execute(&mut snapshot)
        .await
        .unwrap();
    // Each of the first jobs is older than what a fetch reads by itself.
    sqlx::query(
        "insert into jobs (id, queue, kind, payload, max_attempts, run_at)
         select gen_random_uuid(), 'tests', 'probe', jsonb_build_object('n', 0, 'act', 'Succeed'), 3, now() - interval '1 minute'
         from generate_series(1, 5000)",
    )
    .execute(&pool)
    .await
    .unwrap();
    let seen = Arc::new(Seen::default());
    let config = Config { poll_every: Duration::from_secs(3_600), ..Config::default() };
    let running = start(&database, config, &seen);
    eventually("all ran", async || seen.starts.load(Ordering::SeqCst) == JOBS).await;
    for n in 1..=20 {
        enqueue(&pool, &probe(Act::Succeed)).await;
        eventually("it ran", async || seen.starts.load(Ordering::SeqCst) == JOBS + n).await;
    }
    running.stop().await;
    pool.close().await;
    let mut fresh = sqlx::PgConnection::connect(&database.url).await.unwrap();
    let read: i64 =
        sqlx::query_scalar("select idx_tup_read from pg_stat_user_indexes where indexrelname = 'jobs_pending'")
            .fetch_one(&mut fresh)
            .await
            .unwrap();
    assert!((5_000..20_000).contains(&read), "5,020 jobs read {read} entries");
    snapshot.close().await.unwrap();
}

// 6. A job whose transaction took long to commit is before the place where a fetch begins.
#[tokio::test]
async fn a_job_that_was_committed_late_is_found_by_polling() {
    let (_database, pool, seen, running) = with_workers(Config::default()).await;
    enqueue(&pool, &probe(Act::Succeed)).await;
    eventually("the fetches have passed the past", async || seen.starts.load(Ordering::SeqCst) == 1).await;
    let late = uuid::Uuid::now_v7();
    sqlx::query(
        "insert into jobs (id, queue, kind, payload, max_attempts, run_at)
         values ($1, 'tests', 'probe', jsonb_build_object('n', 0, 'act', 'Succeed'), 3, now() - interval '1 minute')",
    )
    .bind(late)
    .execute(&pool)
    .await
    .unwrap();
    eventually("it is done", async || state(&pool, late).await.0 == "done").await;
    running.stop().await;
}

// 7. Finished jobs are deleted after their time, in small batches.
#[tokio::test]
async fn finished_jobs_are_deleted_after_their_time() {
    let database = TestDatabase::create().await;
    let pool = database.pool(2);
    sqlx::query(
        "insert into jobs (id, queue, kind, payload, state, max_attempts, finished_at)
         select gen_random_uuid(), 'tests', 'probe', '{}', case when n % 5 = 0 then 'dead' else 'done' end, 3,
                now() - n * interval '1 minute' from generate_series(1, 5000) n",
    )
    .execute(&pool)
    .await
    .unwrap();
    let retention = Retention { done: Duration::from_secs(60 * 1_000), dead: Duration::from_secs(60 * 3_000) };
    let running = start(&database, Config { retention, ..Config::default() }, &Arc::new(Seen::default()));
    eventually("old ones are gone", async || count(&pool, "true").await <= 1_400).await;
    // There is one run a minute; a busy machine may miss some.
    assert!(count(&pool, "state = 'done'").await >= 790);
    assert!(count(&pool, "state = 'dead'").await >= 590);
    running.stop().await;
}

// 10. After a lost connection, running jobs continue and new ones are taken.
#[tokio::test]
async fn lost_connections_end_no_worker_and_lose_no_job() {
    let (_database, pool, seen, running) = with_workers(Config { concurrency: 8, ..Config::default() }).await;
    let jobs: Vec<Probe> = (0..400).map(|_| probe(Act::Succeed)).collect();
    let long = enqueue(&pool, &probe(Act::Wait)).await;
    eventually("it runs", async || seen.starts.load(Ordering::SeqCst) == 1).await;
    for batch in jobs.chunks(50) {
        queue::enqueue_many(&mut connection(&pool).await, batch).await.unwrap();
        sqlx::query("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")
            .execute(&pool)
            .await
            .unwrap();
    }
    seen.permits.add_permits(1);
    eventually("all are done", async || count(&pool, "state = 'done'").await == 401).await;
    assert_eq!(state(&pool, long).await, ("done".to_owned(), 1));
    assert!(seen.starts.load(Ordering::SeqCst) >= 401, "a lost outcome means a second run, never a lost job");
    running.stop().await;
}

// 2. Jobs that a fetch brings after shutdown began are returned at once, not when their lease runs
// out.
#[tokio::test]
async fn a_fetch_during_shutdown_returns_its_jobs() {
    let (_database, pool, _seen, running) = with_workers(Config::default()).await;
    // The fetch waits for this lock on the jobs.
    let mut lock = transaction(&pool).await;
    sqlx::query("lock table jobs in access exclusive mode").execute(&mut lock).await.unwrap();
    queue::enqueue(&mut lock, &probe(Act::Succeed)).await.unwrap();
    let waits = "select count(*) from pg_stat_activity where datname = current_database()
                 and wait_event_type = 'Lock' and query like '%with lightly%'";
    eventually("the fetch waits", async || sqlx::query_scalar::<_, i64>(waits).fetch_one(&pool).await.unwrap() > 0)
        .await;
    let Running { runtime, stop, monitor } = running;
    stop.send(()).unwrap();
    monitor.await.unwrap();
    let closing = tokio::spawn(async move { runtime.close().await });
    for _ in 0..100 {
        tokio::task::yield_now().await; // this runtime has one thread: all other tasks finish first
    }
    lock.commit().await.unwrap();
    closing.await.unwrap();
    assert_eq!(count(&pool, "state = 'pending' and attempts = 0").await, 1);
}

// Shutdown: running jobs finish, the others are returned with their attempt, and no lease is left.
#[tokio::test]
async fn stopping_finishes_running_jobs_and_returns_the_rest() {
    let (_database, pool, seen, running) = with_workers(Config { concurrency: 4, ..Config::default() }).await;
    let jobs: Vec<Probe> = (0..20).map(|_| probe(Act::Wait)).collect();
    queue::enqueue_many(&mut connection(&pool).await, &jobs).await.unwrap();
    eventually("four run", async || seen.starts.load(Ordering::SeqCst) == 4).await;
    running.runtime.stop(); // the first step after a signal: no more fetches
    seen.permits.add_permits(20);
    running.stop().await;
    assert_eq!(count(&pool, "state = 'done' and attempts = 1").await, 4);
    assert_eq!(count(&pool, "state = 'pending' and attempts = 0").await, 16);
}

/// Another kind of job that waits like a probe.
#[derive(Debug, Serialize, Deserialize)]
struct Other {
    n: i64,
}

impl Job for Other {
    const QUEUE: &'static str = Probe::QUEUE;
    const KIND: &'static str = "other";
}

/// A job that waits in another queue.
#[derive(Debug, Serialize, Deserialize)]
struct Elsewhere {}

impl Job for Elsewhere {
    const QUEUE: &'static str = "elsewhere";
    const KIND: &'static str = "elsewhere";
}

// One fetch takes jobs of all kinds: each goes to the handler of its kind, with its own payload.
#[tokio::test]
async fn kinds_that_share_a_queue_are_distinguished() {
    let (database, seen) = (TestDatabase::create().await, Arc::new(Seen::default()));
    let pool = database.pool(2);
    let mut conn = connection(&pool).await;
    for n in 0..10 {
        queue::enqueue(&mut conn, &Other { n }).await.unwrap();
        queue::enqueue(&mut conn, &probe(Act::Succeed)).await.unwrap();
    }
    let running = start(&database, Config { concurrency: 20, ..Config::default() }, &seen);
    eventually("the probes are done", async || count(&pool, "kind = 'probe' and state = 'done'").await == 10).await;
    assert_eq!(count(&pool, "kind = 'other' and attempts = 0").await, 10, "what nobody handles here is left alone");
    let others: Arc<Mutex<BTreeSet<i64>>> = Arc::default();
    let (backend, told) = (running.runtime.clone(), others.clone());
    let monitor = tokio::spawn(
        Monitor::new()
            .register(move |_| {
                let (backend, told) = (backend.backend::<Other>(), told.clone());
                WorkerBuilder::new("other").backend(backend).data(told).build(
                    async |job: Other, told: Data<Arc<Mutex<BTreeSet<i64>>>>| {
                        told.lock().unwrap().insert(job.n);
                    },
                )
            })
            .run_with_signal(std::future::pending()),
    );
    queue::enqueue(&mut conn, &probe(Act::Succeed)).await.unwrap();
    eventually("all are done", async || count(&pool, "state = 'done'").await == 21).await;
    assert_eq!(*others.lock().unwrap(), (0..10).collect());
    assert_eq!(seen.starts.load(Ordering::SeqCst), 11);
    monitor.abort();
    running.stop().await;
}

// Jobs of a paused queue are not taken; those of others are.
#[tokio::test]
async fn a_paused_queue_waits() {
    let (_database, pool, seen, running) =
        with_workers(Config { poll_every: Duration::from_millis(50), ..Config::default() }).await;
    sqlx::query("insert into queues (name, paused_at) values ('tests', now())").execute(&pool).await.unwrap();
    let backend = running.runtime.clone();
    let elsewhere = tokio::spawn(
        Monitor::new()
            .register(move |_| {
                WorkerBuilder::new("elsewhere").backend(backend.backend::<Elsewhere>()).build(async |_: Elsewhere| {})
            })
            .run_with_signal(std::future::pending()),
    );
    let id = enqueue(&pool, &probe(Act::Succeed)).await;
    // A later job of another queue runs, so the fetch saw the waiting job and skipped it.
    for _ in 0..3 {
        let other = queue::enqueue(&mut connection(&pool).await, &Elsewhere {}).await.unwrap().unwrap();
        eventually("another queue's job runs", async || state(&pool, other).await.0 == "done").await;
    }
    assert_eq!(seen.starts.load(Ordering::SeqCst), 0, "it must not run");
    assert_eq!(state(&pool, id).await.0, "ready");
    elsewhere.abort();
    sqlx::query("update queues set paused_at = null").execute(&pool).await.unwrap();
    eventually("it runs", async || state(&pool, id).await.0 == "done").await;
    running.stop().await;
}
