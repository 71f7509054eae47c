//! Reading the environment: every value is checked at the start, and what is
//! wrong is said in one line that names the variable and what it takes.

use std::{collections::HashMap, fmt, time::Duration};

use secrecy::SecretString;

use crate::money::Currency;

/// What is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A variable without a default is not there.
    #[error("{name} is not set; it takes {takes}")]
    Missing {
        /// The variable.
        name: &'static str,
        /// What it takes.
        takes: &'static str,
    },
    /// A value that can't be understood. Secrets are not repeated.
    #[error("{name} is {value}; it takes {takes}")]
    Malformed {
        /// The variable.
        name: &'static str,
        /// The value, as far as it may be shown.
        value: String,
        /// What it takes.
        takes: &'static str,
    },
}

/// The environment of a process, or what a test or the sandbox says it is.
#[derive(Clone, Default)]
pub struct Env {
    variables: HashMap<String, String>,
}

/// Names alone: many a value is a secret.
impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

impl Env {
    /// The process' environment and, below it, the `.env` file.
    pub fn of_process() -> Self {
        dotenvy::dotenv().ok();
        Self::of(std::env::vars())
    }

    /// The given variables and no others.
    pub fn of<K: Into<String>, V: Into<String>>(variables: impl IntoIterator<Item = (K, V)>) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { variables }
    }

    /// Sets a variable unless it has a value.
    pub fn or_set(&mut self, name: &str, value: impl Into<String>) {
        if self.get(name).is_none() {
            self.variables.insert(name.to_owned(), value.into());
        }
    }

    /// The value, trimmed; an empty one counts as not set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// A value without a default.
    ///
    /// # Errors
    /// If it is not set.
    pub fn required(&self, name: &'static str, takes: &'static str) -> Result<&str, ConfigError> {
        self.get(name).ok_or(ConfigError::Missing { name, takes })
    }

    /// A secret without a default.
    ///
    /// # Errors
    /// If it is not set.
    pub fn secret(&self, name: &'static str, takes: &'static str) -> Result<SecretString, ConfigError> {
        self.required(name, takes).map(SecretString::from)
    }

    /// Secrets separated by commas, at least one, so that they can be rotated.
    ///
    /// # Errors
    /// If there is none.
    pub fn secrets(&self, name: &'static str, takes: &'static str) -> Result<Vec<SecretString>, ConfigError> {
        let secrets: Vec<SecretString> = split(self.required(name, takes)?).map(SecretString::from).collect();
        if secrets.is_empty() { Err(ConfigError::Missing { name, takes }) } else { Ok(secrets) }
    }

    /// Values separated by commas, maybe none.
    ///
    /// # Errors
    /// If `parse` refuses one.
    pub fn list<T>(
        &self,
        name: &'static str,
        takes: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, ConfigError> {
        split(self.get(name).unwrap_or_default())
            .map(|text| parse(text).ok_or_else(|| malformed(name, text, takes)))
            .collect()
    }

    /// A value with a default.
    ///
    /// # Errors
    /// If `parse` refuses it.
    pub fn parse_or<T>(
        &self,
        name: &'static str,
        default: T,
        takes: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        self.get(name).map_or(Ok(default), |text| parse(text).ok_or_else(|| malformed(name, text, takes)))
    }

    /// A duration such as `30s`, `10m` or `7d`, longer than nothing.
    ///
    /// # Errors
    /// If it is none.
    pub fn duration(&self, name: &'static str, default: Duration) -> Result<Duration, ConfigError> {
        self.parse_or(name, default, "a duration such as 30s, 10m or 7d", parse_duration)
    }

    /// A duration that must not be shorter than `shortest`.
    ///
    /// # Errors
    /// If it is none, or shorter.
    pub fn duration_of_at_least(
        &self,
        name: &'static str,
        default: Duration,
        shortest: Duration,
        takes: &'static str,
    ) -> Result<Duration, ConfigError> {
        let duration = self.duration(name, default)?;
        if duration >= shortest {
            Ok(duration)
        } else {
            Err(malformed(name, self.get(name).unwrap_or_default(), takes))
        }
    }

    /// `CURRENCY`
    ///
    /// # Errors
    /// If it is none.
    pub fn currency(&self) -> Result<Currency, ConfigError> {
        self.parse_or("CURRENCY", Currency::USD, "an ISO 4217 code such as usd", |text| text.parse().ok())
    }

    /// `PUBLIC_URL`, without a slash at its end.
    ///
    /// # Errors
    /// If it is no address.
    pub fn public_url(&self) -> Result<String, ConfigError> {
        self.web_address("PUBLIC_URL", "http://localhost:3000")
    }

    /// An `http://` or `https://` address, without a slash at its end.
    ///
    /// # Errors
    /// If it is none.
    pub fn web_address(&self, name: &'static str, default: &str) -> Result<String, ConfigError> {
        self.parse_or(name, default.to_owned(), "an address such as https://shop.example", |text| {
            let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
            let well_formed = !host.is_empty() && !host.starts_with('/') && !host.contains(char::is_whitespace);
            well_formed.then(|| text.trim_end_matches('/').to_owned())
        })
    }

    /// `QUEUE_LISTEN`
    ///
    /// # Errors
    /// If it is neither `on` nor `off`.
    pub fn queue_listen(&self) -> Result<bool, ConfigError> {
        self.parse_or("QUEUE_LISTEN", true, "`on` or `off`", |text| match text {
            "on" => Some(true),
            "off" => Some(false),
            _ => None,
        })
    }

    /// `SHUTDOWN_TIMEOUT`
    ///
    /// # Errors
    /// If it is no duration.
    pub fn shutdown_timeout(&self) -> Result<Duration, ConfigError> {
        self.duration("SHUTDOWN_TIMEOUT", Duration::from_secs(30))
    }

    /// `PAYMENT_LINK_TTL`
    ///
    /// # Errors
    /// If it is no duration.
    pub fn payment_link_ttl(&self) -> Result<Duration, ConfigError> {
        self.duration("PAYMENT_LINK_TTL", Duration::from_secs(7 * 24 * 60 * 60))
    }
}

/// A hundred years: sums of times stay within what Postgres and chrono can hold.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A duration such as `30s`, `10m` or `7d`, longer than nothing.
pub fn parse_duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok().filter(|duration| !duration.is_zero() && *duration <= LONGEST)
}

fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn malformed(name: &'static str, value: &str, takes: &'static str) -> ConfigError {
    ConfigError::Malformed { name, value: format!("{value:?}"), takes }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_nonsense_is_named() {
        let env = Env::of([("CART_TTL", "7d"), ("SHUTDOWN_TIMEOUT", "soon"), ("PAYMENT_LINK_TTL", "0s")]);
        assert_eq!(env.duration("CART_TTL", Duration::ZERO), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(
            env.shutdown_timeout().unwrap_err().to_string(),
            r#"SHUTDOWN_TIMEOUT is "soon"; it takes a duration such as 30s, 10m or 7d"#
        );
        assert!(env.payment_link_ttl().is_err());
    }

    #[test]
    fn a_missing_value_is_named() {
        let env = Env::of([("API_KEY", "  ")]);
        let error = env.secrets("API_KEY", "one key, or several separated by commas").unwrap_err();
        assert_eq!(error.to_string(), "API_KEY is not set; it takes one key, or several separated by commas");
    }
}
