//! The days somebody looks at, and those before them.

use chrono::{Days, NaiveDate};
use common::analytics::DayStats;

use crate::{
    http::{error::ApiError, query::Parameters},
    routes::analytics,
};

/// Both ends are included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Period {
    pub(crate) first: NaiveDate,
    pub(crate) last: NaiveDate,
}

impl Period {
    /// As the API reads it from a query: `period`, or `startDate` and `endDate`.
    pub(crate) fn of(parameters: &Parameters, today: NaiveDate) -> Result<Self, ApiError> {
        let (first, last) = analytics::range(parameters, today)?;
        Ok(Self { first, last })
    }

    pub(crate) fn days(self) -> i64 {
        (self.last - self.first).num_days() + 1
    }

    /// As many days, just before. `None`: before the calendar began.
    pub(crate) fn before(self) -> Option<Self> {
        let days = Days::new(self.days().unsigned_abs());
        Some(Self { first: self.first.checked_sub_days(days)?, last: self.first.pred_opt()? })
    }

    /// How many days one bar stands for: more than three months of days are too many to tell apart.
    pub(crate) fn step(self) -> Step {
        match self.days() {
            ..=92 => Step::Day,
            93..=644 => Step::Week,
            _ => Step::Quarter,
        }
    }
}

/// What one bar, and one row of the table, stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Day,
    /// Seven days, from the first on.
    Week,
    /// Thirteen weeks, from the first on.
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

/// Carts of one or more days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bar {
    /// Its first day.
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
