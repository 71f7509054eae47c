//! Reads and validates environment variables.
//!
//! A variable is a field of a struct that derives [`clap::Args`]: `env` names it, the doc comment is
//! its help, `value_name` states what it takes, `default_value` and `value_parser` the rest. Every
//! value is checked at startup; an error names the variable and what it takes. No variable can be
//! given as an argument, because other users of a machine can read arguments. A list is a field of
//! type `std::vec::Vec`: clap would take `Vec` for an argument that is repeated.

mod values;

use std::{collections::HashMap, error::Error, ffi::OsStr, fmt, fs, time::Duration};

use clap::{
    Args, Command,
    error::{ContextKind, ContextValue},
};

pub use values::{
    DURATION, has_plain_host, is_token, list, parse_duration, parsed, redacted, text, value, web_address,
};

/// The names that curl accepts for a proxy (<https://curl.se/docs/manpage.html#ENVIRONMENT>), the
/// first that is set counts.
const PROXY_NAMES: [(&str, &[&str]); 2] =
    [("HTTPS_PROXY", &["https_proxy", "ALL_PROXY", "all_proxy"]), ("NO_PROXY", &["no_proxy"])];

/// The secret variables. The value of each can be in a file instead, named by the variable with
/// [`FILE`] after its name.
pub const SECRETS: [&str; 8] = [
    "DATABASE_URL",
    "DATABASE_LISTEN_URL",
    "PGPASSWORD",
    "API_KEY",
    "STRIPE_WEBHOOK_SECRET",
    "STRIPE_SECRET_KEY",
    "HTTPS_PROXY",
    "OTEL_EXPORTER_OTLP_HEADERS",
];

/// The end of a variable's name that names a file instead of a value.
pub const FILE: &str = "_FILE";

/// A missing or malformed setting. The message does not repeat secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    /// `value` of the variable `name` can't be used; it takes `takes`.
    pub fn malformed(name: &str, value: impl fmt::Display, takes: &str) -> Self {
        Self(format!("{name} is {value}; it takes {takes}"))
    }

    /// The `.env` file exists and can't be read. The message does not quote its lines, which hold
    /// secrets.
    fn file(why: impl fmt::Display) -> Self {
        Self(format!(
            "the .env file can't be read ({why}); each line must be NAME=value, empty, or a comment that begins with #"
        ))
    }
}

/// Variables that both programs read.
#[derive(Debug, Clone, Args)]
pub struct SharedConfig {
    /// Where browsers reach the api, with the path below which a proxy serves it, if any
    #[arg(long, env, default_value = "http://localhost:3000")]
    #[arg(value_name = "an address such as https://shop.example or https://shop.example/tracker")]
    #[arg(value_parser = value(web_address))]
    pub public_url: String,
    /// How long a stopping process waits for work in progress
    #[arg(long, env, default_value = "30s", value_name = DURATION, value_parser = value(parse_duration))]
    pub shutdown_timeout: Duration,
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
    /// U+FFFD, which the parsers reject where it matters. The other names that curl knows for a
    /// proxy count as `HTTPS_PROXY` and `NO_PROXY`. Secrets are read from their files.
    ///
    /// # Errors
    /// If the `.env` file exists and can't be read, or a secret's file.
    pub fn of_process() -> Result<Self, ConfigError> {
        match dotenvy::dotenv() {
            Err(dotenvy::Error::LineParse(..)) => return Err(ConfigError::file("a line is malformed")),
            Err(error) if !error.not_found() => return Err(ConfigError::file(error)),
            _ => {}
        }
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let mut env = Self::of(std::env::vars_os().map(|(name, value)| (text(name), text(value))));
        env.read_secrets()?;
        for (name, others) in PROXY_NAMES {
            if let Some(value) = others.iter().find_map(|other| env.get(other)).map(str::to_owned) {
                env.or_set(name, value);
            }
        }
        Ok(env)
    }

    /// The given variables and no others.
    pub fn of<K: Into<String>, V: Into<String>>(variables: impl IntoIterator<Item = (K, V)>) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { variables }
    }

    /// Sets each secret whose file is given to the content of the file, without line breaks at its
    /// end.
    fn read_secrets(&mut self) -> Result<(), ConfigError> {
        for name in SECRETS {
            let of_file = format!("{name}{FILE}");
            let Some(path) = self.get(&of_file) else { continue };
            let takes = format!("the path of a file that holds the value of {name}");
            let malformed = |why: String| ConfigError::malformed(&of_file, format_args!("{path:?} ({why})"), &takes);
            if self.get(name).is_some() {
                return Err(malformed(format!("but {name} is set, too; remove one of them")));
            }
            let content = fs::read_to_string(path).map_err(|error| malformed(error.to_string()))?;
            let value = content.trim_end_matches(['\r', '\n']);
            if value.trim().is_empty() {
                return Err(malformed("the file is empty".to_owned()));
            }
            self.set(name, value);
        }
        Ok(())
    }

    /// Sets a variable unless it has a value.
    pub fn or_set(&mut self, name: &str, value: impl Into<String>) {
        if self.get(name).is_none() {
            self.set(name, value);
        }
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.insert(name.to_owned(), value.into());
    }

    /// The value, trimmed; an empty one counts as not set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// Reads and validates the variables of `T`.
    ///
    /// # Errors
    /// The first variable that is malformed, or else the first that is missing.
    pub fn read<T: Args>(&self) -> Result<T, ConfigError> {
        let command = T::augment_args(Command::new("").no_binary_name(true));
        let given = variables(&command).filter_map(|known| Some(format!("--{}={}", known.flag, self.get(known.name)?)));
        // clap itself would read the environment of the process, and take empty values for set.
        let parser = command.clone().mut_args(|arg| arg.env(None));
        let read = parser.try_get_matches_from(given).and_then(|matches| T::from_arg_matches(&matches));
        read.map_err(|error| describe(&command, &error))
    }
}

