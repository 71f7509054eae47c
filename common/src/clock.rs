//! Reads the time and parses instants; no other module does either.

use std::sync::{Arc, Mutex};

use chrono::{DateTime, Datelike, NaiveDate, SubsecRound, TimeDelta, Timelike, Utc};
use queue::mutex::lock;

/// A source of the current time: the system's clock, or one that a test sets.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    set: Option<Arc<Mutex<DateTime<Utc>>>>,
    /// How far the system's clock is taken to be ahead.
    ahead: TimeDelta,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands still until [`Clock::advance`]. Clones share the time.
    pub fn stopped_at(now: DateTime<Utc>) -> Self {
        Self { set: Some(Arc::new(Mutex::new(now))), ahead: TimeDelta::zero() }
    }

    /// The system's clock of a machine whose clock is wrong: `ahead` of the true time, or behind it
    /// if negative.
    pub fn wrong_by(ahead: TimeDelta) -> Self {
        Self { set: None, ahead }
    }

    /// The current time in whole milliseconds, so that stored and returned times are equal.
    pub fn now(&self) -> DateTime<Utc> {
        match &self.set {
            Some(set) => *lock(set),
            None => {
                #[expect(clippy::disallowed_methods, reason = "this is the place")]
                let now = Utc::now();
                (now + self.ahead).trunc_subsecs(3)
            }
        }
    }

    /// The time of a stopped clock; `None` for the system's clock. Statements that use Postgres' own
    /// clock take it in place of `now()`.
    pub fn stopped(&self) -> Option<DateTime<Utc>> {
        self.set.as_ref().map(|set| *lock(set))
    }

    /// Moves a stopped clock.
    ///
    /// # Panics
    /// If this is the system's clock.
    pub fn advance(&self, by: TimeDelta) {
        let set = self.set.as_ref().expect("only a stopped clock can be moved");
        *lock(set) += by;
    }
}

/// Nanoseconds per second; chrono represents a leap second by larger values.
const LEAP_SECOND: u32 = 1_000_000_000;

/// Reads an RFC 3339 instant as Postgres stores it: in UTC and whole microseconds.
///
/// `None` for other text, for years outside 0001 to 9999 in UTC, and for leap seconds (`23:59:60`),
/// which Postgres would store as the next minute.
pub fn parse_instant(text: &str) -> Option<DateTime<Utc>> {
    let instant = DateTime::parse_from_rfc3339(text).ok().filter(|instant| instant.nanosecond() < LEAP_SECOND)?;
    let instant = instant.with_timezone(&Utc).trunc_subsecs(6);
    is_storable(instant.year()).then_some(instant)
}

/// Reads a date such as `2024-01-15`. `None` for other text and for years outside 0001 to 9999.
pub fn parse_date(text: &str) -> Option<NaiveDate> {
    text.parse().ok().filter(|date: &NaiveDate| is_storable(date.year()))
}

/// Whether chrono, Postgres and RFC 3339 can all represent the year.
fn is_storable(year: i32) -> bool {
    (1..=9999).contains(&year)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn instants_outside_of_what_postgres_and_rfc_3339_hold_are_refused() {
        for refused in [
            "0000-01-01T00:00:00+23:59",
            "0000-12-31T23:59:59.999999Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "2016-12-31T23:59:60Z",
            "2016-12-31T23:59:60.5Z",
            "2016-12-31T18:29:60-05:30",
            "2024-02-30T00:00:00Z",
            "2024-01-15T24:00:00Z",
            "2024-01-15T10:30:00",
            "2024-01-15",
            "+10000-01-01T00:00:00Z",
            "-0001-01-01T00:00:00Z",
            "",
        ] {
            assert_eq!(parse_instant(refused), None, "{refused}");
        }
        for (text, instant) in [
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("0000-12-31T23:59:00-00:01", "0001-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59.999999Z"),
            ("2016-12-31T23:59:59+14:00", "2016-12-31T09:59:59Z"),
        ] {
            assert_eq!(parse_instant(text), instant.parse().ok(), "{text}");
        }
        assert_eq!(parse_date("0000-12-31"), None);
        assert_eq!(parse_date("+10000-01-01"), None);
        assert_eq!(parse_date("9999-12-31"), NaiveDate::from_ymd_opt(9999, 12, 31));
    }

    proptest! {
        /// An instant survives a round trip through JSON.
        #[test]
        fn parsed_times_survive_a_round_trip(
            micros in -62_135_700_000_000_000..253_402_400_000_000_000_i64, nanos in 0..1000_i64,
            offset in -1439..=1439_i32,
        ) {
            let offset = chrono::FixedOffset::east_opt(offset * 60).expect("an offset");
            let Some(instant) = DateTime::from_timestamp_micros(micros) else { return Ok(()) };
            let text = (instant + TimeDelta::nanoseconds(nanos)).with_timezone(&offset).to_rfc3339();
            if let Some(read) = parse_instant(&text) {
                prop_assert_eq!(read, instant, "{}", text);
                let written = serde_json::to_string(&read).expect("an instant can be written");
                prop_assert_eq!(parse_instant(written.trim_matches('"')), Some(read));
            }
        }
    }
}
