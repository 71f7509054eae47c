//! The days shown in the overview, and the days before them.

use chrono::{DateTime, Days, NaiveDate, Utc};
use chrono_tz::Tz;
use common::{analytics::DayStats, clock};

use super::format;
use crate::{
    http::{error::ApiError, query::Parameters},
    routes::analytics,
};

/// A range of days, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Period {
    pub(crate) first: NaiveDate,
    pub(crate) last: NaiveDate,
}

impl Period {
    /// Parses a query as the API does: `period`, or `startDate` and `endDate`.
    pub(crate) fn of(parameters: &Parameters, now: DateTime<Utc>, zone: Tz) -> Result<Self, ApiError> {
        let (first, last) = analytics::range(parameters, now, zone)?;
        Ok(Self { first, last })
    }

    /// The days up to `last`.
    pub(crate) fn last_days(days: u64, last: NaiveDate) -> Self {
        Self { first: last.checked_sub_days(Days::new(days - 1)).unwrap_or(last), last }
    }

    /// Why [`Period::of`] refuses the range that a form sent, by the names of the form's fields.
    pub(crate) fn wrong(parameters: &Parameters) -> String {
        let day = |name: &str| parameters.get(name).map(clock::parse_date);
        match (day("startDate"), day("endDate")) {
            (Some(None), _) => "From is not a date.".to_owned(),
            (_, Some(None)) => "To is not a date.".to_owned(),
            (Some(Some(first)), Some(Some(last))) if first > last => "From must not be after To.".to_owned(),
            _ => format!("The range must not be longer than {} days.", format::count(analytics::MAX_DAYS)),
        }
    }

    pub(crate) fn days(self) -> i64 {
        (self.last - self.first).num_days() + 1
    }

    /// The same number of days just before; `None` if the calendar does not go back that far.
    pub(crate) fn before(self) -> Option<Self> {
        let days = Days::new(self.days().unsigned_abs());
        Some(Self { first: self.first.checked_sub_days(days)?, last: self.first.pred_opt()? })
    }

    /// The days per bar: more than three months of single days can't be told apart.
    pub(crate) fn step(self) -> Step {
        match self.days() {
            ..=92 => Step::Day,
            93..=644 => Step::Week,
            _ => Step::Quarter,
        }
    }
}

/// The days that one bar, and one row of the table, covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Day,
    /// Seven days, starting with the first day of the period.
    Week,
    /// Thirteen weeks, starting with the first day of the period.
    Quarter,
}

impl Step {
    fn days(self) -> usize {
        match self {
            Self::Day => 1,
            Self::Week => 7,
            Self::Quarter => 91,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Quarter => "quarter (13 weeks)",
        }
    }
}

/// Counts of carts, and sums of their values in minor units, of one or more days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bar {
    pub(crate) first: NaiveDate,
    pub(crate) last: NaiveDate,
    pub(crate) abandoned: i64,
    pub(crate) recovered: i64,
    pub(crate) cohort_recovered: i64,
    pub(crate) abandoned_minor: i64,
    pub(crate) recovered_minor: i64,
}

pub(crate) fn bars(days: &[DayStats], step: Step) -> Vec<Bar> {
    days.chunks(step.days())
        .map(|days| {
            let sum = |of: fn(&DayStats) -> i64| days.iter().map(of).fold(0, i64::saturating_add);
            Bar {
                first: days[0].date,
                last: days[days.len() - 1].date,
                abandoned: sum(|day| day.abandoned),
                recovered: sum(|day| day.recovered),
                cohort_recovered: sum(|day| day.cohort_recovered),
                abandoned_minor: sum(|day| day.abandoned_value.minor()),
                recovered_minor: sum(|day| day.recovered_value.minor()),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_period_before_is_as_long_and_ends_where_this_one_begins() {
        let day = |text: &str| text.parse().unwrap();
        let period = Period { first: day("2026-11-01"), last: day("2026-11-30") };
        assert_eq!(period.before(), Some(Period { first: day("2026-10-02"), last: day("2026-10-31") }));
        assert_eq!((period.days(), period.step()), (30, Step::Day));
    }
}
