//! Building the ledger from nothing.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use common::{
    analytics::{self, rebuild},
    db::Database,
};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{App, Setup, connection};

async fn totals(app: &App) -> (Value, Vec<Value>) {
    let mut totals = Vec::new();
    for status in ["?status=abandoned", "?status=recovered", "?status=expired", ""] {
        totals.push(app.get(&format!("/api/carts{status}")).await.data(200)["pagination"]["total"].clone());
    }
    // Not through the harness, which knows that nothing is worth less than nothing: here it may be, until it is mended.
    // Up to a day in the future, so that midnight adds none.
    let answer =
        app.request(Method::GET, "/api/analytics?startDate=2020-01-01&endDate=2029-12-31").send().await.unwrap();
    (answer.json::<Value>().await.unwrap()["data"].clone(), totals)
}

async fn seed(app: &App, carts: i64) {
    sqlx::query(
        "insert into carts (id, customer_email, customer_name, items, total_minor, currency, status, abandoned_at, recovered_at)
         select 'cart_' || n, 'e', 'n', '[]', n, 'usd', case when n % 3 = 0 then 'recovered' else 'abandoned' end,
                now() - (n % 100) * interval '1 day', case when n % 3 = 0 then now() - (n % 50) * interval '1 day' end
         from generate_series(1, $1) n",
    )
    .bind(carts)
    .execute(&app.pool)
    .await
    .unwrap();
}

#[tokio::test]
async fn a_damaged_ledger_is_built_anew_by_the_command_line() {
    let app = Setup::default().without_worker().start().await;
    seed(&app, 5_000).await;
    analytics::fold(&mut connection(&app.pool).await).await.unwrap();
    seed_more(&app).await; // not folded yet
    let right = totals(&app).await;
    for damage in [
        "update cart_day_counts set abandoned = abandoned + 7, recovered_minor = recovered_minor - 1 where slot = 0",
        "delete from cart_day_counts where slot = 0",
        "update cart_status_counts set abandoned = 0, expired = 5",
        "insert into cart_day_counts (day, currency, slot, abandoned) values ('2024-02-29', 'usd', 0, 3)",
    ] {
        sqlx::query(damage).execute(&app.pool).await.unwrap();
        assert_ne!(totals(&app).await, right, "{damage}");
        let output =
            tests::processes::run("worker", &["rollup", "--all"], [("DATABASE_URL", app.database.url.clone())]).await;
        assert!(output.status.success());
        let (told, shown) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(told.starts_with("counted 5001 carts") && shown.contains("100 %"), "{told}{shown}");
        assert_eq!(totals(&app).await, right, "{damage}");
    }
    let again = rebuild::rebuild(&Database::from(app.pool.clone()), |_| ()).await.unwrap();
    assert_eq!((again.carts, again.corrected, again.totals_corrected), (5_001, 0, false), "nothing is wrong any more");
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

/// Everybody goes on writing, folding included, while it is built again and again.
#[tokio::test]
async fn building_it_anew_beside_writers_and_folders_stays_exact() {
    let app = Arc::new(Setup::default().without_worker().start().await);
    seed(&app, 2_000).await;
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
    let folder = tokio::spawn({
        let pool = app.pool.clone();
        async move {
            loop {
                analytics::fold(&mut connection(&pool).await).await.unwrap();
            }
        }
    });
    for _ in 0..10 {
        sqlx::query("update cart_status_counts set abandoned = abandoned + 1").execute(&app.pool).await.unwrap();
        let rebuilt = rebuild::rebuild(&Database::from(app.pool.clone()), |_| ()).await.unwrap();
        assert!(rebuilt.totals_corrected && rebuilt.corrected == 0, "{rebuilt:?}");
    }
    enough.store(true, Ordering::Release);
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(!folder.is_finished(), "folding never failed");
    folder.abort();
    assert_eq!(totals(&app).await.1, before, "every cart that came is gone again");
}
