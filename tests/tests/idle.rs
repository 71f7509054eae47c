//! What an idle api and worker cost Postgres.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tests::{DEADLINE, SCHEDULES, within};

use crate::processes::Shop;

/// Every schedule of a minute runs once in it.
const WINDOW: Duration = Duration::from_secs(60);
/// The number of transactions in [`WINDOW`]: two a second, and those of the hourly job, which may run
/// in it.
const AT_MOST: i64 = 120 + 12;

/// The most windows. Beside other tests, a session may be used for the first time later, and prepare its
/// statements.
const WINDOWS: usize = 3;

/// A slow machine makes fewer transactions: each is followed by a pause.
#[tokio::test]
async fn an_idle_api_and_worker_make_at_most_two_transactions_a_second() {
    let shop = Shop::open().await;
    let (_api, _worker) = tokio::join!(shop.api(), shop.worker());
    let pool = shop.database.pool(1);
    // A session prepares each statement once, in a transaction of its own. Two runs use them all.
    within(3 * DEADLINE, "each schedule has run, and those of every minute twice", async || {
        let ended: Vec<i64> = sqlx::query_scalar(
            "select count(*) from schedule_slots join jobs on jobs.id = job_id where state = 'done' group by schedule",
        )
        .fetch_all(&pool)
        .await
        .unwrap();
        ended.len() == SCHEDULES.len() && ended.iter().filter(|runs| **runs >= 2).count() >= 2
    })
    .await;
    pool.close().await;
    // Sessions report their transactions when they have been idle for a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut made = Vec::new();
    while made.len() < WINDOWS && made.last().is_none_or(|last| *last > AT_MOST) {
        let before = transactions(&shop).await;
        tokio::time::sleep(WINDOW).await;
        made.push(transactions(&shop).await - before);
    }
    let least = *made.iter().min().unwrap();
    assert!(least <= AT_MOST, "{made:?} transactions in {WINDOW:?} each");
    assert!(least >= 20, "{made:?} transactions in {WINDOW:?}: the processes should look for jobs, and be counted");
}

/// The transactions in the database so far, counted from another one.
async fn transactions(shop: &Shop) -> i64 {
    let (server, _) = shop.database.url.rsplit_once('/').unwrap();
    let mut conn = PgConnection::connect(&format!("{server}/postgres")).await.unwrap();
    let query = "select xact_commit + xact_rollback from pg_stat_database where datname = $1";
    sqlx::query_scalar(query).bind(&shop.database.name).fetch_one(&mut conn).await.unwrap()
}
