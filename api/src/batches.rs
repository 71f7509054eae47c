//! Requests that come at the same time share a statement.
//!
//! While one statement is under way, what is asked meanwhile waits, and the next
//! statement answers all of it: under load Postgres sees a round trip, a snapshot
//! and a commit for many requests, and nobody waits for more to come. Each answer
//! is of a statement that began after its request came.
//!
//! A lane keeps its connection while there is work: a pool's checks before and
//! after each use are round trips of their own.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use common::db::{self, Connection, Database};
use futures_util::FutureExt;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::error::ApiError;

/// A lane that had nothing to do for so long gives its connection back.
const IDLE: Duration = Duration::from_secs(2);

/// Something that can be done for many at once.
pub(crate) trait Batch: Send + Sync + 'static {
    /// What one request asks.
    type Question: Send + Sync;
    /// What it is told.
    type Answer: Send;
    /// How many statements may be under way at a time, each on a connection of its own.
    const LANES: usize;
    /// The most that one takes.
    const MOST: usize;
    /// Whether answering takes more than one statement that must happen all or not at all.
    const TRANSACTION: bool = false;

    /// Answers all questions, in their order. It may be done again after an
    /// error, and must bear that.
    fn answer(
        &self,
        conn: &mut Connection,
        questions: &[Self::Question],
    ) -> impl Future<Output = sqlx::Result<Vec<Self::Answer>>> + Send;
}

type Answered<A> = Result<A, Arc<sqlx::Error>>;
type Waiting<B> = (<B as Batch>::Question, oneshot::Sender<Answered<<B as Batch>::Answer>>);

/// Takes questions to the lanes; they end with it.
#[derive(Debug)]
pub(crate) struct Batches<B: Batch> {
    waiting: mpsc::UnboundedSender<Waiting<B>>,
}

impl<B: Batch> Batches<B> {
    /// Starts the lanes on the current tokio runtime.
    pub(crate) fn start(batch: B, database: Database) -> Self {
        let (sender, waiting) = mpsc::unbounded_channel();
        let (batch, waiting) = (Arc::new(batch), Arc::new(Mutex::new(waiting)));
        for _ in 0..B::LANES {
            let lane = Lane { batch: batch.clone(), database: database.clone(), waiting: waiting.clone(), held: None };
            tokio::spawn(lane.run());
        }
        Self { waiting: sender }
    }

    /// Asks, and waits for the answer. What was asked is done even if nobody waits any more.
    pub(crate) async fn ask(&self, question: B::Question) -> Result<B::Answer, ApiError> {
        let (sender, answer) = oneshot::channel();
        let gone = || ApiError::internal("the answer to a batch was lost");
        self.waiting.send((question, sender)).map_err(|_| gone())?;
        match answer.await.map_err(|_| gone())? {
            Ok(answer) => Ok(answer),
            Err(error) if db::is_unavailable(&error) => Err(ApiError::unavailable(error)),
            Err(error) => Err(ApiError::internal(error)),
        }
    }
}

struct Lane<B: Batch> {
    batch: Arc<B>,
    database: Database,
    waiting: Arc<Mutex<mpsc::UnboundedReceiver<Waiting<B>>>>,
    held: Option<Connection>,
}

impl<B: Batch> Lane<B> {
    async fn run(mut self) {
        loop {
            let mut taken = Vec::new();
            let taking = async { self.waiting.lock().await.recv_many(&mut taken, B::MOST).await };
            match tokio::time::timeout(IDLE, taking).await {
                Err(_) => self.held = None,
                Ok(0) => return,
                Ok(_) => {
                    let (questions, senders): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
                    self.serve(&questions, senders).await;
                }
            }
        }
    }

    async fn serve(&mut self, questions: &[B::Question], senders: Vec<oneshot::Sender<Answered<B::Answer>>>) {
        match self.answers(questions).await {
            Ok(answers) => {
                for (sender, answer) in senders.into_iter().zip(answers) {
                    let _ = sender.send(Ok(answer)); // who went away needs none
                }
            }
            // One that Postgres refuses must not spoil it for the others.
            Err(error) if questions.len() > 1 && !db::is_unavailable(&error) => {
                for (question, sender) in questions.iter().zip(senders) {
                    let answer = self.answers(std::slice::from_ref(question)).await;
                    let one = answer.and_then(|mut answers| answers.pop().ok_or(sqlx::Error::RowNotFound));
                    let _ = sender.send(one.map_err(Arc::new));
                }
            }
            Err(error) => self.refuse(senders, &Arc::new(error)),
        }
    }

    /// Postgres is away: whoever waits is told now, not after a time-out of his own.
    fn refuse(&self, senders: Vec<oneshot::Sender<Answered<B::Answer>>>, error: &Arc<sqlx::Error>) {
        for sender in senders {
            let _ = sender.send(Err(error.clone()));
        }
        // A lane that waits for questions right now has found none.
        if db::is_unavailable(error)
            && let Ok(mut waiting) = self.waiting.try_lock()
        {
            while let Ok((_, sender)) = waiting.try_recv() {
                let _ = sender.send(Err(error.clone()));
            }
        }
    }

    async fn answers(&mut self, questions: &[B::Question]) -> sqlx::Result<Vec<B::Answer>> {
        let used_before = self.held.is_some();
        match self.try_answers(questions).await {
            // It was lost since it was last used; a new one was looked at by the pool.
            Err(error) if used_before && db::is_unavailable(&error) => self.try_answers(questions).await,
            other => other,
        }
    }

    /// Keeps the connection only if all went well.
    async fn try_answers(&mut self, questions: &[B::Question]) -> sqlx::Result<Vec<B::Answer>> {
        let mut conn = match self.held.take() {
            Some(conn) => conn,
            None if B::TRANSACTION => self.database.begin().await?,
            None => self.database.acquire().await?,
        };
        let answers = AssertUnwindSafe(self.batch.answer(&mut conn, questions)).catch_unwind().await;
        let answers = answers.map_err(|_| sqlx::Error::WorkerCrashed)??;
        if B::TRANSACTION || self.database.is_pooled() {
            conn.commit().await?;
        } else {
            self.held = Some(conn);
        }
        Ok(answers)
    }
}
