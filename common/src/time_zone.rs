//! The days of a time zone.

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;

/// The date in `zone` at an instant.
pub fn date(at: DateTime<Utc>, zone: Tz) -> NaiveDate {
    at.with_timezone(&zone).date_naive()
}