fn describe(command: &Command, error: &clap::Error) -> ConfigError {
    let named = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(named)) => named,
        Some(ContextValue::Strings(all)) => all.first().map_or("", String::as_str),
        _ => "",
    };
    let flag = named.trim_start_matches("--").split(' ').next();
    let Some(Variable { name, takes, .. }) = variables(command).find(|known| Some(known.flag) == flag) else {
        return ConfigError(error.kind().to_string());
    };
    match error.source() {
        Some(value) => ConfigError::malformed(name, value, takes),
        None => ConfigError(format!("{name} is not set; it takes {takes}")),
    }
}

/// A description of a variable.
#[derive(Debug, Clone)]
pub struct Variable<'a> {
    /// The name.
    pub name: &'a str,
    /// The argument that stands for the variable while its value is parsed.
    flag: &'a str,
    /// The default value, `required`, or `none`.
    pub default: &'a str,
    /// The values that the variable takes.
    pub takes: &'a str,
    /// The meaning.
    pub help: String,
}

/// Describes the variables among the arguments of `command`.
pub fn variables(command: &Command) -> impl Iterator<Item = Variable<'_>> {
    command.get_arguments().filter_map(|arg| {
        let default = arg.get_default_values().first().and_then(|text| text.to_str()).filter(|text| !text.is_empty());
        Some(Variable {
            name: arg.get_env().and_then(OsStr::to_str)?,
            flag: arg.get_long().unwrap_or_default(),
            default: default.unwrap_or(if arg.is_required_set() { "required" } else { "none" }),
            takes: arg.get_value_names()?.first()?,
            help: arg.get_help().map(ToString::to_string).unwrap_or_default(),
        })
    })
}

/// The part of `--help` that lists the variables of `command`.
pub fn help(command: &Command) -> String {
    let lines = variables(command).map(|Variable { name, default, takes, help, .. }| {
        let default = match default {
            "none" => String::new(),
            "required" => " [required]".to_owned(),
            value => format!(" [default: {value}]"),
        };
        let file = if SECRETS.contains(&name) { format!(" or {name}{FILE}") } else { String::new() };
        format!("\n  {name}{file}{default}\n          {help}\n          Takes {takes}")
    });
    format!("Environment variables ({FILE}: the path of a file that holds the value):{}", lines.collect::<String>())
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Args)]
    struct Keys {
        #[arg(long, env = "API_KEY", value_name = "one key, or several separated by commas")]
        #[arg(value_parser = redacted(list(|key| is_token(key).then(|| key.to_owned()))))]
        keys: std::vec::Vec<String>,
        #[arg(long, env, value_name = "folders")]
        path: Option<String>,
    }

    fn error<T: Args>(name: &str, value: &str) -> String {
        Env::of([(name, value)]).read::<T>().err().unwrap().to_string()
    }

    #[test]
    fn secrets_are_read_from_files() {
        let path = std::env::temp_dir().join(format!("secret-{}", uuid::Uuid::new_v4()));
        let read = |content: &[u8], others: &[(&str, &str)]| {
            fs::write(&path, content).unwrap();
            let file = ("API_KEY_FILE", path.to_str().unwrap());
            let mut env = Env::of(others.iter().copied().chain([file]));
            env.read_secrets().map(|()| env.get("API_KEY").map(str::to_owned)).map_err(|error| error.to_string())
        };
        assert_eq!(read(b"hush hush\r\n\n", &[("API_KEY", " ")]), Ok(Some("hush hush".to_owned())));
        let path = path.display();
        let takes = "it takes the path of a file that holds the value of API_KEY";
        for (content, others, why) in [
            (&b"hush"[..], &[("API_KEY", "hush")][..], "but API_KEY is set, too; remove one of them"),
            (b"\n", &[], "the file is empty"),
            (b"hush\xff", &[], "stream did not contain valid UTF-8"),
        ] {
            assert_eq!(read(content, others), Err(format!(r#"API_KEY_FILE is "{path}" ({why}); {takes}"#)));
        }
        fs::remove_file(path.to_string()).unwrap();
        let missing = Env::of([("API_KEY_FILE", path.to_string())]).read_secrets().unwrap_err().to_string();
        assert!(missing.starts_with(&format!(r#"API_KEY_FILE is "{path}" (No such file"#)), "{missing}");
    }

    #[test]
    fn missing_and_malformed_values_are_reported_by_name() {
        assert_eq!(
            error::<Keys>("API_KEY", "  "),
            "API_KEY is not set; it takes one key, or several separated by commas"
        );
        assert_eq!(
            error::<Keys>("API_KEY", "ö"),
            "API_KEY is malformed; it takes one key, or several separated by commas"
        );
        let read: Keys = Env::of([("API_KEY", " a,, b ")]).read().unwrap();
        assert_eq!(read.keys, ["a", "b"]);
        assert_eq!(read.path, None, "only the given variables are read");
        assert_eq!(
            error::<SharedConfig>("SHUTDOWN_TIMEOUT", "soon"),
            r#"SHUTDOWN_TIMEOUT is "soon"; it takes a duration such as 30s, 10m or 7d, from 1ms to 100 years"#
        );
    }
}
