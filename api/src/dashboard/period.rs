//! The days shown in the overview, and the days before them.

use chrono::{DateTime, Days, NaiveDate, Utc};
use chrono_tz::Tz;
use common::analytics::DayStats;

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
            Self::Quarter => "13 weeks",
        }
    }
}

/// Counts of carts on one or more days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bar {
    /// First day.
    pub(crate) date: NaiveDate,
    pub(crate) abandoned: i64,
    pub(crate) recovered: i64,
}

pub(crate) fn bars(days: &[DayStats], step: Step) -> Vec<Bar> {
    days.chunks(step.days())
        .map(|days| Bar {
            date: days[0].date,
            abandoned: days.iter().map(|day| day.abandoned).sum(),
            recovered: days.iter().map(|day| day.recovered).sum(),
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
