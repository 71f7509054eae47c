//! Reads and validates environment variables. Every value is checked at startup; an error names the
//! variable and the values that it takes.

use std::{collections::HashMap, fmt, time::Duration};

use secrecy::SecretString;
use url::Url;

use crate::money::Currency;

/// A missing or malformed setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A variable without a default is not set.
    #[error("{name} is not set; it takes {takes}")]
    Missing {
        /// The variable.
        name: &'static str,
        /// The values that the variable takes.
        takes: &'static str,
    },
    /// A value is malformed. Secrets are not repeated.
    #[error("{name} is {value}; it takes {takes}")]
    Malformed {
        /// The variable.
        name: &'static str,
        /// The value, quoted and shortened; for a secret just `malformed`.
        value: String,
        /// The values that the variable takes.
        takes: &'static str,
    },
    /// The `.env` file exists and can't be read. The message does not quote its lines, which hold
    /// secrets.
    #[error("the .env file can't be read ({0}); each line must be NAME=value, empty, or a comment that begins with #")]
    File(String),
}

/// The environment of a process, or variables given by a test or the sandbox.
#[derive(Clone, Default)]
pub struct Env {
    variables: HashMap<String, String>,
}

/// Prints only the names, because many values are secrets.
impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

impl Env {
    /// The process' environment, completed by the `.env` file. Bytes that are not UTF-8 become
    /// U+FFFD, which the parsers reject where it matters.
    ///
    /// # Errors
    /// If the `.env` file exists and can't be read.
    pub fn of_process() -> Result<Self, ConfigError> {
        match dotenvy::dotenv() {
            Err(dotenvy::Error::LineParse(..)) => return Err(ConfigError::File("a line is malformed".to_owned())),
            Err(error) if !error.not_found() => return Err(ConfigError::File(error.to_string())),
            _ => {}
        }
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        Ok(Self::of(std::env::vars_os().map(|(name, value)| (text(name), text(value)))))
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

    /// The value of a variable without a default.
    ///
    /// # Errors
    /// If the variable is not set.
    pub fn required(&self, name: &'static str, takes: &'static str) -> Result<&str, ConfigError> {
        self.get(name).ok_or(ConfigError::Missing { name, takes })
    }

    /// A secret without a default.
    ///
    /// # Errors
    /// If the variable is not set, or `fits` rejects its value.
    pub fn secret(
        &self,
        name: &'static str,
        takes: &'static str,
        fits: impl Fn(&str) -> bool,
    ) -> Result<SecretString, ConfigError> {
        let secret = self.required(name, takes)?;
        if fits(secret) { Ok(secret.into()) } else { Err(malformed_secret(name, takes)) }
    }

    /// Secrets separated by commas, at least one, so that they can be rotated.
    ///
    /// # Errors
    /// If the variable is not set, or `fits` rejects one of its values.
    pub fn secrets(
        &self,
        name: &'static str,
        takes: &'static str,
        fits: impl Fn(&str) -> bool,
    ) -> Result<Vec<SecretString>, ConfigError> {
        let secrets: Vec<&str> = split(self.required(name, takes)?).collect();
        if secrets.is_empty() || !secrets.iter().all(|secret| fits(secret)) {
            return Err(malformed_secret(name, takes));
        }
        Ok(secrets.into_iter().map(SecretString::from).collect())
    }

    /// Values separated by commas; empty if the variable is not set.
    ///
    /// # Errors
    /// If `parse` rejects a value, or there are only commas.
    pub fn list<T>(
        &self,
        name: &'static str,
        takes: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, ConfigError> {
        let Some(list) = self.get(name) else { return Ok(Vec::new()) };
        let values = split(list).map(|text| parse(text).ok_or_else(|| malformed(name, text, takes)));
        let values: Vec<T> = values.collect::<Result<_, _>>()?;
        if values.is_empty() { Err(malformed(name, list, takes)) } else { Ok(values) }
    }

    /// The value of a variable, or the default.
    ///
    /// # Errors
    /// If `parse` rejects the value.
    pub fn parse_or<T>(
        &self,
        name: &'static str,
        default: T,
        takes: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        self.get(name).map_or(Ok(default), |text| parse(text).ok_or_else(|| malformed(name, text, takes)))
    }

    /// A duration such as `30s`, `10m` or `7d`; see [`parse_duration`].
    ///
    /// # Errors
    /// If the value is not such a duration.
    pub fn duration(&self, name: &'static str, default: Duration) -> Result<Duration, ConfigError> {
        self.parse_or(name, default, "a duration such as 30s, 10m or 7d, from 1ms to 100 years", parse_duration)
    }

    /// A duration of at least `shortest`.
    ///
    /// # Errors
    /// If the value is not a duration, or is shorter.
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

    /// `CURRENCY`: a currency that shoppers can pay in.
    ///
    /// # Errors
    /// If the value is not the code of such a currency.
    pub fn currency(&self) -> Result<Currency, ConfigError> {
        let takes = "an ISO 4217 code of a currency that shoppers pay with, such as usd";
        self.parse_or("CURRENCY", Currency::USD, takes, |text| text.parse().ok().filter(Currency::is_tender))
    }

    /// `PUBLIC_URL`, without a trailing slash.
    ///
    /// # Errors
    /// If the value is not an `http://` or `https://` address.
    pub fn public_url(&self) -> Result<String, ConfigError> {
        self.web_address("PUBLIC_URL", "http://localhost:3000")
    }

    /// An `http://` or `https://` address, without a trailing slash.
    ///
    /// # Errors
    /// If the value is not such an address, or has a user, a password, a query or a fragment.
    pub fn web_address(&self, name: &'static str, default: &str) -> Result<String, ConfigError> {
        self.parse_or(name, default.to_owned(), "an address such as https://shop.example", |text| {
            let after = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
            // The URL standard repairs these characters; other parsers may not.
            let repaired = |c: char| c.is_whitespace() || c.is_control() || "\\\"<>`{}|^\u{fffd}".contains(c);
            if after.starts_with('/') || after.contains(repaired) {
                return None;
            }
            let url = Url::parse(text).ok()?;
            let plain = url.username().is_empty() && url.password().is_none() && has_plain_host(&url);
            (plain && url.query().is_none() && url.fragment().is_none()).then(|| text.trim_end_matches('/').to_owned())
        })
    }

    /// `QUEUE_LISTEN`
    ///
    /// # Errors
    /// If the value is neither `on` nor `off`.
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
    /// If the value is not a duration; see [`parse_duration`].
    pub fn shutdown_timeout(&self) -> Result<Duration, ConfigError> {
        self.duration("SHUTDOWN_TIMEOUT", Duration::from_secs(30))
    }

    /// `PAYMENT_LINK_TTL`
    ///
    /// # Errors
    /// If the value is not a duration; see [`parse_duration`].
    pub fn payment_link_ttl(&self) -> Result<Duration, ConfigError> {
        self.duration("PAYMENT_LINK_TTL", Duration::from_secs(7 * 24 * 60 * 60))
    }
}

/// The shortest duration; a shorter one would round to zero.
const SHORTEST: Duration = Duration::from_millis(1);
/// The longest duration, a hundred years: sums of times stay within the range of Postgres and
/// chrono.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Parses a duration such as `30s`, `10m` or `7d`. `None` unless it is from 1 ms to 100 years.
pub fn parse_duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok().filter(|duration| (SHORTEST..=LONGEST).contains(duration))
}

/// Whether `text` can be sent in a header: visible ASCII.
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether the host is an IP address or consists of valid DNS labels. The URL standard also allows
/// `https://shop..example` and `https://"`.
pub fn has_plain_host(url: &Url) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    url.domain().is_none_or(|domain| domain.split('.').all(|label| !label.is_empty() && label.bytes().all(plain)))
}

fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// The maximum number of characters of a value in an error message.
const SHOWN: usize = 100;

fn malformed(name: &'static str, value: &str, takes: &'static str) -> ConfigError {
    // The part of an address before an `@` may be a password.
    if value.contains('@') {
        return malformed_secret(name, takes);
    }
    let shown: String = value.chars().take(SHOWN).collect();
    let more = if shown.len() < value.len() { "…" } else { "" };
    ConfigError::Malformed { name, value: format!("{shown:?}{more}"), takes }
}

fn malformed_secret(name: &'static str, takes: &'static str) -> ConfigError {
    ConfigError::Malformed { name, value: "malformed".to_owned(), takes }
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
            r#"SHUTDOWN_TIMEOUT is "soon"; it takes a duration such as 30s, 10m or 7d, from 1ms to 100 years"#
        );
        assert!(env.payment_link_ttl().is_err());
    }

    #[test]
    fn a_missing_value_is_named() {
        let env = Env::of([("API_KEY", "  ")]);
        let error = env.secrets("API_KEY", "one key, or several separated by commas", is_token).unwrap_err();
        assert_eq!(error.to_string(), "API_KEY is not set; it takes one key, or several separated by commas");
    }
}
