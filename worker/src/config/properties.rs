//! Property tests of schedules: an expression fires when it should, or is rejected.

use chrono::{DateTime, Datelike, TimeDelta, Timelike, Utc};
use proptest::prelude::*;

use super::*;

const CORPUS: fuzz::Corpus = fuzz::corpus!("schedules");

fn hold(expression: &str) -> Result<(), TestCaseError> {
    let begun = std::time::Instant::now();
    match parse_schedule(expression) {
        Ok(cron) => {
            let now = Clock::system().now();
            let next = queue::next_slot(&cron, now).expect("it was looked for");
            prop_assert!(next > now && next.timestamp_subsec_nanos() == 0);
            prop_assert_eq!(queue::latest_slot(&cron, next), Some(next), "a slot is due when it comes");
            if let Some(last) = queue::latest_slot(&cron, now) {
                prop_assert!(last <= now);
                prop_assert_eq!(queue::next_slot(&cron, last), Some(next), "none lies between the last and the next");
            }
        }
        Err(error) => {
            prop_assert_eq!(error.lines().count(), 1, "{:?}", error);
        }
    }
    prop_assert!(begun.elapsed() < Duration::from_secs(60), "{expression:?} took {:?}", begun.elapsed());
    Ok(())
}

/// One field of an expression, and the values that match it.
#[derive(Debug, Clone)]
struct Field {
    text: String,
    takes: Vec<u32>,
}

fn field(least: u32, most: u32) -> impl Strategy<Value = Field> {
    let all: Vec<u32> = (least..=most).collect();
    let every = Field { text: "*".to_owned(), takes: all.clone() };
    let stepped = (1..=most).prop_map(move |step| Field {
        text: format!("*/{step}"),
        takes: (least..=most).step_by(step as usize).collect(),
    });
    let range = (least..=most, least..=most).prop_map(|(one, other)| {
        let (from, to) = (one.min(other), one.max(other));
        Field { text: format!("{from}-{to}"), takes: (from..=to).collect() }
    });
    let list = proptest::sample::subsequence(all, 1..4)
        .prop_map(|takes| Field { text: takes.iter().map(u32::to_string).collect::<Vec<_>>().join(","), takes });
    prop_oneof![3 => Just(every), 1 => stepped, 1 => range, 2 => list]
}

/// Weekdays by name. Sunday is 0, as in chrono.
fn weekdays() -> impl Strategy<Value = Field> {
    const NAMES: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
    let some = proptest::sample::subsequence((0..7).collect::<Vec<u32>>(), 1..4).prop_map(|takes| Field {
        text: takes.iter().map(|day| NAMES[*day as usize]).collect::<Vec<_>>().join(","),
        takes,
    });
    prop_oneof![2 => Just(Field { text: "*".to_owned(), takes: (0..7).collect() }), 1 => some]
}

proptest! {
    #[test]
    fn an_expression_is_a_schedule_or_refused_in_one_line(text in CORPUS.near()) {
        hold(&text)?;
    }

    /// Compares the library with a search through every minute.
    #[test]
    fn slots_are_the_moments_that_fit(
        second in 0..60_u32, minute in field(0, 59), hour in field(0, 23), day in field(1, 31), month in field(1, 12),
        weekday in weekdays(), begin in 1_700_000_000..2_500_000_000_i64,
    ) {
        let expression =
            format!("{second} {} {} {} {} {}", minute.text, hour.text, day.text, month.text, weekday.text);
        let Ok(cron) = parse_schedule(&expression) else { return Ok(()) }; // the 31st of June
        let begin = DateTime::from_timestamp(begin, 0).expect("an instant");
        let fits = |at: &DateTime<Utc>| {
            minute.takes.contains(&at.minute()) && hour.takes.contains(&at.hour()) && day.takes.contains(&at.day())
                && month.takes.contains(&at.month()) && weekday.takes.contains(&at.weekday().num_days_from_sunday())
        };
        let first = begin.with_second(second).expect("within the minute");
        let end = begin + TimeDelta::days(3);
        let by_hand = (0..3 * 24 * 60).map(|minutes| first + TimeDelta::minutes(minutes)).find(|at| *at > begin && fits(at));
        let next = queue::next_slot(&cron, begin).filter(|next| *next < end);
        prop_assert_eq!(next, by_hand.filter(|at| *at < end), "{} after {}", expression, begin);
    }
}

#[test]
fn the_corpus_holds() {
    CORPUS.replay(hold);
    hold(&"*".repeat(1 << 20)).unwrap();
    hold(&format!("0 {} * * * *", "1,".repeat(1 << 19))).unwrap();
    hold(&format!("0 {}1 * * * *", "1,".repeat(1 << 16))).unwrap();
}
