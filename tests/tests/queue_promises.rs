//! A test for every promise of `queue/src/lib.rs`, with the failure it prevents.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use apalis::prelude::{AbortError, BoxDynError, Data, Monitor, RetryAfterError, WorkerBuilder};
use chrono::TimeDelta;
use nix::sys::signal::Signal;
use queue::{Attempt, Backoff, Config, EnqueueOptions, Job, Retention, Runtime};
use serde::{Deserialize, Serialize};
use sqlx::{Connection, PgPool};
use tests::{TestDatabase, eventually, processes::Process, within};
use tokio::{sync::oneshot, task::JoinHandle};
use uuid::Uuid;

const QUICKLY: Backoff = Backoff { first: Duration::from_millis(20), longest: Duration::from_millis(100) };

/// What a job does is in its payload.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Probe {
    n: i64,
    act: Act,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Act {
    Succeed,
    Fail,
    Panic,
    Hang,
    Abort,
    AskForDelay,
    Sleep,
}

impl Job for Probe {
    const QUEUE: &'static str = "tests";
    const KIND: &'static str = "probe";
    const MAX_ATTEMPTS: i16 = 3;
    const TIME_LIMIT: Duration = Duration::from_secs(4);
    const BACKOFF: Backoff = QUICKLY;

    fn unique_key(&self) -> Option<String> {
        (self.n > 0).then(|| format!("probe {}", self.n))
    }
}

fn probe(act: Act) -> Probe {
    Probe { n: 0, act }
}

/// What the handlers saw.
#[derive(Debug, Default)]
struct Seen {
    starts: AtomicUsize,
    dropped: AtomicUsize,
    attempts: Mutex<Vec<Attempt>>,
}

