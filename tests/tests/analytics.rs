use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};
use sqlx::PgPool;
use tests::{App, Setup, a_cart, connection};

fn abandoned(at: &str, price: &str) -> Value {
    let mut cart = a_cart();
    cart["abandonedAt"] = json!(at);
    cart["items"] = json!([{"name": "x", "quantity": 1, "price": serde_json::from_str::<Value>(price).unwrap()}]);
    cart
}

#[tokio::test]
async fn days_are_utc_and_every_day_has_a_row() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").without_worker().start().await;
    app.cart_of(&abandoned("2026-03-08T23:30:00-02:00", "10.10")).await; // the 9th in UTC
    let id = app.cart_of(&abandoned("2026-03-08T00:00:00Z", "0.20")).await;
    app.cart_of(&abandoned("2026-03-07T23:59:59.999999Z", "5")).await; // outside
    let body = json!({"status": "recovered", "recoveredAt": "2026-03-10T01:00:00Z"});
    app.patch(&format!("/api/carts/{id}"), &body).await.data(200);
    let data = app.get("/api/analytics?startDate=2026-03-08").await.data(200);
    // Compared as text, because a float would lose digits.
    let expected = r#"{
        "currency": "usd",
        "summary": {"totalAbandoned": 2, "totalRecovered": 1, "recoveryRate": 50.0, "totalAbandonedValue": 10.30, "totalRecoveredValue": 0.20},
        "dailyStats": [
            {"date": "2026-03-08", "abandoned": 1, "recovered": 0, "abandonedValue": 0.20, "recoveredValue": 0.00},
            {"date": "2026-03-09", "abandoned": 1, "recovered": 0, "abandonedValue": 10.10, "recoveredValue": 0.00},
            {"date": "2026-03-10", "abandoned": 0, "recovered": 1, "abandonedValue": 0.00, "recoveredValue": 0.20}]}"#;
    assert_eq!(data, serde_json::from_str::<Value>(expected).unwrap());
}

#[tokio::test]
async fn date_ranges_follow_the_contract() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").without_worker().start().await;
    for (query, first, last) in [
        ("", "2026-02-09", "2026-03-10"),
        ("?period=7d", "2026-03-04", "2026-03-10"),
        ("?period=30d", "2026-02-09", "2026-03-10"),
        ("?period=90d", "2025-12-11", "2026-03-10"),
        ("?startDate=2026-03-01", "2026-03-01", "2026-03-10"),
        ("?endDate=2026-01-31", "2026-01-02", "2026-01-31"),
        ("?startDate=2026-01-01T23:30:00-01:00&endDate=2026-01-03T00:00:00Z", "2026-01-02", "2026-01-03"),
        ("?startDate=2026-01-02T00:30:00+01:00&endDate=2026-01-02", "2026-01-01", "2026-01-02"),
        ("?startDate=2016-03-04&endDate=2026-03-10", "2016-03-04", "2026-03-10"),
        ("?startDate=2026-03-09&endDate=2026-03-12", "2026-03-09", "2026-03-12"),
    ] {
        let days = app.get(&format!("/api/analytics{query}")).await.data(200)["dailyStats"].as_array().unwrap().clone();
        assert_eq!(days[0]["date"], json!(first), "{query}");
        assert_eq!(days.last().unwrap()["date"], json!(last), "{query}");
        let date = |text: &str| text.parse::<NaiveDate>().unwrap();
        assert_eq!(i64::try_from(days.len()).unwrap(), (date(last) - date(first)).num_days() + 1, "{query}");
    }
    for bad in [
        "period=8d",
        "period=7d&startDate=2026-01-01",
        "startDate=2026-03-11",
        "startDate=2026-02-30",
        "startDate=tomorrow",
        "startDate=2016-03-02&endDate=2026-03-10",
    ] {
        app.get(&format!("/api/analytics?{bad}")).await.is_error(400, "BAD_REQUEST");
    }
}

/// A change of the carts by an operator or a client.
#[derive(Debug, Clone)]
enum Step {
    Create { days_ago: u64, minor: i64 },
    Recover { cart: usize, days_ago: u64 },
    Expire { cart: usize },
    Delete { cart: usize },
    HandMade(HandMade),
    RollUp,
    Correct,
}

#[derive(Debug, Clone, Copy)]
enum HandMade {
    MoveDay,
    Revalue,
    Reopen,
    Recover,
    DeleteSome,
    Truncate,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let hand_made = prop_oneof![
        5 => Just(HandMade::MoveDay), 5 => Just(HandMade::Revalue), 5 => Just(HandMade::Reopen),
        5 => Just(HandMade::Recover), 3 => Just(HandMade::DeleteSome), 1 => Just(HandMade::Truncate),
    ];
    let step = prop_oneof![
        8 => (0..120_u64, 0..10_000_000_i64).prop_map(|(days_ago, minor)| Step::Create { days_ago, minor }),
        4 => (any::<usize>(), 0..120_u64).prop_map(|(cart, days_ago)| Step::Recover { cart, days_ago }),
        2 => any::<usize>().prop_map(|cart| Step::Expire { cart }),
        2 => any::<usize>().prop_map(|cart| Step::Delete { cart }),
        3 => hand_made.prop_map(Step::HandMade),
        1 => Just(Step::RollUp),
        1 => Just(Step::Correct),
    ];
    proptest::collection::vec(step, 1..60)
}

