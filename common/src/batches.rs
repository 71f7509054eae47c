//! Requests that come at the same time share a statement.
//!
//! While one statement is under way, what is asked meanwhile waits, and the next
//! statement answers all of it: under load Postgres sees a round trip, a snapshot
//! and a commit for many requests, and nobody waits for more to come. Each answer
//! is of a statement that began after its request came.
//!
//! A lane keeps its connection while there is work.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use queue::Kept;
use tokio::sync::{Mutex, Notify, mpsc, oneshot};

use crate::db::{self, Connection, Database};

/// A lane that had nothing to do for so long gives its connection back.
const IDLE: Duration = Duration::from_secs(2);

/// The longest that few questions wait for a busy lane.
const PATIENCE: Duration = Duration::from_millis(20);

/// A statement that takes longer gets no answer any more: Postgres hangs, or is gone without a word.
pub const LONGEST: Duration = Duration::from_secs(15);

/// Something that can be done for many at once.
pub trait Batch: Send + Sync + 'static {
    /// What one request asks.
    type Question: Send + Sync;
    /// What it is told.
    type Answer: Send;
    /// How many statements may be under way at a time, each on a connection of its own.
    const LANES: usize;
    /// The most that one takes.
    const MOST: usize;
    /// So many have to wait before another statement begins beside one that is under way.
    const ENOUGH: usize;
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

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("Postgres did not answer within {LONGEST:?}")]
    Slow,
    #[error("answering panicked")]
    Panicked,
    #[error("the answer to a batch was lost")]
    Lost,
    #[error("{}", db::told(.0))]
    Postgres(#[from] sqlx::Error),
}

impl Failure {
    /// Postgres can't be reached: nobody's question will fare better now.
    fn is_away(&self) -> bool {
        matches!(self, Self::Postgres(error) if db::is_unavailable(error))
    }
}

/// Why there is no answer to a question.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Unanswered(Arc<Failure>);

impl Unanswered {
    /// Whether Postgres is away or hangs: the same question may be answered later.
    pub fn is_unavailable(&self) -> bool {
        self.0.is_away() || matches!(*self.0, Failure::Slow)
    }

    /// Whether a lock was not granted in time; see [`db::is_locked`].
    pub fn is_locked(&self) -> bool {
        matches!(&*self.0, Failure::Postgres(error) if db::is_locked(error))
    }
}

type Answered<A> = Result<A, Unanswered>;
type Sender<A> = oneshot::Sender<Answered<A>>;
type Waiting<B> = (<B as Batch>::Question, Sender<<B as Batch>::Answer>);

/// What the lanes of one kind share.
#[derive(Debug)]
struct Shared<B: Batch> {
    batch: B,
    database: Database,
    waiting: Mutex<mpsc::UnboundedReceiver<Waiting<B>>>,
    /// Lanes that have a statement under way.
    busy: AtomicUsize,
    /// Told when there is one less.
    ended: Notify,
}

/// Takes questions to the lanes; they end with it.
#[derive(Debug)]
pub struct Batches<B: Batch> {
    waiting: mpsc::UnboundedSender<Waiting<B>>,
}

impl<B: Batch> Batches<B> {
    /// Starts the lanes on the current tokio runtime.
    pub fn start(batch: B, database: Database) -> Self {
        let (sender, waiting) = mpsc::unbounded_channel();
        let (busy, ended) = (AtomicUsize::new(0), Notify::new());
        let shared = Arc::new(Shared { batch, database, waiting: Mutex::new(waiting), busy, ended });
        for _ in 0..B::LANES {
            tokio::spawn(Lane { kept: Kept::new(shared.database.clone()), shared: shared.clone() }.run());
        }
        Self { waiting: sender }
    }

    /// Asks, and waits for the answer. What was asked is done even if nobody waits any more.
    pub async fn ask(&self, question: B::Question) -> Result<B::Answer, Unanswered> {
        let (sender, answer) = oneshot::channel();
        let lost = || Unanswered(Arc::new(Failure::Lost));
        self.waiting.send((question, sender)).map_err(|_| lost())?;
        answer.await.map_err(|_| lost())?
    }
}

struct Lane<B: Batch> {
    shared: Arc<Shared<B>>,
    /// A pool's checks before and after each use are round trips of their own.
    kept: Kept,
}