struct CountDrop(Arc<Seen>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

async fn handle(job: Probe, seen: Data<Arc<Seen>>, attempt: Data<Attempt>) -> Result<(), BoxDynError> {
    seen.starts.fetch_add(1, Ordering::SeqCst);
    seen.attempts.lock().unwrap().push(*attempt);
    match job.act {
        Act::Succeed => {}
        Act::Fail => return Err("no luck".into()),
        Act::Panic => panic!("on purpose"),
        Act::Hang => std::future::pending().await,
        Act::Abort => return Err(AbortError::new("hopeless").into()),
        Act::AskForDelay => return Err(RetryAfterError::new("later", Duration::from_secs(3600)).into()),
        Act::Sleep => {
            let _count = CountDrop((*seen).clone());
            tokio::time::sleep(Duration::from_millis(2_500)).await;
        }
    }
    Ok(())
}

struct Running {
    runtime: Runtime,
    stop: oneshot::Sender<()>,
    monitor: JoinHandle<()>,
}

impl Running {
    async fn stop(self) {
        let _ = self.stop.send(());
        self.monitor.await.unwrap();
        self.runtime.close().await;
    }
}

fn start(database: &TestDatabase, config: Config, seen: &Arc<Seen>) -> Running {
    let runtime = Runtime::start(database.options(), config);
    let (stop, stopped) = oneshot::channel::<()>();
    let (backend, seen) = (runtime.clone(), seen.clone());
    let monitor = Monitor::new().register(move |_| {
        WorkerBuilder::new("probe").backend(backend.backend::<Probe>()).data(seen.clone()).build(handle)
    });
    let stopping = runtime.clone();
    let monitor = tokio::spawn(async move {
        let signal = stopping.stop_after(async {
            let _ = stopped.await;
            Ok(())
        });
        monitor.run_with_signal(signal).await.unwrap();
    });
    Running { runtime, stop, monitor }
}

/// A database, a pool for the test, and workers with this configuration.
async fn with_workers(config: Config) -> (TestDatabase, PgPool, Arc<Seen>, Running) {
    let database = TestDatabase::create().await;
    let seen = Arc::new(Seen::default());
    let running = start(&database, config, &seen);
    (database.clone(), database.pool(3), seen, running)
}

async fn enqueue(pool: &PgPool, job: &Probe) -> Uuid {
    queue::enqueue(&mut pool.acquire().await.unwrap(), job).await.unwrap().expect("it was not queued yet")
}

async fn state(pool: &PgPool, id: Uuid) -> (String, i16) {
    let job = queue::find(&mut pool.acquire().await.unwrap(), id).await.unwrap().expect("it is kept");
    (job.state, job.attempts)
}

async fn count(pool: &PgPool, condition: &str) -> i64 {
    let query = sqlx::AssertSqlSafe(format!("select count(*) from jobs where {condition}"));
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap()
}

// 1. Enqueue in the caller's transaction. apalis-postgres raises 23505 here and aborts the transaction.
#[tokio::test]
async fn a_key_taken_twice_in_one_transaction_is_already_queued() {
    let database = TestDatabase::create().await;
    let pool = database.pool(2);
    let keyed = Probe { n: 7, act: Act::Succeed };
    let mut tx = pool.begin().await.unwrap();
    let first = queue::enqueue(&mut tx, &keyed).await.unwrap();
    assert!(first.is_some());
    assert_eq!(queue::enqueue(&mut tx, &keyed).await.unwrap(), None);
    let more = [keyed.clone(), probe(Act::Succeed), Probe { n: 8, act: Act::Succeed }];
    assert_eq!(queue::enqueue_many(&mut tx, &more).await.unwrap().len(), 2, "the transaction still works");
    tx.commit().await.unwrap();
    assert_eq!(count(&pool, "true").await, 3);

    let mut tx = pool.begin().await.unwrap();
    queue::enqueue(&mut tx, &probe(Act::Succeed)).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(count(&pool, "true").await, 3, "what is rolled back was never queued");

    // Finished, the key is free again.
    let seen = Arc::new(Seen::default());
    let running = start(&database, Config::default(), &seen);
    eventually("all are done", async || count(&pool, "state = 'done'").await == 3).await;
    assert!(queue::enqueue(&mut pool.acquire().await.unwrap(), &keyed).await.unwrap().is_some());
    running.stop().await;
}

// 2. A job is never fetched before there is a free slot to run it. (Live workers took jobs from each other.)
#[tokio::test]
async fn no_more_is_taken_than_can_run() {
    let (_database, pool, seen, running) = with_workers(Config { concurrency: 3, ..Config::default() }).await;
    let jobs: Vec<Probe> = (0..10).map(|_| probe(Act::Hang)).collect();
    queue::enqueue_many(&mut pool.acquire().await.unwrap(), &jobs).await.unwrap();
    eventually("three run", async || seen.starts.load(Ordering::SeqCst) == 3).await;
    assert_eq!((count(&pool, "state = 'running'").await, count(&pool, "attempts > 0").await), (3, 3));
    assert_eq!(running.runtime.running(), 3);
    running.stop.send(()).unwrap();
    running.runtime.close().await; // gives back what hangs
    assert_eq!(count(&pool, "state = 'running'").await, 0);
}

// 2. A job that takes longer than its lease keeps it.
#[tokio::test]
async fn a_lease_is_renewed_while_the_job_runs() {
    let config =
        Config { lease: Duration::from_millis(900), renew_every: Duration::from_millis(200), ..Config::default() };
    let (_database, pool, seen, running) = with_workers(config).await;
    let id = enqueue(&pool, &probe(Act::Sleep)).await;
    eventually("it is done", async || state(&pool, id).await == ("done".to_owned(), 1)).await;
    assert_eq!(seen.starts.load(Ordering::SeqCst), 1);
    running.stop().await;
}

// 2. A stolen lease drops the future here, and the thief's row is spared. (A zombie must not commit.)
#[tokio::test]
async fn a_lost_lease_ends_the_run_and_writes_nothing() {
    let config = Config { renew_every: Duration::from_millis(100), ..Config::default() };
    let (_database, pool, seen, running) = with_workers(config).await;
    let id = enqueue(&pool, &probe(Act::Sleep)).await;
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
    within(Duration::from_secs(2), "the run is dropped", async || seen.dropped.load(Ordering::SeqCst) == 1).await;
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
    let variables = || [("DATABASE_URL", database.url.clone()), ("MODE", "slow".to_owned())];
    let mut one = Process::start("queue_process", variables()).await;
    let mut two = Process::start("queue_process", variables()).await;
    eventually("both work", async || {
        count(&pool, "state = 'done'").await >= 40
            && sqlx::query_scalar::<_, i64>("select count(distinct worker) from jobs where worker is not null")
                .fetch_one(&pool)
                .await
                .unwrap()
                == 2
    })
    .await;
    one.signal(Signal::SIGKILL);
    assert_eq!(one.ends().await, None);
    eventually("all are done", async || count(&pool, "state = 'done'").await == 300).await;
    assert!(count(&pool, "attempts = 2").await >= 1, "what was in flight ran again");
    assert!(count(&pool, "attempts = 2").await <= 8, "and nothing else did");
    two.signal(Signal::SIGTERM);
    assert_eq!(two.ends().await, Some(0));
}

// 3. Attempts are counted when taken: a job that kills its process every time ends. (apalis-postgres loops for ever.)
#[tokio::test]
async fn a_job_that_kills_its_process_every_time_is_dead_in_the_end() {
    let database = TestDatabase::create().await;
    let pool = database.pool(2);
    let id = Uuid::now_v7();
    sqlx::query(
        "insert into jobs (id, queue, kind, payload, max_attempts) values ($1, 'tests', 'in_process', '{\"n\": 1}', 3)",
    )
    .bind(id)
    .execute(&pool)
    .await
    .unwrap();
    let variables = || [("DATABASE_URL", database.url.clone()), ("MODE", "abort".to_owned())];
    for _ in 0..3 {
        let mut process = Process::start("queue_process", variables()).await;
        assert_eq!(process.ends().await, None, "it aborts");
    }
    let mut survivor = Process::start("queue_process", variables()).await;
    eventually("it is dead", async || state(&pool, id).await == ("dead".to_owned(), 3)).await;
    let log: serde_json::Value =
        sqlx::query_scalar("select attempt_log from jobs where id = $1").bind(id).fetch_one(&pool).await.unwrap();
    assert_eq!(log.as_array().unwrap().len(), 3);
    assert_eq!(log[2]["error"], "the worker that ran it was lost");
    survivor.signal(Signal::SIGTERM);
    assert_eq!(survivor.ends().await, Some(0));
}

// 4. Retries are rows. (apalis-postgres: 25 attempts in 0.14 s.)
#[tokio::test]
async fn a_failing_job_is_tried_again_later_and_dead_at_its_limit() {
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

// 4. A panic and a timeout are errors like any other. (apalis-postgres leaves the row `Running` for ever.)
#[tokio::test]
async fn a_panic_and_a_timeout_are_tried_again() {
    let (_database, pool, _seen, running) = with_workers(Config::default()).await;
    let panics = enqueue(&pool, &probe(Act::Panic)).await;
    let hangs = enqueue(&pool, &probe(Act::Hang)).await;
    eventually("the panic is dead", async || state(&pool, panics).await == ("dead".to_owned(), 3)).await;
    eventually("the one that never ends was stopped and runs again", async || state(&pool, hangs).await.1 == 2).await;
    let error = async |id: Uuid| queue::find(&mut pool.acquire().await.unwrap(), id).await.unwrap().unwrap().last_error;
    assert_eq!(error(panics).await.as_deref(), Some("panicked: on purpose"));
    assert_eq!(error(hangs).await.as_deref(), Some("took longer than its limit of 4s"));
    running.stop.send(()).unwrap();
    running.runtime.close().await;
}

// 4. An error that asks for a delay gets it, frees its slot meanwhile; one that can't heal is dead at once.
#[tokio::test]
async fn an_asked_for_delay_is_kept_and_what_cannot_heal_is_dead() {
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

// 4. A payload that can't be read is dead, and the worker goes on.
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

// 6. Woken once a commit, and scheduled jobs start when due: nothing here waits for the poll of an hour.
#[tokio::test]
async fn pickup_does_not_wait_for_the_poll() {
    let config = Config { poll_every: Duration::from_secs(3_600), ..Config::default() };
    let (_database, pool, seen, running) = with_workers(config).await;
    for n in 1..=5 {
        enqueue(&pool, &probe(Act::Succeed)).await;
        eventually("it ran", async || seen.starts.load(Ordering::SeqCst) == n).await;
    }
    let due: chrono::DateTime<chrono::Utc> = sqlx::query_scalar("select now()").fetch_one(&pool).await.unwrap();
    let options = EnqueueOptions { run_at: Some(due + TimeDelta::milliseconds(700)), slot: None };
    let later =
        queue::enqueue_with(&mut pool.acquire().await.unwrap(), &probe(Act::Succeed), options).await.unwrap().unwrap();
    assert_eq!(state(&pool, later).await.0, "scheduled");
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
    let config = Config { listen: false, poll_every: Duration::from_millis(50), ..Config::default() };
    let (_database, pool, seen, running) = with_workers(config).await;
    eventually("the workers have looked", async || running.runtime.running() == 0).await;
    let jobs: Vec<Probe> = (0..100).map(|_| probe(Act::Succeed)).collect();
    queue::enqueue_many(&mut pool.acquire().await.unwrap(), &jobs).await.unwrap();
    eventually("all ran", async || seen.starts.load(Ordering::SeqCst) == 100).await;
    running.stop().await;
}

// 7. A million finished jobs cost a fetch, an outcome and a renewal nothing: rows touched, not time, is what is held.
#[tokio::test]
async fn a_million_finished_jobs_cost_nothing() {
    let database = TestDatabase::create().await;
    let pool = database.pool(2);
    sqlx::query(
        "insert into jobs (id, queue, kind, payload, state, attempts, max_attempts, run_at, finished_at)
         select gen_random_uuid(), 'tests', 'probe', '{}', case when n % 10 = 0 then 'dead' else 'done' end, 1, 3,
                now() - interval '1 hour', now() - interval '1 hour' from generate_series(1, 1000000) n",
    )
    .execute(&pool)
    .await
    .unwrap();
    sqlx::query("analyze jobs").execute(&pool).await.unwrap();
    // Counters are exact once the sessions that counted have ended.
    let touched = async || -> i64 {
        let mut fresh = sqlx::PgConnection::connect(&database.url).await.unwrap();
        sqlx::query_scalar("select coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) from pg_stat_user_tables where relname = 'jobs'")
            .fetch_one(&mut fresh)
            .await
            .unwrap()
    };
    pool.close().await;
    let pool = database.pool(2);
    let before = touched().await;
    let seen = Arc::new(Seen::default());
    let config =
        Config { renew_every: Duration::from_millis(50), poll_every: Duration::from_millis(50), ..Config::default() };
    let running = start(&database, config, &seen);
    for batch in 1..=10 {
        let jobs: Vec<Probe> = (0..50).map(|_| probe(Act::Succeed)).collect();
        queue::enqueue_many(&mut pool.acquire().await.unwrap(), &jobs).await.unwrap();
        eventually("they ran", async || seen.starts.load(Ordering::SeqCst) == batch * 50).await;
    }
    eventually("all are acknowledged", async || running.runtime.running() == 0).await;
    running.stop().await;
    pool.close().await;
    let cost = touched().await - before;
    assert!(cost < 50_000, "500 jobs touched {cost} rows");
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
    assert!(count(&pool, "state = 'done'").await >= 799);
    assert!(count(&pool, "state = 'dead'").await >= 599);
    running.stop().await;
}

// 10. A lost connection ends nothing: what ran goes on, what comes is taken.
#[tokio::test]
async fn lost_connections_end_no_worker_and_lose_no_job() {
    let (_database, pool, seen, running) = with_workers(Config { concurrency: 8, ..Config::default() }).await;
    let jobs: Vec<Probe> = (0..400).map(|_| probe(Act::Succeed)).collect();
    let long = enqueue(&pool, &probe(Act::Sleep)).await;
    eventually("it runs", async || seen.starts.load(Ordering::SeqCst) == 1).await;
    for batch in jobs.chunks(50) {
        queue::enqueue_many(&mut pool.acquire().await.unwrap(), batch).await.unwrap();
        sqlx::query("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")
            .execute(&pool)
            .await
            .unwrap();
    }
    eventually("all are done", async || count(&pool, "state = 'done'").await == 401).await;
    assert_eq!(state(&pool, long).await, ("done".to_owned(), 1));
    assert!(seen.starts.load(Ordering::SeqCst) >= 401, "a lost outcome means a second run, never a lost job");
    running.stop().await;
}

// Shutdown: what runs finishes, what does not goes back with its attempt, nothing stays leased.
#[tokio::test]
async fn stopping_finishes_what_runs_and_gives_back_the_rest() {
    let (_database, pool, seen, running) = with_workers(Config { concurrency: 4, ..Config::default() }).await;
    let jobs: Vec<Probe> = (0..20).map(|_| probe(Act::Sleep)).collect();
    queue::enqueue_many(&mut pool.acquire().await.unwrap(), &jobs).await.unwrap();
    eventually("four run", async || seen.starts.load(Ordering::SeqCst) == 4).await;
    running.stop().await;
    assert_eq!(count(&pool, "state = 'done' and attempts = 1").await, 4);
    assert_eq!(count(&pool, "state = 'pending' and attempts = 0").await, 16);
}

// A paused queue is left alone; others are not.
#[tokio::test]
async fn a_paused_queue_waits() {
    let (_database, pool, seen, running) =
        with_workers(Config { poll_every: Duration::from_millis(50), ..Config::default() }).await;
    sqlx::query("insert into queues (name, paused_at) values ('tests', now())").execute(&pool).await.unwrap();
    let id = enqueue(&pool, &probe(Act::Succeed)).await;
    // It polls every 50 ms: in half a second it looks ten times and finds nothing.
    let watched = seen.clone();
    let started = tokio::spawn(within(Duration::from_millis(500), "it runs", move || {
        let watched = watched.clone();
        async move { watched.starts.load(Ordering::SeqCst) > 0 }
    }));
    assert!(started.await.is_err(), "it must not run");
    assert_eq!(state(&pool, id).await.0, "ready");
    sqlx::query("update queues set paused_at = null").execute(&pool).await.unwrap();
    eventually("it runs", async || state(&pool, id).await.0 == "done").await;
    running.stop().await;
}