async fn take(app: &App, step: &Step, ids: &mut Vec<String>) {
    let now = app.now();
    let ago = |days: u64| now.checked_sub_days(Days::new(days)).unwrap() - TimeDelta::minutes(1);
    let chosen = |cart: usize, ids: &[String]| if ids.is_empty() { None } else { Some(ids[cart % ids.len()].clone()) };
    match *step {
        Step::Create { days_ago, minor } => {
            let price = rust_decimal::Decimal::new(minor, 2).to_string();
            ids.push(app.cart_of(&abandoned(&ago(days_ago).to_rfc3339(), &price)).await);
        }
        Step::Recover { cart, days_ago } => {
            if let Some(id) = chosen(cart, ids) {
                let body = json!({"status": "recovered", "recoveredAt": ago(days_ago)});
                app.patch(&format!("/api/carts/{id}"), &body).await; // refused if it is too early or the state is final
            }
        }
        Step::Expire { cart } => {
            if let Some(id) = chosen(cart, ids) {
                app.patch(&format!("/api/carts/{id}"), &json!({"status": "expired"})).await;
            }
        }
        Step::Delete { cart } => {
            if let Some(id) = chosen(cart, ids) {
                app.delete(&format!("/api/carts/{id}")).await;
            }
        }
        Step::HandMade(change) => {
            let sql = match change {
                HandMade::MoveDay => {
                    "update carts set abandoned_at = abandoned_at - interval '3 days' where random() < 0.3"
                }
                HandMade::Revalue => "update carts set total_minor = total_minor + 1 where random() < 0.3",
                HandMade::Reopen => "update carts set status = 'abandoned' where random() < 0.3",
                HandMade::Recover => "update carts set status = 'recovered' where random() < 0.3",
                HandMade::DeleteSome => "delete from carts where random() < 0.2",
                HandMade::Truncate => "truncate carts cascade",
            };
            sqlx::query(sql).execute(&app.pool).await.unwrap();
        }
        Step::Correct => {
            let corrected = common::analytics::correct(&mut connection(&app.pool).await).await.unwrap();
            assert_eq!(corrected.corrected, 0, "it was right before");
        }
        Step::RollUp => {
            common::analytics::add_up(&mut connection(&app.pool).await).await.unwrap();
        }
    }
}

/// The expected response, counted row by row.
async fn counted(pool: &PgPool, today: NaiveDate) -> (Value, Vec<i64>) {
    type Row = (DateTime<Utc>, Option<DateTime<Utc>>, String, i64);
    let rows: Vec<Row> = sqlx::query_as("select abandoned_at, recovered_at, status, total_minor from carts")
        .fetch_all(pool)
        .await
        .unwrap();
    let days: Vec<Value> = (0..90)
        .rev()
        .map(|ago| {
            let day = today.checked_sub_days(Days::new(ago)).unwrap();
            let sum = |rows: &[&Row]| {
                let minor: i64 = rows.iter().map(|row| row.3).sum();
                serde_json::from_str::<Value>(&rust_decimal::Decimal::new(minor, 2).to_string()).unwrap()
            };
            let abandoned: Vec<&Row> = rows.iter().filter(|row| row.0.date_naive() == day).collect();
            let recovered: Vec<&Row> = rows
                .iter()
                .filter(|row| row.2 == "recovered" && row.1.is_some_and(|at| at.date_naive() == day))
                .collect();
            json!({
                "date": day, "abandoned": abandoned.len(), "recovered": recovered.len(),
                "abandonedValue": sum(&abandoned), "recoveredValue": sum(&recovered),
            })
        })
        .collect();
    let of = |status: &str| i64::try_from(rows.iter().filter(|row| row.2 == status).count()).unwrap();
    (Value::Array(days), vec![of("abandoned"), of("recovered"), of("expired"), i64::try_from(rows.len()).unwrap()])
}

/// A random history with compactions and an operator's own SQL: after every step, the responses
/// equal a count.
#[test]
fn analytics_and_totals_equal_a_count_at_any_moment() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = TestRunner::new(Config { cases: 12, ..Config::with_source_file(file!()) });
    runner
        .run(&steps(), |steps| {
            runtime.block_on(async {
                let app = Setup::default().at("2026-03-10T12:00:00Z").without_worker().start().await;
                let mut ids = Vec::new();
                for step in &steps {
                    take(&app, step, &mut ids).await;
                    let (days, totals) = counted(&app.pool, app.now().date_naive()).await;
                    let answer = app.get("/api/analytics?period=90d").await.data(200);
                    prop_assert_eq!(&answer["dailyStats"], &days);
                    for (status, total) in
                        ["?status=abandoned", "?status=recovered", "?status=expired", ""].iter().zip(totals)
                    {
                        let list = app.get(&format!("/api/carts{status}")).await.data(200);
                        prop_assert_eq!(&list["pagination"]["total"], &json!(total));
                    }
                }
                Ok(())
            })
        })
        .unwrap();
}

#[tokio::test]
async fn compaction_beside_writers_loses_no_counts() {
    let app = std::sync::Arc::new(Setup::default().without_worker().start().await);
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let app = app.clone();
            tokio::spawn(async move {
                for _ in 0..25 {
                    let id = app.cart().await;
                    app.patch(&format!("/api/carts/{id}"), &json!({"status": "recovered"})).await.data(200);
                }
            })
        })
        .collect();
    let mut added = 0;
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        added += common::analytics::add_up(&mut connection(&app.pool).await).await.unwrap();
        let answer = app.get("/api/analytics?period=7d").await.data(200);
        assert!(answer["summary"]["totalAbandoned"].as_i64() >= answer["summary"]["totalRecovered"].as_i64());
    }
    for writer in writers {
        writer.await.unwrap();
    }
    added += common::analytics::add_up(&mut connection(&app.pool).await).await.unwrap();
    assert!(added > 0);
    let summary = app.get("/api/analytics?period=7d").await.data(200)["summary"].clone();
    assert_eq!((&summary["totalAbandoned"], &summary["totalRecovered"]), (&json!(200), &json!(200)));
    assert_eq!(summary["totalRecoveredValue"].to_string(), "19996.00");
}
