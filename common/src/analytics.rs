//! Abandoned and recovered carts by day.
//!
//! The stored counts (see `migrations/`) are exact in every snapshot. Reading them costs time by
//! the number of days, not of carts.

pub mod rebuild;
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
        select day, sum(abandoned)::bigint as "abandoned!", sum(recovered)::bigint as "recovered!",
               sum(abandoned_minor) as "abandoned_minor!", sum(recovered_minor) as "recovered_minor!"
        from cart_day_counts
        where day between $1 and $2 and currency = $3
        group by day
        order by day
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

/// Compacts the rows that backends wrote: day counts into one row per day and currency, list counts
/// into one row per hour, day and month. Sums don't change; they get cheaper to read. Returns the
/// number of compacted rows.
pub async fn fold(conn: &mut Connection) -> sqlx::Result<i64> {
    // The advisory lock admits one at a time, because only this statement may change slot 0 and the
    // status counts. Rows that a transaction is adding to are left for the next run.
    let folded = sqlx::query_scalar!(
        r#"
        with turn as materialized (
            select pg_try_advisory_xact_lock(hashtext('cart_day_counts')) as mine
        ), taken as (
            delete from cart_day_counts
            where (day, currency, slot) in (
                select day, currency, slot from cart_day_counts
                where slot <> 0 and (select mine from turn)
                for update skip locked)
            returning *
        ), days as (
            insert into cart_day_counts as ledger (day, currency, slot, abandoned, abandoned_minor, recovered, recovered_minor)
            select day, currency, 0, sum(abandoned), sum(abandoned_minor), sum(recovered), sum(recovered_minor)
            from taken group by day, currency
            on conflict (day, currency, slot) do update set
                abandoned = ledger.abandoned + excluded.abandoned,
                abandoned_minor = ledger.abandoned_minor + excluded.abandoned_minor,
                recovered = ledger.recovered + excluded.recovered,
                recovered_minor = ledger.recovered_minor + excluded.recovered_minor
        ), statuses as (
            update cart_status_counts set
                abandoned = cart_status_counts.abandoned + sums.abandoned,
                recovered = cart_status_counts.recovered + sums.recovered,
                expired = cart_status_counts.expired + sums.expired
            from (select coalesce(sum(now_abandoned), 0) abandoned, coalesce(sum(now_recovered), 0) recovered,
                         coalesce(sum(now_expired), 0) expired from taken) sums
            where (sums.abandoned, sums.recovered, sums.expired) <> (0, 0, 0)
        ), taken_hours as (
            delete from cart_list_counts
            where (level, period, slot) in (
                select level, period, slot from cart_list_counts
                where slot <> 0 and (select mine from turn)
                for update skip locked)
            returning period, abandoned, recovered, expired
        ), periods as (
            insert into cart_list_counts as ledger (level, period, slot, abandoned, recovered, expired)
            select level, date_trunc(unit, period, 'UTC'), 0, sum(abandoned), sum(recovered), sum(expired)
            from taken_hours, (values (0, 'hour'), (1, 'day'), (2, 'month')) levels (level, unit)
            group by 1, 2
            on conflict (level, period, slot) do update set
                abandoned = ledger.abandoned + excluded.abandoned,
                recovered = ledger.recovered + excluded.recovered,
                expired = ledger.expired + excluded.expired
        )
        select (select count(*) from taken) + (select count(*) from taken_hours) as "folded!"
        "#
    )
    .fetch_one(conn)
    .await?;
    Ok(folded)
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