impl<B: Batch> Lane<B> {
    async fn run(mut self) {
        let shared = self.shared.clone();
        loop {
            let mut taken = Vec::new();
            // Nothing is taken where this is given up.
            let first = async {
                let mut waiting = shared.waiting.lock().await;
                waiting.recv_many(&mut taken, B::MOST).await;
                waiting
            };
            match tokio::time::timeout(IDLE, first).await {
                Err(_) => self.kept.release(),
                Ok(_) if taken.is_empty() => return,
                Ok(mut waiting) => {
                    self.gather(&mut waiting, &mut taken).await;
                    drop(waiting);
                    let (questions, senders): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
                    self.serve(&questions, senders).await;
                    shared.busy.fetch_sub(1, Ordering::AcqRel);
                    shared.ended.notify_one();
                }
            }
        }
    }

    /// While another lane is busy, few questions wait for it to end, and more
    /// join them: statements of a few are dearer than one of all.
    async fn gather(&self, waiting: &mut mpsc::UnboundedReceiver<Waiting<B>>, taken: &mut Vec<Waiting<B>>) {
        let until = tokio::time::Instant::now() + PATIENCE;
        while self.shared.busy.load(Ordering::Acquire) > 0 && taken.len() < B::ENOUGH {
            let room = B::MOST - taken.len();
            tokio::select! {
                more = waiting.recv_many(taken, room) => if more == 0 { break },
                () = self.shared.ended.notified() => {}
                () = tokio::time::sleep_until(until) => break,
            }
        }
        self.shared.busy.fetch_add(1, Ordering::AcqRel);
    }

    async fn serve(&mut self, questions: &[B::Question], senders: Vec<Sender<B::Answer>>) {
        match self.answers(questions).await {
            Ok(answers) => {
                for (sender, answer) in senders.into_iter().zip(answers) {
                    let _ = sender.send(Ok(answer)); // who went away needs none
                }
            }
            // One that Postgres refuses must not spoil it for the others.
            Err(Failure::Postgres(error)) if questions.len() > 1 && !db::is_unavailable(&error) => {
                self.serve_one_by_one(questions, senders).await;
            }
            Err(Failure::Panicked) if questions.len() > 1 => self.serve_one_by_one(questions, senders).await,
            Err(failure) => self.refuse(senders, failure),
        }
    }

    async fn serve_one_by_one(&mut self, questions: &[B::Question], senders: Vec<Sender<B::Answer>>) {
        let mut senders = senders.into_iter();
        for question in questions {
            let Some(sender) = senders.next() else { return };
            match self.answers(std::slice::from_ref(question)).await {
                Ok(mut answers) => {
                    let answer = answers.pop().ok_or_else(|| Unanswered(Arc::new(Failure::Lost)));
                    let _ = sender.send(answer);
                }
                // The others would wait as long, one after the other.
                Err(failure) if failure.is_away() || matches!(failure, Failure::Slow) => {
                    return self.refuse(std::iter::once(sender).chain(senders).collect(), failure);
                }
                Err(failure) => {
                    let _ = sender.send(Err(Unanswered(Arc::new(failure))));
                }
            }
        }
    }

    /// Where Postgres is away, whoever waits is told now, not after a time-out of his own.
    fn refuse(&self, senders: Vec<Sender<B::Answer>>, failure: Failure) {
        let (away, failure) = (failure.is_away(), Unanswered(Arc::new(failure)));
        for sender in senders {
            let _ = sender.send(Err(failure.clone()));
        }
        // A lane that waits for questions right now has found none.
        if away && let Ok(mut waiting) = self.shared.waiting.try_lock() {
            while let Ok((_, sender)) = waiting.try_recv() {
                let _ = sender.send(Err(failure.clone()));
            }
        }
    }

    async fn answers(&mut self, questions: &[B::Question]) -> Result<Vec<B::Answer>, Failure> {
        match self.answers_in_time(questions).await {
            // The connection was lost since it was last seen to live. (A pool that
            // had none to give for seconds will have none now.)
            Err(Failure::Postgres(error))
                if db::is_unavailable(&error) && !matches!(error, sqlx::Error::PoolTimedOut) =>
            {
                self.answers_in_time(questions).await
            }
            other => other,
        }
    }

    async fn answers_in_time(&mut self, questions: &[B::Question]) -> Result<Vec<B::Answer>, Failure> {
        tokio::time::timeout(LONGEST, self.try_answers(questions)).await.unwrap_or(Err(Failure::Slow))
    }

    /// Keeps the connection only if all went well.
    async fn try_answers(&mut self, questions: &[B::Question]) -> Result<Vec<B::Answer>, Failure> {
        let mut conn = if B::TRANSACTION { self.shared.database.begin().await? } else { self.kept.acquire().await? };
        let answering = AssertUnwindSafe(self.shared.batch.answer(&mut conn, questions)).catch_unwind();
        let answers = answering.await.map_err(|_| Failure::Panicked)??;
        self.kept.commit(conn).await?;
        Ok(answers)
    }
}
