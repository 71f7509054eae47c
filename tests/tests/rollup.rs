//! Correcting the stored counts of carts.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use common::analytics;
use reqwest::Method;
use serde_json::{Value, json};
use tests::{App, Setup, connection, eventually, transaction};

async fn totals(app: &App) -> (Value, Vec<Value>) {
    let mut totals = Vec::new();
    for status in ["?status=abandoned", "?status=recovered", "?status=expired", ""] {
        totals.push(app.get(&format!("/api/carts{status}")).await.data(200)["pagination"]["total"].clone());
    }
    // Not through the harness, which rejects negative totals: here they may be negative until
    // corrected. Up to a day in the future, so that midnight adds none.
    let mut data = Vec::new();
    for currency in ["usd", "eur"] {
        let path = format!("/api/analytics?startDate=2024-01-01&endDate=2029-12-31&currency={currency}");
        let answer = app.request(Method::GET, &path).send().await.unwrap();
        data.push(answer.json::<Value>().await.unwrap()["data"].clone());
    }
    (json!(data), totals)
}

async fn seed(app: &App, carts: i64) {
    sqlx::query(
        "insert into carts (id, customer_email, customer_name, items, total_minor, currency, status, status_reason,
                            refunded_minor, abandoned_at, recovered_at)
         select 'cart_' || n, 'e', 'n', '[]', n, case when n % 5 = 0 then 'eur' else 'usd' end,
                case when n % 3 = 0 then 'recovered' else 'abandoned' end,
                case when n % 6 = 0 then 'payment' when n % 3 = 0 then 'operator' end, case when n % 9 = 0 then n / 2 end,
                now() - (n % 100) * interval '1 day', case when n % 3 = 0 then now() - (n % 50) * interval '1 day' end
         from generate_series(1, $1) n",
    )
    .bind(carts)
    .execute(&app.pool)
    .await
    .unwrap();
}

#[tokio::test]
async fn wrong_counts_are_corrected_by_the_command_line() {
    let app = Setup::default().without_worker().start().await;
    seed(&app, 5_000).await;
    add_up_all(&app).await;
    seed_more(&app).await; // not compacted yet
    let right = totals(&app).await;
    for damage in [
        "update cart_counts set abandoned = abandoned + 7, recovered_minor = recovered_minor - 1; select forget_cart_days()",
        "delete from cart_counts; select forget_cart_days()",
        "delete from cart_count_deltas where abandoned > 0",
        "update cart_counts set paid = paid + 1, paid_minor = 0, refunded_minor = refunded_minor + 5; select forget_cart_days()",
        "update cart_day_counts set recovered = recovered + 1",
        "delete from cart_day_counts",
        "update cart_totals set abandoned = 0, expired = 5",
        "update cart_totals set currency = 'gbp' where currency = 'eur'",
        "insert into cart_counts (period, currency, abandoned) values ('2024-02-29T00:15:00Z', 'usd', 3); select forget_cart_days()",
        "truncate cart_counts, cart_count_deltas; update cart_totals set abandoned = 0, recovered = 0; update cart_count_progress set horizon = '9999999999'",
    ] {
        app.delete("/api/carts/cart_more").await.data(200);
        seed_more(&app).await;
        sqlx::raw_sql(damage).execute(&app.pool).await.unwrap();
        assert!(totals(&app).await != right, "{damage}");
        let output =
            tests::processes::run("worker", &["rollup", "--all"], [("DATABASE_URL", app.database.url.clone())]).await;
        assert!(output.status.success());
        let line = String::from_utf8(output.stdout).unwrap();
        assert!(line.starts_with("counted 5001 carts"), "{line}");
        assert!(totals(&app).await == right, "{damage}");
        add_up_all(&app).await;
        assert!(totals(&app).await == right, "{damage}, added up");
    }
    let again = analytics::correct(&mut connection(&app.pool).await).await.unwrap();
    assert_eq!((again.carts, again.corrected), (5_001, 0), "nothing is wrong any more");
}

/// A dump of another server: its transaction ids are higher than this server's.
#[tokio::test]
async fn counts_of_a_restored_dump_stay_exact() {
    let app = Setup::default().without_worker().start().await;
    seed(&app, 1_000).await;
    add_up_all(&app).await;
    seed_more(&app).await; // not compacted yet
    let right = totals(&app).await;
    let restored =
        "update cart_count_progress set horizon = '4000000000'; update cart_count_deltas set xid = '4000000007'";
    sqlx::raw_sql(restored).execute(&app.pool).await.unwrap();
    assert_eq!(totals(&app).await, right);
    let id = app.cart().await;
    let with_one_more = totals(&app).await;
    assert_eq!(with_one_more.1[0], right.1[0].as_i64().unwrap() + 1);
    // This server's transactions have passed that horizon, and no counts were added up meanwhile.
    sqlx::query("update cart_count_progress set horizon = pg_current_xact_id()").execute(&app.pool).await.unwrap();
    assert_eq!(totals(&app).await, with_one_more);
    let corrected = analytics::correct(&mut connection(&app.pool).await).await.unwrap();
    assert_eq!(corrected.corrected, 0, "{corrected:?}");
    for _ in 0..3 {
        analytics::add_up(&mut connection(&app.pool).await).await.unwrap();
        assert_eq!(totals(&app).await, with_one_more);
    }
    app.delete(&format!("/api/carts/{id}")).await.data(200);
    assert_eq!(totals(&app).await, right);
}

