//! Logging, and the setup of traces.

use std::io::IsTerminal;

use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt, filter_fn},
    fmt,
    layer::SubscriberExt,
    registry,
    util::SubscriberInitExt,
};

use super::traces::{SPAN_TARGET, TraceConfig, Traces};
use crate::config::{text, value};

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Human-readable lines.
    Pretty,
    /// One JSON object per line.
    Json,
}

/// The log format and filter.
#[derive(Debug, Clone, clap::Args)]
pub struct LogConfig {
    /// Format of the log: `json` writes one object per line
    #[arg(long, env = "LOG_FORMAT", default_value = "pretty", value_name = "`pretty` or `json`")]
    #[arg(value_parser = value(parse_format))]
    pub format: LogFormat,
    /// Levels that are logged
    #[arg(long, env = "RUST_LOG", default_value = "info", value_name = "a filter such as `info` or `api=debug,info`")]
    #[arg(value_parser = text(|filter| EnvFilter::try_new(filter).is_ok()))]
    pub filter: String,
}

fn parse_format(text: &str) -> Option<LogFormat> {
    match text {
        "pretty" => Some(LogFormat::Pretty),
        "json" => Some(LogFormat::Json),
        _ => None,
    }
}

/// Starts logging to standard error. Later calls in the same process have no effect.
pub fn init(config: &LogConfig) {
    let _ = registry().with(lines(config)).try_init();
}

/// Starts logging, and exporting traces if a collector is configured.
pub fn init_with_traces(config: &LogConfig, traces: &TraceConfig) -> Traces {
    let Some((traces, tracer)) = traces.start() else {
        init(config);
        return Traces::default();
    };
    // Export only this program's spans, and no events, which belong to the log.
    let ours = filter_fn(|metadata| metadata.is_span() && metadata.target() == SPAN_TARGET);
    let spans = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false)
        .with_filter(ours);
    let _ = registry().with(lines(config)).with(spans).try_init();
    traces
}

/// Whether a library logs untrusted input, which may be long or secret: h2 logs the paths of
/// malformed requests, which may contain a recovery token; async-stripe (`stripe_…`) logs unknown
/// words of events, and every event of an API version other than its own. `RUST_LOG` can't enable
/// these logs.
fn repeats_input(target: &str) -> bool {
    target == "h2" || target.starts_with("h2::") || target.starts_with("stripe_")
}

fn lines(config: &LogConfig) -> impl Layer<Registry> + use<> {
    // Without this, the spans for traces would be printed in every line.
    let filter = EnvFilter::new(format!("{},{SPAN_TARGET}=off", config.filter));
    let filter = filter.and(filter_fn(|metadata| !repeats_input(metadata.target())));
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines = match config.format {
        LogFormat::Pretty => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    lines.with_filter(filter)
}
