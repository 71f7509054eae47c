//! What an idle api and worker cost Postgres.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tests::SCHEDULES;

use crate::processes::Shop;

/// Every schedule of a minute runs once in it.
const WINDOW: Duration = Duration::from_secs(60);
/// The number of transactions in [`WINDOW`]. Two a second were measured; schedules and a busy machine
/// add to them.
const AT_MOST: i64 = 240;

#[tokio::test]
async fn an_idle_api_and_worker_make_few_transactions() {
    let shop = Shop::open().await;
    let (_api, _worker) = tokio::join!(shop.api(), shop.worker());
    let pool = shop.database.pool(1);
    tests::eventually("the first run of each schedule has ended", async || {
        let ended: i64 = sqlx::query_scalar(
            "select count(*) from schedules where exists (
                 select from schedule_slots join jobs on jobs.id = job_id where schedule = name and state = 'done')",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        usize::try_from(ended) == Ok(SCHEDULES.len())
    })
    .await;
    pool.close().await;
    // Sessions report their transactions when they have been idle for a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = transactions(&shop).await;
    tokio::time::sleep(WINDOW).await;
    let made = transactions(&shop).await - before;
    assert!(made <= AT_MOST, "{made} transactions in {WINDOW:?}");
    assert!(made >= 20, "{made} transactions in {WINDOW:?}: the processes should look for jobs, and be counted");
}

/// The transactions in the database so far, counted from another one.
async fn transactions(shop: &Shop) -> i64 {
    let (server, _) = shop.database.url.rsplit_once('/').unwrap();
    let mut conn = PgConnection::connect(&format!("{server}/postgres")).await.unwrap();
    let query = "select xact_commit + xact_rollback from pg_stat_database where datname = $1";
    sqlx::query_scalar(query).bind(&shop.database.name).fetch_one(&mut conn).await.unwrap()
}
