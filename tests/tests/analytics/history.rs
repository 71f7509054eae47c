//! Random histories of carts, with compactions and an operator's own SQL.

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use chrono_tz::Tz;
use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config, TestRunner},
};
use rust_decimal::Decimal;
use serde_json::json;
use tests::{App, Setup, connection};

use super::{
    abandoned,
    model::{ZONES, counted},
};

const NOW: &str = "2026-11-10T12:00:00Z";
const FIRST_DAY: &str = "2026-03-01";
const CURRENCIES: [&str; 3] = ["usd", "eur", "jpy"];

/// Instants at which days of 23 and 25 hours start, or clocks change.
const EDGES: [&str; 14] = [
    "2026-03-08T05:00:00Z", // New York
    "2026-03-09T04:00:00Z",
    "2026-11-01T04:00:00Z",
    "2026-11-02T05:00:00Z",
    "2026-04-04T13:00:00Z", // Sydney
    "2026-04-05T14:00:00Z",
    "2026-10-03T14:00:00Z",
    "2026-10-04T13:00:00Z",
    "2026-04-23T22:00:00Z", // Cairo
    "2026-10-29T21:00:00Z",
    "2026-03-28T22:00:00Z", // Beirut
    "2026-10-24T21:00:00Z",
    "2026-06-01T18:15:00Z", // Kathmandu
    "2026-06-01T11:00:00Z", // Apia
];

/// A change of the carts by an operator or a client.
#[derive(Debug, Clone)]
enum Step {
    Create { at: DateTime<Utc>, minor: i64, currency: &'static str },
    Recover { cart: usize, at: DateTime<Utc> },
    Expire { cart: usize },
    Delete { cart: usize },
    HandMade(&'static str),
    RollUp,
    Correct,
}

fn instant() -> impl Strategy<Value = DateTime<Utc>> {
    let now: DateTime<Utc> = NOW.parse().unwrap();
    let edge = (select(&EDGES), select(vec![-3_600_000_001_i64, -900_000_000, -1, 0, 1, 899_999_999, 3_600_000_000]));
    prop_oneof![
        (1..260 * 86_400_000_000_i64).prop_map(move |ago| now - TimeDelta::microseconds(ago)),
        edge.prop_map(|(edge, from)| edge.parse::<DateTime<Utc>>().unwrap() + TimeDelta::microseconds(from)),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let hand_made = prop_oneof![
        3 => Just("update carts set abandoned_at = abandoned_at - interval '3 days' where random() < 0.3"),
        3 => Just("update carts set total_minor = total_minor + 1 where random() < 0.3"),
        3 => Just("update carts set status = 'abandoned' where random() < 0.3"),
        3 => Just("update carts set status = 'recovered' where random() < 0.3"),
        3 => Just("update carts set status_reason = 'payment' where random() < 0.5"),
        2 => Just("update carts set status_reason = 'operator' where random() < 0.2"),
        3 => Just("update carts set refunded_minor = coalesce(refunded_minor, 0) + 7 where random() < 0.3"),
        1 => Just("update carts set refunded_minor = null where random() < 0.3"),
        2 => Just("update carts set currency = (array['usd', 'eur', 'jpy'])[1 + random() * 2] where random() < 0.3"),
        2 => Just("delete from carts where random() < 0.2"),
        1 => Just("delete from carts where currency = 'eur'"),
        1 => Just("truncate carts cascade"),
    ];
    let create = (instant(), 0..10_000_000_i64, select(&CURRENCIES));
    let step = prop_oneof![
        8 => create.prop_map(|(at, minor, currency)| Step::Create { at, minor, currency }),
        4 => (any::<usize>(), instant()).prop_map(|(cart, at)| Step::Recover { cart, at }),
        2 => any::<usize>().prop_map(|cart| Step::Expire { cart }),
        2 => any::<usize>().prop_map(|cart| Step::Delete { cart }),
        6 => hand_made.prop_map(Step::HandMade),
        1 => Just(Step::RollUp),
        1 => Just(Step::Correct),
    ];
    proptest::collection::vec(step, 1..50)
}

async fn take(app: &App, step: &Step, ids: &mut Vec<String>) {
    let chosen = |cart: usize, ids: &[String]| if ids.is_empty() { None } else { Some(ids[cart % ids.len()].clone()) };
    match *step {
        Step::Create { at, minor, currency } => {
            let price = Decimal::new(minor, if currency == "jpy" { 0 } else { 2 }).to_string();
            let mut cart = abandoned(&at.to_rfc3339(), &price);
            cart["currency"] = json!(currency);
            ids.push(app.cart_of(&cart).await);
        }
        Step::Recover { cart, at } => {
            if let Some(id) = chosen(cart, ids) {
                let body = json!({"status": "recovered", "recoveredAt": at});
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
        Step::HandMade(sql) => {
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

/// The response of `/api/analytics` for each of the currencies, and the totals of the lists, equal a count.
async fn check(app: &App, zone: Tz, currencies: &[&str]) -> Result<(), TestCaseError> {
    let (first, last): (NaiveDate, NaiveDate) =
        (FIRST_DAY.parse().unwrap(), app.now().with_timezone(&zone).date_naive());
    for currency in currencies {
        let answer = app.get(&format!("/api/analytics?startDate={first}&currency={currency}")).await.data(200);
        prop_assert_eq!(answer, counted(&app.pool, zone, currency, first, last).await, "{} in {}", currency, zone);
    }
    for status in ["abandoned", "recovered", "expired", ""] {
        let count = sqlx::query_scalar::<_, i64>("select count(*) from carts where $1 in (status, '')").bind(status);
        let total = count.fetch_one(&app.pool).await.unwrap();
        let list = app.get(&format!("/api/carts?status={status}")).await.data(200);
        prop_assert_eq!(&list["pagination"]["total"], &json!(total));
    }
    Ok(())
}

/// After every step of a random history, the responses equal a count; at its end in another zone,
/// too.
#[test]
fn analytics_and_totals_equal_a_count_at_any_moment() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = TestRunner::new(Config { cases: 12, ..Config::with_source_file(file!()) });
    runner
        .run(&(select(&ZONES), select(&ZONES), steps()), |(zone, another, steps)| {
            runtime.block_on(async {
                let mut app = Setup::default().at(NOW).without_worker().start().await;
                app.address = app.api_beside("TIME_ZONE", zone.name()).await;
                let mut ids = Vec::new();
                for (step, currency) in steps.iter().zip(CURRENCIES.iter().cycle()) {
                    take(&app, step, &mut ids).await;
                    check(&app, zone, &[currency]).await?;
                }
                app.address = app.api_beside("TIME_ZONE", another.name()).await;
                check(&app, another, &CURRENCIES).await
            })
        })
        .unwrap();
}
