mod history;
mod model;

use chrono::NaiveDate;
use chrono_tz::Tz;
use serde_json::{Value, json};
use tests::{App, Setup, a_cart, connection};

use self::model::{ZONES, counted};
use crate::dashboard::Operator;

fn abandoned(at: &str, price: &str) -> Value {
    let mut cart = a_cart();
    cart["abandonedAt"] = json!(at);
    cart["items"] = json!([{"name": "x", "quantity": 1, "price": serde_json::from_str::<Value>(price).unwrap()}]);
    cart
}

#[tokio::test]
async fn days_are_utc_by_default_and_every_day_has_a_row() {
    let app = Setup::default().at("2026-03-10T12:00:00Z").without_worker().start().await;
    app.cart_of(&abandoned("2026-03-08T23:30:00-02:00", "10.10")).await; // the 9th in UTC
    let id = app.cart_of(&abandoned("2026-03-08T00:00:00Z", "0.20")).await;
    app.cart_of(&abandoned("2026-03-07T23:59:59.999999Z", "5")).await; // outside
    let body = json!({"status": "recovered", "recoveredAt": "2026-03-10T01:00:00Z"});
    app.patch(&format!("/api/carts/{id}"), &body).await.data(200);
    let data = app.get("/api/analytics?startDate=2026-03-08").await.data(200);
    // Compared as text, because a float would lose digits.
    let expected = r#"{
        "currency": "usd", "currencies": ["usd"], "timeZone": "UTC",
        "summary": {"totalAbandoned": 2, "totalRecovered": 1, "recoveryRate": 50.0, "totalAbandonedValue": 10.30, "totalRecoveredValue": 0.20,
            "cohortRecovered": 1, "cohortRecoveryRate": 50.0, "averageRecoverySeconds": 176400, "recoveredByPayment": 0, "recoveredByPaymentValue": 0.00, "refundedValue": 0.00},
        "dailyStats": [
            {"date": "2026-03-08", "abandoned": 1, "recovered": 0, "abandonedValue": 0.20, "recoveredValue": 0.00,
                "cohortRecovered": 1, "recoveredByPayment": 0, "recoveredByPaymentValue": 0.00, "refundedValue": 0.00},
            {"date": "2026-03-09", "abandoned": 1, "recovered": 0, "abandonedValue": 10.10, "recoveredValue": 0.00,
                "cohortRecovered": 0, "recoveredByPayment": 0, "recoveredByPaymentValue": 0.00, "refundedValue": 0.00},
            {"date": "2026-03-10", "abandoned": 0, "recovered": 1, "abandonedValue": 0.00, "recoveredValue": 0.20,
                "cohortRecovered": 0, "recoveredByPayment": 0, "recoveredByPaymentValue": 0.00, "refundedValue": 0.00}]}"#;
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
        "currency=dollars",
        "currency=us",
        "currency=zzz",
    ] {
        app.get(&format!("/api/analytics?{bad}")).await.is_error(400, "BAD_REQUEST");
    }
}

#[tokio::test]
async fn today_and_the_days_of_instants_are_those_of_the_zone() {
    let mut app = Setup::default().at("2026-03-10T12:00:00Z").without_worker().start().await;
    let ranges = [
        ("Pacific/Apia", "?period=7d", "2026-03-05", "2026-03-11"), // 13 hours ahead
        ("Pacific/Apia", "?startDate=2026-03-09T10:59:59Z", "2026-03-09", "2026-03-11"),
        ("Pacific/Apia", "?startDate=2026-03-09T11:00:00Z", "2026-03-10", "2026-03-11"),
        ("Pacific/Apia", "?startDate=2026-03-09&endDate=2026-03-10T00:00:00%2B13:00", "2026-03-09", "2026-03-10"),
        ("America/New_York", "?startDate=2026-03-08T04:59:59Z", "2026-03-07", "2026-03-10"),
        ("America/New_York", "?endDate=2026-03-09T04:00:00Z", "2026-02-08", "2026-03-09"),
    ];
    for (zone, query, first, last) in ranges {
        app.address = app.api_beside("TIME_ZONE", zone).await;
        let answer = app.get(&format!("/api/analytics{query}")).await.data(200);
        let days = answer["dailyStats"].as_array().unwrap();
        let ends = (&days[0]["date"], &days.last().unwrap()["date"]);
        assert_eq!((ends, &answer["timeZone"]), ((&json!(first), &json!(last)), &json!(zone)), "{query}");
    }
}

/// Two carts in each quarter of an hour from two days before the date until two days after it.
async fn two_carts_a_quarter(app: &App, date: &str) {
    sqlx::raw_sql("truncate carts cascade").execute(&app.pool).await.unwrap();
    sqlx::query(
        "insert into carts (id, customer_email, customer_name, items, total_minor, currency, status, recovered_at, abandoned_at)
         select 'cart_' || at, 'e', 'n', '[]', 1, 'usd', 'recovered', at, at
         from (select generate_series($1::timestamptz - interval '2 days', $1::timestamptz + interval '3 days', '15 minutes') as quarter) q
         cross join lateral (values (quarter), (quarter + interval '899.999999 s')) carts (at)",
    )
    .bind(date.parse::<NaiveDate>().unwrap().and_time(chrono::NaiveTime::MIN).and_utc())
    .execute(&app.pool)
    .await
    .unwrap();
}

