//! The expected response of analytics, counted cart by cart.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use sqlx::PgPool;

/// Zones with days of 23 and 25 hours, with days without a midnight, and with odd offsets.
pub(crate) const ZONES: [Tz; 8] = [
    Tz::UTC,
    Tz::Australia__Sydney,
    Tz::America__New_York,
    Tz::Africa__Cairo,
    Tz::Asia__Beirut,
    Tz::Asia__Kathmandu,
    Tz::Pacific__Apia,
    Tz::America__St_Johns,
];

#[derive(Debug, sqlx::FromRow)]
struct Cart {
    abandoned_at: DateTime<Utc>,
    recovered_at: Option<DateTime<Utc>>,
    status_reason: Option<String>,
    total_minor: i64,
    refunded_minor: Option<i64>,
    currency: String,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    abandoned: i64,
    recovered: i64,
    paid: i64,
    abandoned_minor: i64,
    cohort_recovered: i64,
    recovered_minor: i64,
    recovery_microseconds: i64,
    paid_minor: i64,
    refunded_minor: i64,
}

impl Counts {
    fn abandon(&mut self, cart: &Cart) {
        self.abandoned += 1;
        self.abandoned_minor += cart.total_minor;
        self.cohort_recovered += i64::from(cart.recovered_at.is_some());
    }

    fn recover(&mut self, cart: &Cart) {
        self.recovered += 1;
        self.recovered_minor += cart.total_minor;
        let took = cart.recovered_at.map(|recovered| recovered - cart.abandoned_at);
        self.recovery_microseconds += took.and_then(|took| took.num_microseconds()).unwrap();
        self.refunded_minor += cart.refunded_minor.unwrap_or(0);
        if cart.status_reason.as_deref() == Some("payment") {
            self.paid += 1;
            self.paid_minor += cart.total_minor;
        }
    }
}

/// A JSON number with all decimals.
fn number(units: i64, decimals: u32) -> Value {
    serde_json::from_str(&Decimal::new(units, decimals).to_string()).unwrap()
}

/// The expected response for the days from `first` to `last`.
pub(crate) async fn counted(pool: &PgPool, zone: Tz, currency: &str, first: NaiveDate, last: NaiveDate) -> Value {
    let all = "select abandoned_at, recovered_at, status_reason, total_minor, refunded_minor, currency from carts";
    let carts: Vec<Cart> = sqlx::query_as(all).fetch_all(pool).await.unwrap();
    let date = |at: DateTime<Utc>| at.with_timezone(&zone).date_naive();
    let mut sum = Counts::default();
    let mut days: BTreeMap<NaiveDate, Counts> =
        first.iter_days().take_while(|day| *day <= last).map(|day| (day, Counts::default())).collect();
    for cart in carts.iter().filter(|cart| cart.currency == currency) {
        if let Some(day) = days.get_mut(&date(cart.abandoned_at)) {
            [day, &mut sum].into_iter().for_each(|counts| counts.abandon(cart));
        }
        if let Some(day) = cart.recovered_at.and_then(|at| days.get_mut(&date(at))) {
            [day, &mut sum].into_iter().for_each(|counts| counts.recover(cart));
        }
    }
    let money = |minor: i64| number(minor, if currency == "jpy" { 0 } else { 2 });
    let tenths = |part: i64| if sum.abandoned == 0 { 0 } else { (2_000 * part + sum.abandoned) / (2 * sum.abandoned) };
    let days: Vec<Value> = days
        .iter()
        .map(|(date, day)| {
            json!({
                "date": date, "abandoned": day.abandoned, "recovered": day.recovered,
                "abandonedValue": money(day.abandoned_minor), "recoveredValue": money(day.recovered_minor),
                "cohortRecovered": day.cohort_recovered,
                "recoveredByPayment": day.paid, "recoveredByPaymentValue": money(day.paid_minor),
                "refundedValue": money(day.refunded_minor),
            })
        })
        .collect();
    json!({
        "currency": currency,
        "currencies": carts.iter().map(|cart| &cart.currency).collect::<BTreeSet<_>>(),
        "timeZone": zone.name(),
        "summary": {
            "totalAbandoned": sum.abandoned, "totalRecovered": sum.recovered, "recoveryRate": number(tenths(sum.recovered), 1),
            "totalAbandonedValue": money(sum.abandoned_minor), "totalRecoveredValue": money(sum.recovered_minor),
            "cohortRecovered": sum.cohort_recovered, "cohortRecoveryRate": number(tenths(sum.cohort_recovered), 1),
            "averageRecoverySeconds": sum.recovery_microseconds.checked_div(sum.recovered).map(|average| average / 1_000_000),
            "recoveredByPayment": sum.paid, "recoveredByPaymentValue": money(sum.paid_minor),
            "refundedValue": money(sum.refunded_minor),
        },
        "dailyStats": days,
    })
}
