//! Abandoned and recovered carts by day.
//!
//! The stored counts are exact in every snapshot, and reading them costs time by the length of the
//! period, not by the number of carts (`migrations/20261129000003_cart_counts.sql`).

use chrono::{Days, NaiveDate};
use chrono_tz::Tz;
use rust_decimal::{Decimal, prelude::ToPrimitive};
use serde::{Serialize, Serializer};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use crate::db::Connection;
use crate::money::{Amount, Currency};

mod funnel;

pub use funnel::{Funnel, funnel};

/// The counts of one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({"date": "2026-03-01", "abandoned": 10, "recovered": 3, "abandonedValue": 999.80,
    "recoveredValue": 299.94, "cohortRecovered": 4, "recoveredByPayment": 2, "recoveredByPaymentValue": 199.96,
    "refundedValue": 0}))]
pub struct DayStats {
    /// The date in `timeZone`.
    pub date: NaiveDate,
    /// Carts abandoned on this day, whatever their status now.
    pub abandoned: i64,
    /// Carts recovered on this day.
    pub recovered: i64,
    /// The total value of the abandoned carts.
    pub abandoned_value: Amount,
    /// The total value of the recovered carts.
    pub recovered_value: Amount,
    /// The carts abandoned on this day that are recovered now.
    pub cohort_recovered: i64,
    /// The recovered carts whose payment link was paid, according to Stripe.
    pub recovered_by_payment: i64,
    /// The total value of the carts recovered by payment.
    pub recovered_by_payment_value: Amount,
    /// Refunds and lost disputes of the carts recovered on this day, whenever they happened.
    pub refunded_value: Amount,
}

/// The sums over all days of a period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AnalyticsSummary, example = json!({"totalAbandoned": 10, "totalRecovered": 3, "recoveryRate": 30.0,
    "totalAbandonedValue": 999.80, "totalRecoveredValue": 299.94, "cohortRecovered": 4, "cohortRecoveryRate": 40.0,
    "averageRecoverySeconds": 86400, "recoveredByPayment": 2, "recoveredByPaymentValue": 199.96, "refundedValue": 0}))]
pub struct Summary {
    /// The number of abandoned carts.
    pub total_abandoned: i64,
    /// The number of recovered carts.
    pub total_recovered: i64,
    /// 100 × recovered ÷ abandoned; 0 if no cart was abandoned.
    pub recovery_rate: Rate,
    /// The total value of the abandoned carts.
    pub total_abandoned_value: Amount,
    /// The total value of the recovered carts.
    pub total_recovered_value: Amount,
    /// The number of carts abandoned in the range that are recovered now.
    pub cohort_recovered: i64,
    /// 100 × `cohortRecovered` ÷ `totalAbandoned`: the share of the abandoned carts that came back so
    /// far; 0 if no cart was abandoned.
    pub cohort_recovery_rate: Rate,
    /// The average time from abandonment to recovery of the recovered carts, in whole seconds; null if
    /// no cart was recovered.
    #[schema(required)]
    pub average_recovery_seconds: Option<i64>,
    /// The number of recovered carts whose payment link was paid, according to Stripe.
    pub recovered_by_payment: i64,
    /// The total value of the carts recovered by payment.
    pub recovered_by_payment_value: Amount,
    /// Refunds and lost disputes of the recovered carts, whenever they happened.
    pub refunded_value: Amount,
}

/// Counts of carts, and sums in minor units, of one day or more.
#[derive(Debug, Default)]
struct Counts {
    /// `None` if there is no count in the whole period.
    day: Option<NaiveDate>,
    /// Whether the days of the time zone are added up.
    is_known: bool,
    /// The number of deltas in it.
    deltas: i64,
    abandoned: i64,
    recovered: i64,
    paid: i64,
    abandoned_minor: Decimal,
    cohort_recovered: i64,
    recovered_minor: Decimal,
    recovery_seconds: Decimal,
    paid_minor: Decimal,
    refunded_minor: Decimal,
}

impl Counts {
    fn add(&mut self, day: &Self) {
        self.deltas += day.deltas;
        self.abandoned += day.abandoned;
        self.recovered += day.recovered;
        self.paid += day.paid;
        self.abandoned_minor += day.abandoned_minor;
        self.cohort_recovered += day.cohort_recovered;
        self.recovered_minor += day.recovered_minor;
        self.recovery_seconds += day.recovery_seconds;
        self.paid_minor += day.paid_minor;
        self.refunded_minor += day.refunded_minor;
    }