/// Lists and analytics stay fast without a worker: the api adds up the deltas that it would read
/// repeatedly.
#[tokio::test]
async fn lists_and_analytics_add_up_the_deltas_they_read() {
    for path in ["/api/carts", "/api/analytics"] {
        reading_adds_up(path).await;
    }
}

async fn reading_adds_up(path: &str) {
    let app = Setup::default().without_worker().start().await;
    let many = "insert into cart_count_deltas (period, currency) select cart_count_period(now()), 'usd' from generate_series(1, 2000)";
    seed(&app, 30).await;
    let right = totals(&app).await;
    sqlx::query(many).execute(&app.pool).await.unwrap();
    eventually("the deltas are added up", async || {
        app.get(path).await.data(200);
        sqlx::query_scalar::<_, i64>("select count(*) from cart_count_deltas").fetch_one(&app.pool).await.unwrap() == 0
    })
    .await;
    assert_eq!(totals(&app).await, right);
}

/// A backup keeps a snapshot open, and another transaction writes for long.
#[tokio::test]
async fn open_snapshots_and_long_transactions_see_exact_counts() {
    let app = Setup::default().without_worker().start().await;
    let total = "select coalesce(sum(abandoned), 0)::bigint from cart_status_counts";
    let (mut backup, mut long) = (transaction(&app.pool).await, transaction(&app.pool).await);
    sqlx::query("set transaction isolation level repeatable read").execute(&mut backup).await.unwrap();
    let seen: i64 = sqlx::query_scalar(total).fetch_one(&mut backup).await.unwrap();
    let store = "insert into carts (id, customer_email, customer_name, items, total_minor, currency) values ('cart_long', 'e', 'n', '[]', 1, 'usd')";
    sqlx::query(store).execute(&mut long).await.unwrap();
    for stored in 1..=5 {
        app.cart().await;
        analytics::add_up(&mut connection(&app.pool).await).await.unwrap();
        assert_eq!(app.get("/api/carts").await.data(200)["pagination"]["total"], json!(stored));
        assert_eq!(sqlx::query_scalar::<_, i64>(total).fetch_one(&mut backup).await.unwrap(), seen);
    }
    long.commit().await.unwrap();
    assert_eq!(app.get("/api/carts").await.data(200)["pagination"]["total"], json!(6));
    add_up_all(&app).await;
    assert_eq!(app.get("/api/carts").await.data(200)["pagination"]["total"], json!(6));
    assert_eq!(sqlx::query_scalar::<_, i64>(total).fetch_one(&mut backup).await.unwrap(), seen);
}

/// Compacts all deltas, once all earlier transactions have ended, in other databases too.
async fn add_up_all(app: &App) {
    eventually("all deltas are added up", async || {
        analytics::add_up(&mut connection(&app.pool).await).await.unwrap();
        sqlx::query_scalar::<_, i64>("select count(*) from cart_count_deltas").fetch_one(&app.pool).await.unwrap() == 0
    })
    .await;
}

async fn seed_more(app: &App) {
    sqlx::query(
        "insert into carts (id, customer_email, customer_name, items, total_minor, currency)
         values ('cart_more', 'e', 'n', '[]', 100, 'usd')",
    )
    .execute(&app.pool)
    .await
    .unwrap();
}

/// Writers and compactions continue while the counts are corrected repeatedly.
#[tokio::test]
async fn correcting_beside_writers_stays_exact() {
    let app = Arc::new(Setup::default().without_worker().start().await);
    seed(&app, 2_000).await;
    add_up_all(&app).await;
    let before = totals(&app).await.1;
    let enough = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..6)
        .map(|_| {
            let (app, enough) = (app.clone(), enough.clone());
            tokio::spawn(async move {
                while !enough.load(Ordering::Acquire) {
                    let id = app.cart().await;
                    app.patch(&format!("/api/carts/{id}"), &json!({"status": "recovered"})).await.data(200);
                    app.delete(&format!("/api/carts/{id}")).await.data(200);
                }
            })
        })
        .collect();
    let adding_up = tokio::spawn({
        let pool = app.pool.clone();
        async move {
            loop {
                analytics::add_up(&mut connection(&pool).await).await.unwrap();
            }
        }
    });
    for _ in 0..10 {
        sqlx::query("update cart_totals set abandoned = abandoned + 1 where currency = 'usd'")
            .execute(&app.pool)
            .await
            .unwrap();
        let corrected = analytics::correct(&mut connection(&app.pool).await).await.unwrap();
        assert_eq!(corrected.corrected, 1, "{corrected:?}");
    }
    enough.store(true, Ordering::Release);
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(!adding_up.is_finished(), "adding up never failed");
    adding_up.abort();
    assert_eq!(totals(&app).await.1, before, "every cart that came is gone again");
}

#[tokio::test]
async fn truncating_waits_for_counts_that_are_being_added_up() {
    let app = Setup::default().without_worker().start().await;
    seed(&app, 10).await;
    let mut adding_up = transaction(&app.pool).await;
    analytics::add_up(&mut adding_up).await.unwrap();
    let truncating = tokio::spawn({
        let pool = app.pool.clone();
        async move { sqlx::query("truncate carts cascade").execute(&pool).await }
    });
    eventually("it waits, or is done", async || {
        let waiting =
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        truncating.is_finished() || sqlx::query_scalar::<_, i64>(waiting).fetch_one(&app.pool).await.unwrap() > 0
    })
    .await;
    adding_up.commit().await.unwrap();
    truncating.await.unwrap().unwrap();
    let empty = totals(&app).await.0;
    assert_eq!((&empty[0]["summary"]["totalAbandoned"], &empty[0]["currencies"]), (&json!(0), &json!([])));
}
