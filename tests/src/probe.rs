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
use tokio::{
    sync::{Semaphore, oneshot},
    task::JoinHandle,
};
use uuid::Uuid;

use crate::{TestDatabase, connection};

/// A back-off that no test waits long for.
pub const QUICKLY: Backoff = Backoff { first: Duration::from_millis(20), longest: Duration::from_millis(100) };

/// The payload determines the action.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Probe {
    /// Makes the job unique, if it is positive.
    pub n: i64,
    /// What the job does.
    pub act: Act,
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// Succeeds.
    Succeed,
    /// Fails, and may be retried.
    Fail,
    /// Panics.
    Panic,
    /// Fails for good.
    Abort,
    /// Fails, and must not be retried for an hour.
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

/// A job that is not unique.
pub fn probe(act: Act) -> Probe {
    Probe { n: 0, act }
}

/// The handlers' records, and the permits that some wait for.
#[derive(Debug)]
pub struct Seen {
    /// The number of attempts that began.
    pub starts: AtomicUsize,
    /// The number of [`Act::Wait`] that ended, also without a permit.
    pub dropped: AtomicUsize,
    /// Every attempt that began.
    pub attempts: Mutex<Vec<Attempt>>,
    /// Each permit ends one [`Act::Wait`].
    pub permits: Semaphore,
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
        Act::Abort => return Err(AbortError::new("hopeless").into()),
        Act::AskForDelay => return Err(RetryAfterError::new("later", Duration::from_secs(3600)).into()),
        Act::Wait => {
            let _count = CountDrop((*seen).clone());
            seen.permits.acquire().await?.forget();
        }
    }
    Ok(())
}

/// Workers of [`Probe`].
#[derive(Debug)]
pub struct Running {
    /// Their queue.
    pub runtime: Runtime,
    /// Asks them to stop.
    pub stop: oneshot::Sender<()>,
    /// Ends when they have.
    pub monitor: JoinHandle<()>,
}

impl Running {
    /// Stops them and waits until they have.
    ///
    /// # Panics
    /// If they panicked.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        self.monitor.await.unwrap();
        self.runtime.close().await;
    }
}

/// Starts workers.
pub fn start(database: &TestDatabase, config: Config, seen: &Arc<Seen>) -> Running {
    start_on(&database.reach(Listen::Directly, 1), config, seen)
}

/// Starts workers that reach Postgres by this pool.
pub fn start_on(database: &Database, config: Config, seen: &Arc<Seen>) -> Running {
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
pub async fn with_workers(config: Config) -> (TestDatabase, PgPool, Arc<Seen>, Running) {
    let database = TestDatabase::create().await;
    let seen = Arc::new(Seen::default());
    let running = start(&database, config, &seen);
    (database.clone(), database.pool(3), seen, running)
}

/// Queues a job.
///
/// # Panics
/// If it is queued already.
pub async fn enqueue(pool: &PgPool, job: &Probe) -> Uuid {
    queue::enqueue(&mut connection(pool).await, job).await.unwrap().expect("it was not queued yet")
}

/// The state of a job, and how often it began.
///
/// # Panics
/// If there is no such job.
pub async fn state(pool: &PgPool, id: Uuid) -> (String, i16) {
    let job = queue::find(&mut connection(pool).await, id).await.unwrap().expect("it is kept");
    (job.state.as_str().to_owned(), job.attempts)
}

/// The number of jobs for which a condition in SQL holds.
///
/// # Panics
/// If Postgres refuses it.
pub async fn count(pool: &PgPool, condition: &str) -> i64 {
    let query = sqlx::AssertSqlSafe(format!("select count(*) from jobs where {condition}"));
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap()
}
