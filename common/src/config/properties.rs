//! Every value is either parsed, or its variable is named in the error.

use proptest::prelude::*;

use super::*;

#[derive(Debug, PartialEq, Args)]
struct Ttl {
    #[arg(long, env = "CART_TTL", default_value = "1s", value_name = DURATION, value_parser = value(parse_duration))]
    ttl: Duration,
}

fn ttl(text: &str) -> Result<Duration, ConfigError> {
    Env::of([("CART_TTL", text)]).read::<Ttl>().map(|read| read.ttl)
}

fn hold(text: &str) -> Result<(), TestCaseError> {
    match ttl(text) {
        Ok(duration) if text.trim().is_empty() => prop_assert_eq!(duration, Duration::from_secs(1)),
        Ok(duration) => prop_assert_eq!(ttl(&humantime::format_duration(duration).to_string()), Ok(duration)),
        Err(error) => named(&error, "CART_TTL")?,
    }
    match Env::of([("PUBLIC_URL", text)]).read::<SharedConfig>().map(|read| read.public_url) {
        Ok(url) => prop_assert!(url.starts_with("http") && !url.ends_with('/') && !url.contains(char::is_whitespace)),
        Err(error) => named(&error, "PUBLIC_URL")?,
    }
    Ok(())
}

/// The error is one line that names the variable, for any value.
fn named(error: &ConfigError, name: &str) -> Result<(), TestCaseError> {
    let line = error.to_string();
    prop_assert!(line.starts_with(name) && line.contains("; it takes ") && line.lines().count() == 1, "{line:?}");
    Ok(())
}

proptest! {
    #[test]
    fn a_value_is_understood_or_its_variable_is_named(text in fuzz::corpus!("settings").near()) {
        hold(&text)?;
    }

    #[test]
    fn durations_add_up(days in 0..365_u64, hours in 0..24_u64, minutes in 0..60_u64, seconds in 1..60_u64) {
        let text = format!("{days}d {hours}h {minutes}m {seconds}s");
        let expected = Duration::from_secs(((days * 24 + hours) * 60 + minutes) * 60 + seconds);
        prop_assert_eq!(ttl(&text), Ok(expected));
    }
}

#[test]
fn the_corpus_holds() {
    fuzz::corpus!("settings").replay(hold);
    hold(&"1".repeat(1 << 20)).unwrap();
    hold(&"1s ".repeat(1 << 18)).unwrap();
}
