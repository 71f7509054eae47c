//! Abandoned and recovered carts by day.
//!
//! The stored counts are exact in every snapshot, and reading them costs time by the length of the
//! period, not by the number of carts (`migrations/20261129000003_cart_counts.sql`).

use chrono::{Days, NaiveDate};
use rust_decimal::Decimal;
use serde::{Serialize, Serializer};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use crate::db::Connection;
use crate::money::{Amount, Currency};

/// The counts of one UTC day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DayStats {
    /// The UTC day.
    pub date: NaiveDate,
    /// Carts abandoned on this day, whatever their status now.
    pub abandoned: i64,
    /// Carts recovered on this day.
    pub recovered: i64,
    /// The total value of the abandoned carts.
    pub abandoned_value: Amount,
    /// The total value of the recovered carts.
    pub recovered_value: Amount,
}

/// The sums over all days of a period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AnalyticsSummary)]
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

/// Every day from `first` to `last`, both included, oldest first, and the sums. Only carts in
/// `currency` are counted.
pub async fn between(
    conn: &mut Connection,
    first: NaiveDate,
    last: NaiveDate,
    currency: Currency,
) -> sqlx::Result<(Summary, Vec<DayStats>)> {
    let rows = sqlx::query!(
        r#"
        select (period at time zone 'UTC')::date as "day!", sum(abandoned)::bigint as "abandoned!",
               sum(recovered)::bigint as "recovered!", sum(abandoned_minor) as "abandoned_minor!",
               sum(recovered_minor) as "recovered_minor!"
        from cart_period_counts
        where period >= $1::date::timestamp at time zone 'UTC' and period < ($2::date + 1)::timestamp at time zone 'UTC'
          and currency = $3
        group by 1
        order by 1
        "#,
        first,
        last,
        currency.code(),
    )
    .fetch_all(conn)
    .await?;

    let (mut abandoned, mut recovered) = (0, 0);
    let (mut abandoned_minor, mut recovered_minor) = (Decimal::ZERO, Decimal::ZERO);
    let mut rows = rows.into_iter().peekable();
    let days = days(first, last)
        .map(|date| match rows.next_if(|row| row.day == date) {
            Some(row) => {
                abandoned += row.abandoned;
                recovered += row.recovered;
                abandoned_minor += row.abandoned_minor;
                recovered_minor += row.recovered_minor;
                DayStats {
                    date,
                    abandoned: row.abandoned,
                    recovered: row.recovered,
                    abandoned_value: currency.sum(row.abandoned_minor),
                    recovered_value: currency.sum(row.recovered_minor),
                }
            }
            None => DayStats {
                date,
                abandoned: 0,
                recovered: 0,
                abandoned_value: currency.amount(0),
                recovered_value: currency.amount(0),
            },
        })
        .collect();
    let summary = Summary {
        total_abandoned: abandoned,
        total_recovered: recovered,
        recovery_rate: Rate::percent(recovered, abandoned),
        total_abandoned_value: currency.sum(abandoned_minor),
        total_recovered_value: currency.sum(recovered_minor),
    };
    Ok((summary, days))
}

fn days(first: NaiveDate, last: NaiveDate) -> impl Iterator<Item = NaiveDate> {
    std::iter::successors(Some(first), |day| day.checked_add_days(Days::new(1))).take_while(move |day| *day <= last)
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
    sqlx::query_as!(
        Corrected,
        r#"select coalesce(carts, 0) as "carts!", periods as "periods!", corrected as "corrected!" from correct_cart_counts()"#
    )
    .fetch_one(conn)
    .await
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
