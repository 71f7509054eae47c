//! The days of a time zone.

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

/// The date in `zone` at an instant.
pub fn date(at: DateTime<Utc>, zone: Tz) -> NaiveDate {
    at.with_timezone(&zone).date_naive()
}

/// The first instant of a day in `zone`, which is not midnight where clocks go forward then.
pub fn start_of(day: NaiveDate, zone: Tz) -> DateTime<Utc> {
    let midnight = day.and_time(NaiveTime::MIN);
    let mut quarters = (0..=96).map(|quarter| midnight + TimeDelta::minutes(15 * quarter));
    let first = quarters.find_map(|time| zone.from_local_datetime(&time).earliest());
    first.map_or_else(|| midnight.and_utc(), |first| first.to_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_begin_at_midnight_or_after_the_gap() {
        let start = |day: &str, zone| start_of(day.parse().unwrap(), zone).to_rfc3339();
        assert_eq!(start("2026-07-01", Tz::Europe__Vienna), "2026-06-30T22:00:00+00:00");
        // Clocks went from 00:00 to 01:00.
        assert_eq!(start("2018-11-04", Tz::America__Sao_Paulo), "2018-11-04T03:00:00+00:00");
        // Samoa had no 30 December 2011.
        assert_eq!(start("2011-12-30", Tz::Pacific__Apia), "2011-12-30T10:00:00+00:00");
    }
}
