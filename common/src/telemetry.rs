//! Logs.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{ConfigError, Env};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// For machines, an object a line.
    Json,
}

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// `LOG_FORMAT`
    pub format: LogFormat,
    /// `RUST_LOG`
    pub filter: String,
}

impl LogConfig {
    /// Reads `LOG_FORMAT` and `RUST_LOG`.
    ///
    /// # Errors
    /// If one of them can't be understood.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        Ok(Self {
            format: env.parse_or("LOG_FORMAT", LogFormat::Pretty, "`pretty` or `json`", |text| match text {
                "pretty" => Some(LogFormat::Pretty),
                "json" => Some(LogFormat::Json),
                _ => None,
            })?,
            filter: env.parse_or(
                "RUST_LOG",
                "info".to_owned(),
                "a filter such as `info` or `api=debug,info`",
                |text| EnvFilter::try_new(text).is_ok().then(|| text.to_owned()),
            )?,
        })
    }
}

/// Starts logging to standard error; later calls in the same process change nothing.
pub fn init(config: &LogConfig) {
    // async-stripe complains about every event of an API version other than its
    // own; this product reads events of any version.
    let filter = EnvFilter::new(format!("{},stripe_webhook=off", config.filter));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let _ = match config.format {
        LogFormat::Pretty => registry.with(lines.with_target(false)).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
}