    fn day(&self, date: NaiveDate, currency: Currency) -> DayStats {
        DayStats {
            date,
            abandoned: self.abandoned,
            recovered: self.recovered,
            abandoned_value: currency.sum(self.abandoned_minor),
            recovered_value: currency.sum(self.recovered_minor),
            cohort_recovered: self.cohort_recovered,
            recovered_by_payment: self.paid,
            recovered_by_payment_value: currency.sum(self.paid_minor),
            refunded_value: currency.sum(self.refunded_minor),
        }
    }

    fn average_recovery_seconds(&self) -> Option<i64> {
        self.recovery_seconds.checked_div(Decimal::from(self.recovered))?.trunc().to_i64()
    }

    fn summary(&self, currency: Currency) -> Summary {
        Summary {
            total_abandoned: self.abandoned,
            total_recovered: self.recovered,
            recovery_rate: Rate::percent(self.recovered, self.abandoned),
            total_abandoned_value: currency.sum(self.abandoned_minor),
            total_recovered_value: currency.sum(self.recovered_minor),
            cohort_recovered: self.cohort_recovered,
            cohort_recovery_rate: Rate::percent(self.cohort_recovered, self.abandoned),
            average_recovery_seconds: self.average_recovery_seconds(),
            recovered_by_payment: self.paid,
            recovered_by_payment_value: currency.sum(self.paid_minor),
            refunded_value: currency.sum(self.refunded_minor),
        }
    }
}

/// A percentage with one decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(Decimal);

impl Rate {
    /// 100 × `part` ÷ `whole`, with halves rounded away from zero; 0 if `whole` is 0.
    pub fn percent(part: i64, whole: i64) -> Self {
        use rust_decimal::RoundingStrategy::MidpointAwayFromZero;
        let percent =
            if whole == 0 { Decimal::ZERO } else { Decimal::from(part) * Decimal::ONE_HUNDRED / Decimal::from(whole) };
        let mut rate = percent.round_dp_with_strategy(1, MidpointAwayFromZero);
        rate.rescale(1);
        Self(rate)
    }
}

/// The difference in percentage points.
impl std::ops::Sub for Rate {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        crate::money::serialize_decimal(&self.0, serializer)
    }
}

impl ToSchema for Rate {}

impl PartialSchema for Rate {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Number)
            .description(Some("Percent with one decimal; it can pass 100."))
            .minimum(Some(0))
            .examples([30.0])
            .into()
    }
}

/// A range of days.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The sums over the days.
    pub summary: Summary,
    /// Every day, oldest first.
    pub days: Vec<DayStats>,
    /// The number of deltas that were read; see [`add_up`].
    pub deltas: i64,
}

/// The days of `zone` from `first` to `last`, both included. Only carts in `currency` are counted.
/// `conn` must not be in a transaction.
pub async fn between(
    conn: &mut Connection,
    (first, last): (NaiveDate, NaiveDate),
    zone: Tz,
    currency: Currency,
) -> sqlx::Result<Range> {
    let mut counted = counts(&mut *conn, (first, last), zone, currency).await?;
    if counted.iter().any(|counts| !counts.is_known) {
        count_days(&mut *conn, zone).await?;
        counted = counts(conn, (first, last), zone, currency).await?;
    }
    let mut counted = counted.into_iter().peekable();
    let mut sums = Counts::default();
    let days = days(first, last)
        .map(|date| {
            let day = counted.next_if(|counts| counts.day == Some(date)).unwrap_or_default();
            sums.add(&day);
            day.day(date, currency)
        })
        .collect();
    Ok(Range { summary: sums.summary(currency), days, deltas: sums.deltas })
}

/// Adds up the days of `zone`, unless it was done. The first reading of a zone does so, too.
///
/// # Errors
/// `invalid_parameter_value` (22023) if Postgres does not know the zone.
pub async fn count_days(conn: &mut Connection, zone: Tz) -> sqlx::Result<()> {
    sqlx::query!("select count_cart_days($1)", zone.name()).execute(conn).await?;
    Ok(())
}