#[tokio::test]
async fn days_of_any_length_are_exact() {
    let mut app = Setup::default().at("2026-11-10T12:00:00Z").without_worker().start().await;
    for (zone, date, hours) in [
        ("UTC", "2026-03-08", 24),
        ("America/New_York", "2026-03-08", 23),
        ("America/New_York", "2026-11-01", 25),
        ("Australia/Sydney", "2026-10-04", 23),
        ("Australia/Sydney", "2026-04-05", 25),
        ("Africa/Cairo", "2026-04-24", 23), // without a midnight
        ("Africa/Cairo", "2026-10-29", 25),
        ("Asia/Beirut", "2026-03-29", 23), // without a midnight
        ("Asia/Beirut", "2026-10-24", 25),
        ("Asia/Kathmandu", "2026-03-29", 24),
        ("Pacific/Apia", "2011-12-29", 24),
        ("Pacific/Apia", "2011-12-30", 0), // skipped
        ("Pacific/Apia", "2011-12-31", 24),
    ] {
        two_carts_a_quarter(&app, date).await;
        app.address = app.api_beside("TIME_ZONE", zone).await;
        for around in [false, true] {
            let day = date.parse::<NaiveDate>().unwrap();
            let (first, last) = if around { (day.pred_opt().unwrap(), day.succ_opt().unwrap()) } else { (day, day) };
            let answer = app.get(&format!("/api/analytics?startDate={first}&endDate={last}")).await.data(200);
            let stats = answer["dailyStats"].as_array().unwrap().iter().find(|stats| stats["date"] == date).unwrap();
            let found = (&stats["abandoned"], &stats["recovered"]);
            assert_eq!(found, (&json!(hours * 8), &json!(hours * 8)), "{date} in {zone}");
            let zone: Tz = zone.parse().unwrap();
            assert_eq!(answer, counted(&app.pool, zone, "usd", first, last).await, "{date} in {zone}");
        }
    }
}

#[tokio::test]
async fn another_time_zone_needs_no_count_of_carts() {
    let mut app = Setup::default().at("2026-11-10T12:00:00Z").without_worker().start().await;
    let (first, day) = (app.address, "2026-10-30".parse::<NaiveDate>().unwrap());
    two_carts_a_quarter(&app, "2026-11-01").await;
    for zone in ZONES {
        let another = app.api_beside("TIME_ZONE", zone.name()).await;
        // A change through one api shows at once through the other.
        for _ in 0..2 {
            app.address = first;
            app.cart_of(&abandoned("2026-11-01T04:14:59.999999Z", "0.01")).await;
            for (address, zone) in [(first, Tz::UTC), (another, zone)] {
                app.address = address;
                let today = common::time_zone::date(app.now(), zone);
                let answer = app.get(&format!("/api/analytics?startDate={day}")).await.data(200);
                assert_eq!(answer, counted(&app.pool, zone, "usd", day, today).await, "{zone}");
            }
            common::analytics::add_up(&mut connection(&app.pool).await).await.unwrap();
        }
    }
}

#[tokio::test]
async fn the_overview_offers_currencies_and_shows_local_times() {
    let setup = Setup::default().at("2026-03-10T12:00:00Z").set("TIME_ZONE", "Asia/Kathmandu");
    let app = setup.without_worker().start().await;
    let id = app.cart_of(&abandoned("2026-03-09T18:14:59Z", "7")).await; // the 9th, 23:59:59
    let operator = Operator::sign_in(&app, "test-key").await;
    let page = operator.get("/").await.text;
    assert!(!page.contains("name=\"currency\""), "{page}");
    let time = r#"title="9 March 2026, 23:59:59 +05:45">9 Mar 2026, 23:59</time>"#;
    let created = r#"title="10 March 2026, 17:45:00 +05:45">10 Mar 2026, 17:45</time>"#;
    let moment = r#"title="9 March 2026, 23:59:59 +05:45">9 Mar 2026, 23:59:59</time>"#;
    let cart = format!("/carts/{id}");
    for (path, time) in [("/", created), ("/carts", created), ("/carts?date=abandoned", time), (&cart, moment)] {
        let page = operator.get(path).await.text;
        assert!(page.contains(time) && page.contains("Asia/Kathmandu.</span>"), "{path}: {page}");
    }
    sqlx::query("update carts set currency = 'jpy'").execute(&app.pool).await.unwrap();
    let page = operator.get("/?period=7d").await.text;
    for option in [r#"<option value="jpy">JPY"#, r#"<option value="usd" selected>USD"#, r#"name="period" value="7d""#] {
        assert!(page.contains(option), "{option}: {page}");
    }
    let page = operator.get("/?period=7d&currency=JPY").await.text;
    assert!(page.contains(r#"<option value="jpy" selected>"#) && page.contains("700"), "{page}");
    assert!(page.contains(r#"href="/?period=90d&amp;currency=jpy""#), "{page}");
    assert_eq!(operator.get("/?currency=gold").await.status, 400);
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
        sqlx::query("select forget_cart_days()").execute(&app.pool).await.unwrap();
        let first = app.get("/api/analytics?period=7d"); // adds the days up again
        let (_, again) =
            tokio::join!(first, async { common::analytics::add_up(&mut connection(&app.pool).await).await });
        added += again.unwrap();
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
