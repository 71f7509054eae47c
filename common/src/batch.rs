//! Batches requests: those that arrive while a statement is in progress share the next one.
//!
//! Requests don't wait for a batch to fill. [`Batch::CONCURRENCY`] tasks take the queued requests,
//! up to [`Batch::MAX_BATCH`], so that under load one round trip, and one commit, serve many
//! requests (`docs/performance.md` has the figures).

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::db::{self, Connection, Database};

/// The time limit of one batch. When it is exceeded the requests fail, although they may have taken
/// effect.
pub const TIMEOUT: Duration = Duration::from_secs(15);

/// Work that can be done for many requests at once.
pub trait Batch: Send + Sync + 'static {
    /// One request.
    type Request: Send + Sync;
    /// The result of one request.
    type Response: Send;
    /// The number of batches in progress at a time.
    const CONCURRENCY: usize;
    /// The maximum number of requests in a batch.
    const MAX_BATCH: usize;
    /// If set, the batch runs in a transaction, whose statements wait this long for locks. Needed if it
    /// executes several statements that must take effect together.
    const TRANSACTION: Option<Duration>;

    /// Serves the requests; returns one response for each, in their order. May run again after an
    /// error, when nothing was committed.
    fn run(
        &self,
        conn: &mut Connection,
        requests: &[Self::Request],
    ) -> impl Future<Output = sqlx::Result<Vec<Self::Response>>> + Send;
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("Postgres did not answer within {TIMEOUT:?}")]
    TimedOut,
    #[error("the batch panicked")]
    Panicked,
    #[error("the batch returned no response to the request")]
    NoResponse,
    #[error("{}", db::redacted(.0))]
    Postgres(#[from] sqlx::Error),
}

/// Why a request failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct BatchError(Arc<Failure>);

impl BatchError {
    /// Whether Postgres is unavailable: the request may succeed later.
    pub fn is_unavailable(&self) -> bool {
        match &*self.0 {
            Failure::TimedOut => true,
            Failure::Postgres(error) => db::is_unavailable(error),
            Failure::Panicked | Failure::NoResponse => false,
        }
    }

    /// Whether a limit of Postgres is exceeded; see [`db::exceeds_limit`].
    pub fn exceeds_limit(&self) -> bool {
        matches!(&*self.0, Failure::Postgres(error) if db::exceeds_limit(error))
    }

    /// Whether a lock was not granted in time; see [`db::is_locked`].
    pub fn is_locked(&self) -> bool {
        matches!(&*self.0, Failure::Postgres(error) if db::is_locked(error))
    }

    /// Whether another transaction has stored the same row meanwhile. The next try finds it.
    pub fn is_unique_violation(&self) -> bool {
        matches!(&*self.0, Failure::Postgres(sqlx::Error::Database(error)) if error.is_unique_violation())
    }
}

type Sender<R> = oneshot::Sender<Result<R, BatchError>>;
type Queued<B> = (<B as Batch>::Request, Sender<<B as Batch>::Response>);

/// Hands requests to the tasks that serve them. The tasks end when the batcher is dropped.
#[derive(Debug)]
pub struct Batcher<B: Batch> {
    queue: mpsc::UnboundedSender<Queued<B>>,
}

impl<B: Batch> Batcher<B> {
    /// Starts the tasks on the current tokio runtime.
    pub fn start(batch: B, database: Database) -> Self {
        let (queue, queued) = mpsc::unbounded_channel();
        let task = Arc::new(Task { batch, database, queued: Mutex::new(queued) });
        for _ in 0..B::CONCURRENCY {
            tokio::spawn(task.clone().run());
        }
        Self { queue }
    }

    /// Queues the request and waits for its response. Dropping the future does not cancel the
    /// request.
    pub async fn run(&self, request: B::Request) -> Result<B::Response, BatchError> {
        let (sender, response) = oneshot::channel();
        let none = || BatchError(Arc::new(Failure::NoResponse));
        self.queue.send((request, sender)).map_err(|_| none())?;
        response.await.map_err(|_| none())?
    }
}

struct Task<B: Batch> {
    batch: B,
    database: Database,
    queued: Mutex<mpsc::UnboundedReceiver<Queued<B>>>,
}

impl<B: Batch> Task<B> {
    async fn run(self: Arc<Self>) {
        loop {
            let mut taken = Vec::new();
            self.queued.lock().await.recv_many(&mut taken, B::MAX_BATCH).await;
            if taken.is_empty() {
                return;
            }
            let (requests, senders): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
            self.serve(&requests, senders).await;
        }
    }

    async fn serve(&self, requests: &[B::Request], senders: Vec<Sender<B::Response>>) {
        match self.batch(requests).await {
            Ok(responses) => {
                for (sender, response) in senders.into_iter().zip(responses) {
                    let _ = sender.send(Ok(response)); // the caller may be gone
                }
            }
            // A request that Postgres refuses, or that panics, must not fail the others.
            Err(error) if requests.len() > 1 && !error.is_unavailable() => {
                let mut unavailable = None;
                for (request, sender) in requests.iter().zip(senders) {
                    let response = match &unavailable {
                        None => self.one(request).await,
                        Some(error) => Err(BatchError::clone(error)), // one by one, the others would wait just as long
                    };
                    unavailable =
                        unavailable.or(response.as_ref().err().filter(|error| error.is_unavailable()).cloned());
                    let _ = sender.send(response);
                }
            }
            Err(error) => {
                for sender in senders {
                    let _ = sender.send(Err(error.clone()));
                }
            }
        }
    }

    async fn one(&self, request: &B::Request) -> Result<B::Response, BatchError> {
        let mut responses = self.batch(std::slice::from_ref(request)).await?;
        responses.pop().ok_or_else(|| BatchError(Arc::new(Failure::NoResponse)))
    }

    async fn batch(&self, requests: &[B::Request]) -> Result<Vec<B::Response>, BatchError> {
        let run = tokio::time::timeout(TIMEOUT, self.commit(requests)).await;
        run.unwrap_or(Err(Failure::TimedOut)).map_err(|failure| BatchError(Arc::new(failure)))
    }

    async fn commit(&self, requests: &[B::Request]) -> Result<Vec<B::Response>, Failure> {
        let mut conn = match B::TRANSACTION {
            Some(lock_wait) => self.database.begin_with_lock_wait(lock_wait).await?,
            None => self.database.acquire().await?,
        };
        let run = AssertUnwindSafe(self.batch.run(&mut conn, requests)).catch_unwind();
        let responses = run.await.map_err(|_| Failure::Panicked)??;
        conn.commit().await?;
        Ok(responses)
    }
}