/// The days that have counts, oldest first; at least one row.
async fn counts(
    conn: &mut Connection,
    (first, last): (NaiveDate, NaiveDate),
    zone: Tz,
    currency: Currency,
) -> sqlx::Result<Vec<Counts>> {
    sqlx::query_as!(
        Counts,
        r#"
        select day as "day?", bool_and($1 = any (zones)) as "is_known!", coalesce(sum(deltas), 0)::bigint as "deltas!",
               coalesce(sum(abandoned), 0)::bigint as "abandoned!", coalesce(sum(recovered), 0)::bigint as "recovered!", coalesce(sum(paid), 0)::bigint as "paid!",
               coalesce(sum(abandoned_minor), 0) as "abandoned_minor!", coalesce(sum(cohort_recovered), 0)::bigint as "cohort_recovered!",
               coalesce(sum(recovered_minor), 0) as "recovered_minor!", coalesce(sum(recovery_seconds), 0) as "recovery_seconds!",
               coalesce(sum(paid_minor), 0) as "paid_minor!", coalesce(sum(refunded_minor), 0) as "refunded_minor!"
        from cart_count_progress
        left join (
            select day, 0 as deltas, abandoned, recovered, paid, abandoned_minor, cohort_recovered, recovered_minor,
                   recovery_seconds, paid_minor, refunded_minor
            from cart_day_counts
            where zone = $1 and currency = $2 and day between $3 and $4
            union all
            select cart_count_day(period, $1), 1, abandoned, recovered, paid, abandoned_minor, cohort_recovered, recovered_minor,
                   recovery_seconds, paid_minor, refunded_minor
            from cart_count_deltas_to_add()
            where currency = $2 and cart_count_day(period, $1) between $3 and $4
        ) counts on true
        group by day
        order by day
        "#,
        zone.name(),
        currency.code(),
        first,
        last,
    )
    .fetch_all(conn)
    .await
}

fn days(first: NaiveDate, last: NaiveDate) -> impl Iterator<Item = NaiveDate> {
    std::iter::successors(Some(first), |day| day.checked_add_days(Days::new(1))).take_while(move |day| *day <= last)
}

/// The currencies of all carts, sorted by code.
pub async fn currencies(conn: &mut Connection) -> sqlx::Result<Vec<Currency>> {
    sqlx::query_scalar!(
        r#"
        select currency as "currency!: Currency" from cart_status_counts
        group by currency
        having sum(abandoned + recovered + expired) > 0
        order by currency
        "#
    )
    .fetch_all(conn)
    .await
}

/// Adds the appended deltas to the sums, which makes both cheaper to read. Returns the number of
/// deltas.
pub async fn add_up(conn: &mut Connection) -> sqlx::Result<i64> {
    sqlx::query_scalar!(r#"select add_up_cart_counts() as "deltas!""#).fetch_one(conn).await
}

/// The result of [`correct`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Corrected {
    /// The number of carts.
    pub carts: i64,
    /// The number of counted periods.
    pub periods: i64,
    /// The number of counts that were wrong.
    pub corrected: i64,
}

/// Counts all carts and corrects the stored counts, for example after a restore without triggers.
/// Exact while others write. Must run in a transaction, so that only one corrects at a time.
pub async fn correct(conn: &mut Connection) -> sqlx::Result<Corrected> {
    sqlx::query!("select from pg_advisory_xact_lock(hashtext('correct_cart_counts'))").execute(&mut *conn).await?;
    let corrected = sqlx::query_as!(
        Corrected,
        r#"select coalesce(carts, 0) as "carts!", periods as "periods!", corrected as "corrected!" from correct_cart_counts()"#
    )
    .fetch_one(&mut *conn)
    .await?;
    sqlx::query!("select forget_cart_days()").execute(conn).await?;
    Ok(corrected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_one_decimal() {
        let written = |part, whole| serde_json::to_string(&Rate::percent(part, whole)).unwrap();
        assert_eq!(written(45, 150), "30.0");
        assert_eq!(written(1, 3), "33.3");
        assert_eq!(written(2, 3), "66.7");
        assert_eq!(written(1, 2000), "0.1"); // 0.05 rounds up
        assert_eq!(written(5, 0), "0.0");
        assert_eq!(written(3, 1), "300.0");
    }
}
