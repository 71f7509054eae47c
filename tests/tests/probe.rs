//! A job whose payload determines its action, and workers for it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use apalis::prelude::{AbortError, BoxDynError, Data, Monitor, RetryAfterError, WorkerBuilder};
use queue::{Attempt, Backoff, Config, Database, Job, Listen, Runtime};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tests::{TestDatabase, connection};
use tokio::{
    sync::{Semaphore, oneshot},
    task::JoinHandle,
};
use uuid::Uuid;

pub(crate) const QUICKLY: Backoff = Backoff { first: Duration::from_millis(20), longest: Duration::from_millis(100) };

/// The payload determines the action.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Probe {
    pub(crate) n: i64,
    pub(crate) act: Act,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Act {
    Succeed,
    Fail,
    Panic,
    Abort,
    AskForDelay,
    /// Waits for a permit from the test.
    Wait,
}

impl Job for Probe {
    const QUEUE: &'static str = "tests";
    const KIND: &'static str = "probe";
    const MAX_ATTEMPTS: i16 = 3;
    const BACKOFF: Backoff = QUICKLY;

    fn unique_key(&self) -> Option<String> {
        (self.n > 0).then(|| format!("probe {}", self.n))
    }
}

pub(crate) fn probe(act: Act) -> Probe {
    Probe { n: 0, act }
}

/// The handlers' records, and the permits that some wait for.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) starts: AtomicUsize,
    pub(crate) dropped: AtomicUsize,
    pub(crate) attempts: Mutex<Vec<Attempt>>,
    /// Each permit ends one [`Act::Wait`].
    pub(crate) permits: Semaphore,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            starts: AtomicUsize::default(),
            dropped: AtomicUsize::default(),
            attempts: Mutex::default(),
            permits: Semaphore::new(0),
        }
    }
}

pub(crate) struct CountDrop(Arc<Seen>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

pub(crate) async fn handle(job: Probe, seen: Data<Arc<Seen>>, attempt: Data<Attempt>) -> Result<(), BoxDynError> {
    seen.starts.fetch_add(1, Ordering::SeqCst);
    seen.attempts.lock().unwrap().push(*attempt);
    match job.act {
        Act::Succeed => {}
        Act::Fail => return Err("no luck".into()),
        Act::Panic => panic!("on purpose"),
        Act::Abort => return Err(AbortError::new("hopeless").into()),
        Act::AskForDelay => return Err(RetryAfterError::new("later", Duration::from_secs(3600)).into()),
        Act::Wait => {
            let _count = CountDrop((*seen).clone());
            seen.permits.acquire().await?.forget();
        }
    }
    Ok(())
}

pub(crate) struct Running {
    pub(crate) runtime: Runtime,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) monitor: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        self.monitor.await.unwrap();
        self.runtime.close().await;
    }
}

pub(crate) fn start(database: &TestDatabase, config: Config, seen: &Arc<Seen>) -> Running {
    start_on(&database.reach(Listen::Directly, 1), config, seen)
}

pub(crate) fn start_on(database: &Database, config: Config, seen: &Arc<Seen>) -> Running {
    let runtime = Runtime::start(database, config);
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
pub(crate) async fn with_workers(config: Config) -> (TestDatabase, PgPool, Arc<Seen>, Running) {
    let database = TestDatabase::create().await;
    let seen = Arc::new(Seen::default());
    let running = start(&database, config, &seen);
    (database.clone(), database.pool(3), seen, running)
}

pub(crate) async fn enqueue(pool: &PgPool, job: &Probe) -> Uuid {
    queue::enqueue(&mut connection(pool).await, job).await.unwrap().expect("it was not queued yet")
}

pub(crate) async fn state(pool: &PgPool, id: Uuid) -> (String, i16) {
    let job = queue::find(&mut connection(pool).await, id).await.unwrap().expect("it is kept");
    (job.state.as_str().to_owned(), job.attempts)
}

pub(crate) async fn count(pool: &PgPool, condition: &str) -> i64 {
    let query = sqlx::AssertSqlSafe(format!("select count(*) from jobs where {condition}"));
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap()
}
