//! `common::batch`: order, refused and panicking requests, an unavailable Postgres, and dropped callers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::{
    batch::{Batch, Batcher},
    db::{Connection, Database, Listen},
};
use futures_util::future::join_all;
use tests::{DEADLINE, TestDatabase};
use tokio::sync::Semaphore;

/// Returns each request's number from Postgres. A negative one divides by zero, and 0 panics.
#[derive(Debug, Clone)]
struct Echo {
    transactions: Arc<AtomicUsize>,
    /// A transaction takes a permit to end, and does not return it.
    permits: Arc<Semaphore>,
}

impl Echo {
    fn new(permits: usize) -> Self {
        Self { transactions: Arc::default(), permits: Arc::new(Semaphore::new(permits)) }
    }
}

impl Batch for Echo {
    type Request = i32;
    type Response = i32;
    const CONCURRENCY: usize = 1;
    const MAX_BATCH: usize = 10;
    const TRANSACTION: Option<Duration> = Some(Duration::from_secs(5));

    async fn run(&self, tx: &mut Connection, requests: &[i32]) -> sqlx::Result<Vec<i32>> {
        self.transactions.fetch_add(1, Ordering::AcqRel);
        self.permits.acquire().await.expect("it is never closed").forget();
        assert!(!requests.contains(&0), "as the test wants");
        let sql = "select case when n < 0 then 1 / (n - n) else n end from unnest($1::int[]) with ordinality as r (n, place) order by place";
        sqlx::query_scalar(sql).bind(requests).fetch_all(tx).await
    }
}

const MANY: usize = Semaphore::MAX_PERMITS >> 1;

async fn batcher(echo: &Echo) -> (TestDatabase, Batcher<Echo>) {
    let database = TestDatabase::create().await;
    let batcher = Batcher::start(echo.clone(), database.reach(Listen::Directly, 2));
    (database, batcher)
}

#[tokio::test]
async fn requests_that_come_together_share_a_transaction_and_keep_their_order() {
    let echo = Echo::new(1);
    let (_database, batcher) = batcher(&echo).await;
    let batcher = Arc::new(batcher);
    let first = tokio::spawn({
        let batcher = batcher.clone();
        async move { batcher.run(1).await }
    });
    while echo.permits.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    // While the first transaction is open, these requests wait and then share transactions of ten
    // each.
    echo.permits.add_permits(MANY);
    let responses = join_all((2..=31).map(|n| batcher.run(n))).await;
    assert_eq!(first.await.unwrap().unwrap(), 1);
    let responses: Vec<i32> = responses.into_iter().map(Result::unwrap).collect();
    assert_eq!(responses, (2..=31).collect::<Vec<_>>());
    assert!(echo.transactions.load(Ordering::Acquire) <= 6, "{:?} transactions", echo.transactions);
}

#[tokio::test]
async fn a_refused_or_panicking_request_fails_alone() {
    let echo = Echo::new(MANY);
    let (_database, batcher) = batcher(&echo).await;
    for poison in [-1, 0] {
        let requests = [1, 2, poison, 3];
        let responses = join_all(requests.map(|n| batcher.run(n))).await;
        for (request, response) in requests.into_iter().zip(responses) {
            match response {
                Ok(response) => assert_eq!(response, request),
                Err(error) => {
                    assert_eq!(request, poison, "{error}");
                    assert!(!error.is_unavailable(), "{error}");
                }
            }
        }
    }
}

#[tokio::test]
async fn an_unavailable_postgres_fails_all_of_them_at_once() {
    let echo = Echo::new(MANY);
    let nowhere = Database::new("postgres://nobody@127.0.0.1:1/none".parse().unwrap(), Listen::Off, 1);
    let batcher = Batcher::start(echo.clone(), nowhere);
    let responses = tokio::time::timeout(DEADLINE, join_all((1..=10).map(|n| batcher.run(n)))).await.unwrap();
    assert!(responses.into_iter().all(|response| response.is_err_and(|error| error.is_unavailable())));
    assert_eq!(echo.transactions.load(Ordering::Acquire), 0);
}

#[tokio::test]
async fn a_dropped_caller_undoes_nothing_and_delays_no_other() {
    let echo = Echo::new(0);
    let (_database, batcher) = batcher(&echo).await;
    {
        let mut dropped = std::pin::pin!(batcher.run(1));
        assert!(futures_util::poll!(&mut dropped).is_pending());
        while echo.transactions.load(Ordering::Acquire) == 0 {
            tokio::task::yield_now().await;
        }
    }
    echo.permits.add_permits(MANY);
    assert_eq!(batcher.run(2).await.unwrap(), 2);
    assert_eq!(echo.transactions.load(Ordering::Acquire), 2, "the dropped caller's request ran");
}
