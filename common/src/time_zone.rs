//! The days of a time zone.

use chrono::{DateTime, LocalResult, NaiveDate, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::{GapInfo, Tz};

/// The date in `zone` at an instant.
pub fn date(at: DateTime<Utc>, zone: Tz) -> NaiveDate {
    at.with_timezone(&zone).date_naive()
}

/// The start of `day` in `zone`: the last instant at which the zone's date changes from an earlier
/// day to `day` or a later one.
///
/// A day starts after 00:00 where clocks go forward at midnight (Beirut, Cairo). A day that the zone
/// skipped (Samoa, 30 December 2011) starts when the next one does, so it is empty. Newfoundland's
/// clocks went back at 00:01 until 2011, so that the date changed twice; the second change counts.
pub fn start_of_day(day: NaiveDate, zone: Tz) -> DateTime<Utc> {
    let midnight = day.and_time(NaiveTime::MIN);
    let start = match zone.from_local_datetime(&midnight) {
        LocalResult::Single(at) => Some(at),
        LocalResult::Ambiguous(first, second) => {
            let before = second - TimeDelta::seconds(1);
            Some(if before.date_naive() < day { second } else { first })
        }
        LocalResult::None => GapInfo::new(&midnight, &zone).and_then(|gap| gap.end),
    };
    // chrono-tz knows the end of every gap.
    start.map_or_else(|| midnight.and_utc(), |at| at.to_utc())
}

#[cfg(test)]
mod tests {
    use chrono::{Datelike, Days};
    use chrono_tz::TZ_VARIANTS;

    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    #[test]
    fn days_start_where_the_zone_changes_its_date() {
        for (zone, date, start, hours) in [
            (Tz::UTC, "2026-03-08", "2026-03-08T00:00:00Z", 24),
            (Tz::Asia__Kathmandu, "2026-03-08", "2026-03-07T18:15:00Z", 24),
            (Tz::America__New_York, "2026-03-08", "2026-03-08T05:00:00Z", 23),
            (Tz::America__New_York, "2026-11-01", "2026-11-01T04:00:00Z", 25),
            (Tz::Australia__Sydney, "2026-10-04", "2026-10-03T14:00:00Z", 23),
            (Tz::Australia__Sydney, "2026-04-05", "2026-04-04T13:00:00Z", 25),
            (Tz::Australia__Lord_Howe, "2026-10-04", "2026-10-03T13:30:00Z", 23), // by half an hour
            // Midnight does not exist.
            (Tz::Asia__Beirut, "2026-03-29", "2026-03-28T22:00:00Z", 23),
            (Tz::Africa__Cairo, "2026-04-24", "2026-04-23T22:00:00Z", 23),
            (Tz::America__Sao_Paulo, "2018-11-04", "2018-11-04T03:00:00Z", 23),
            // The hour before midnight comes twice.
            (Tz::Africa__Cairo, "2026-10-29", "2026-10-28T21:00:00Z", 25),
            (Tz::America__Sao_Paulo, "2018-02-17", "2018-02-17T02:00:00Z", 25),
            // The hour after midnight comes twice.
            (Tz::America__Havana, "2026-11-01", "2026-11-01T04:00:00Z", 25),
            // The last minute comes twice, and the first minute of the next day.
            (Tz::America__St_Johns, "2010-11-07", "2010-11-07T03:30:00Z", 24),
            // The date line moved.
            (Tz::Pacific__Apia, "2011-12-30", "2011-12-30T10:00:00Z", 0),
            (Tz::Pacific__Apia, "2011-12-31", "2011-12-30T10:00:00Z", 24),
        ] {
            let next = day(date).succ_opt().unwrap();
            assert_eq!(start_of_day(day(date), zone), start.parse::<DateTime<Utc>>().unwrap(), "{date} in {zone}");
            assert_eq!(
                (start_of_day(next, zone) - start_of_day(day(date), zone)).num_minutes() / 60,
                hours,
                "{date} in {zone}"
            );
        }
    }

    #[test]
    fn days_of_every_zone_follow_each_other_and_start_with_a_quarter_of_an_hour() {
        for zone in TZ_VARIANTS {
            let mut before = start_of_day(day("1979-12-31"), zone);
            for date in ["1980-01-01", "1986-01-01", "2006-01-01", "2011-01-01", "2026-01-01"] {
                for date in (0..365).filter_map(|days| day(date).checked_add_days(Days::new(days))) {
                    let start = start_of_day(date, zone);
                    assert!(start >= before, "{date} in {zone}");
                    assert_eq!(start.timestamp() % 900, 0, "{date} in {zone}");
                    // The second before is of an earlier day, and the start of this one or a later one.
                    assert!(super::date(start - TimeDelta::seconds(1), zone) < date, "{date} in {zone}");
                    assert!(super::date(start, zone) >= date, "{date} in {zone}");
                    before = start;
                }
            }
        }
    }

    #[test]
    fn days_of_any_year_have_a_start() {
        for zone in TZ_VARIANTS {
            for date in ["0000-01-01", "1847-12-01", "9999-12-31"].map(day) {
                let start = start_of_day(date, zone);
                assert!((start - date.and_time(NaiveTime::MIN).and_utc()).num_hours().abs() <= 24, "{date} in {zone}");
                assert!(start.year() >= -1);
            }
        }
    }
}
