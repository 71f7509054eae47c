//! OpenTelemetry traces, disabled unless `OTEL_EXPORTER_OTLP_ENDPOINT` is set.
//!
//! A request, the attempts of its job and the calls they make are spans of one trace. They are
//! `tracing` spans with their own target, which logs exclude.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use http::Uri;
use opentelemetry::{
    Context, KeyValue,
    propagation::TextMapPropagator,
    trace::{TraceContextExt, TracerProvider},
};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{SdkTracer, SdkTracerProvider},
};
use queue::telemetry::Carrier;
use secrecy::{ExposeSecret, SecretString};
use tokio::runtime::Handle;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{
    config::{ConfigError, Env, redacted, text, value, web_address},
    http_client::{self, ProxyConfig},
};

pub use queue::telemetry::{SPAN_TARGET, current_context};

/// The time limit for the export of one batch.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stopping process waits for its last spans to be exported.
const LAST_SPANS: Duration = Duration::from_secs(5);
/// The header, and the context that jobs carry (<https://www.w3.org/TR/trace-context/>).
pub const TRACEPARENT: &str = "traceparent";

/// Where traces are exported to; without an endpoint they are disabled.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TraceConfig {
    /// OpenTelemetry collector that receives traces as OTLP over HTTP; no traces if not set
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_parser = value(traces_endpoint))]
    #[arg(value_name = "the address of a collector such as http://localhost:4318")]
    endpoint: Option<String>,
    /// Name in traces; `quick-checkout-api` or `quick-checkout-worker` if not set
    #[arg(long, env = "OTEL_SERVICE_NAME", value_name = "a name")]
    service: Option<String>,
    #[command(flatten)]
    library: LibraryConfig,
    /// The variables of the proxy belong to the program.
    #[arg(skip)]
    proxy: ProxyConfig,
}

/// Variables that the OpenTelemetry library reads itself. They are checked here, because the library
/// silently replaces some malformed values.
#[derive(Debug, Clone, Default, clap::Args)]
struct LibraryConfig {
    /// Protocol of the collector
    #[arg(long, env = "OTEL_EXPORTER_OTLP_PROTOCOL", value_name = "`http/protobuf`")]
    #[arg(value_parser = text(|text| text == "http/protobuf"))]
    protocol: Option<String>,
    /// Headers of requests to the collector
    #[arg(long, env = "OTEL_EXPORTER_OTLP_HEADERS", value_name = PAIRS)]
    #[arg(value_parser = redacted(value(|text| are_pairs(text).then(|| SecretString::from(text)))))]
    headers: Option<SecretString>,
    /// Which traces are exported; all if not set, except those that a client excludes
    #[arg(long, env = "OTEL_TRACES_SAMPLER", value_name = "a sampler such as parentbased_traceidratio")]
    #[arg(value_parser = text(is_sampler))]
    sampler: Option<String>,
    /// Share of the traces that a ratio sampler exports
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", value_name = "a number from 0 to 1")]
    #[arg(value_parser = value(|text| text.parse().ok().filter(|share: &f64| (0.0..=1.0).contains(share))))]
    share: Option<f64>,
    /// Attributes of every trace
    #[arg(long, env = "OTEL_RESOURCE_ATTRIBUTES", value_name = PAIRS, value_parser = text(are_pairs))]
    attributes: Option<String>,
    /// Time between two exports
    #[arg(long, env = "OTEL_BSP_SCHEDULE_DELAY", value_name = "milliseconds, a whole number from 1 to 3600000")]
    #[arg(value_parser = value(|text| text.parse().ok().filter(|delay: &u32| (1..=3_600_000).contains(delay))))]
    delay: Option<u32>,
}

impl LibraryConfig {
    /// The headers, which the library itself reads from the environment alone and not from
    /// `OTEL_EXPORTER_OTLP_HEADERS_FILE`.
    fn headers(&self) -> HashMap<String, String> {
        let pairs = self.headers.as_ref().map_or("", |headers| headers.expose_secret()).split(',');
        let trimmed = pairs.filter_map(|pair| pair.split_once('=')).map(|(name, value)| (name.trim(), value.trim()));
        trimmed.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

impl TraceConfig {
    /// Reads the variables; `service` is the default of `OTEL_SERVICE_NAME`. Without an endpoint the
    /// other variables are ignored.
    ///
    /// # Errors
    /// If one of the variables is malformed; the first one is reported.
    pub fn from_env(env: &Env, service: &str) -> Result<Self, ConfigError> {
        let proxy = env.read()?;
        if env.get("OTEL_EXPORTER_OTLP_ENDPOINT").is_none() {
            return Ok(Self::default());
        }
        let mut config = Self { proxy, ..env.read()? };
        config.service.get_or_insert_with(|| service.to_owned());
        Ok(config)
    }

    /// Starts exporting; `None` if no collector is configured.
    pub(crate) fn start(&self) -> Option<(Traces, SdkTracer)> {
        let endpoint = self.endpoint.as_deref()?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::new(endpoint, &self.proxy))
            .with_endpoint(endpoint)
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(TIMEOUT)
            .with_headers(self.library.headers())
            .build()
            .inspect_err(|error| tracing::error!(%error, "could not set up tracing"))
            .ok()?;
        let resource = Resource::builder()
            .with_service_name(self.service.clone().unwrap_or_default())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        queue::telemetry::carry_traces(Carrier { current, continue_from });
        let tracer = provider.tracer("quick-checkout");
        Some((Traces(Some(provider)), tracer))
    }
}

/// The address to which the collector at `base` receives traces. It must have a host, and a port after
/// a colon.
fn traces_endpoint(base: &str) -> Option<String> {
    let endpoint = format!("{}/v1/traces", web_address(base)?);
    let uri: Uri = endpoint.parse().ok()?;
    let authority = uri.authority()?;
    let has_port = authority.host() == authority.as_str() || authority.port().is_some();
    (!authority.host().is_empty() && has_port).then_some(endpoint)
}

const PAIRS: &str = "pairs such as name=value, separated by commas";

fn are_pairs(text: &str) -> bool {
    text.split(',').all(|pair| pair.split_once('=').is_some_and(|(name, _)| !name.trim().is_empty()))
}

fn is_sampler(text: &str) -> bool {
    let kind = text.strip_prefix("parentbased_").unwrap_or(text);
    matches!(kind, "always_on" | "always_off" | "traceidratio")
}

/// The trace exporter of a process; without a collector it does nothing.
#[derive(Debug, Default)]
pub struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// Exports the remaining spans, for at most five seconds.
    pub async fn end(self) {
        let Some(provider) = self.0 else { return };
        // Shutdown blocks on the exporter's thread, which needs this runtime to reach the
        // collector.
        let ended = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(LAST_SPANS)).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::warn!("the last spans were not exported in time");
        }
    }
}

/// Makes `span`, which must not have started, part of the trace in `traceparent`. If the text is
/// malformed, the span starts its own trace.
pub fn continue_from(span: &Span, traceparent: &str) {
    if span.is_disabled() {
        return;
    }
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    if context.span().span_context().is_valid() {
        let _ = span.set_parent(context);
    }
}

/// The current span as a `traceparent`.
fn current() -> Option<String> {
    let context = Span::current().context();
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&context, &mut carrier);
    carrier.remove(TRACEPARENT)
}

/// The exporter's HTTP client. The exporter runs in its own thread; the requests run on the
/// application's runtime.
#[derive(Debug)]
struct Collector {
    http: http_client::HttpClient,
    runtime: Handle,
    away: Arc<AtomicBool>,
}

impl Collector {
    fn new(endpoint: &str, proxy: &ProxyConfig) -> Self {
        let http = http_client::HttpClient::new(endpoint, TIMEOUT, proxy);
        Self { http, runtime: Handle::current(), away: Arc::default() }
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (http, away) = (self.http.clone(), self.away.clone());
        let sending = self.runtime.spawn(async move {
            let sent = http.inner().send_bytes(request).await.map_err(|error| match error.downcast() {
                Ok(error) => http.name_proxy(http_client::message(*error)).into(),
                Err(error) => error,
            });
            say(&away, &sent);
            sent
        });
        sending.await?
    }
}

/// Logs once that spans are lost, and once that exporting works again.
fn say(away: &AtomicBool, sent: &Result<Response<Bytes>, HttpError>) {
    let why = match sent {
        Ok(response) if response.status().is_success() => None,
        Ok(response) => Some(format!("it answered {}", response.status())),
        Err(error) => Some(error.to_string()),
    };
    let was_failing = away.swap(why.is_some(), Ordering::Relaxed);
    match why {
        Some(why) if !was_failing => {
            tracing::warn!(why, "could not export spans to the trace collector; they are lost")
        }
        None if was_failing => tracing::info!("exporting spans to the trace collector again"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_off_without_an_endpoint() {
        let off = TraceConfig::from_env(&Env::of([("OTEL_TRACES_SAMPLER", "sometimes")]), "shop").unwrap();
        assert_eq!(off.endpoint, None);
        let on = Env::of([("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/"), ("OTEL_SERVICE_NAME", "mine")]);
        let on = TraceConfig::from_env(&on, "shop").unwrap();
        assert_eq!(
            (on.endpoint.as_deref(), on.service.as_deref()),
            (Some("http://collector:4318/v1/traces"), Some("mine"))
        );
    }

    #[test]
    fn malformed_variables_are_named() {
        let error = |name: &'static str, value: &str| {
            let mut env = Env::of([(name, value)]);
            env.or_set("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
            TraceConfig::from_env(&env, "shop").unwrap_err().to_string()
        };
        assert!(error("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318").starts_with("OTEL_EXPORTER_OTLP_ENDPOINT is "));
        for no_address in ["http://:4318", "http://collector:port", "http://a b", "ftp://collector"] {
            assert!(error("OTEL_EXPORTER_OTLP_ENDPOINT", no_address).starts_with("OTEL_EXPORTER_OTLP_ENDPOINT is "));
        }
        assert!(error("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc").starts_with(r#"OTEL_EXPORTER_OTLP_PROTOCOL is "grpc""#));
        assert!(error("OTEL_TRACES_SAMPLER", "sometimes").starts_with("OTEL_TRACES_SAMPLER is "));
        assert!(error("OTEL_TRACES_SAMPLER_ARG", "2").starts_with("OTEL_TRACES_SAMPLER_ARG is "));
        assert!(error("OTEL_EXPORTER_OTLP_HEADERS", "secret").starts_with("OTEL_EXPORTER_OTLP_HEADERS is malformed"));
        assert!(error("OTEL_RESOURCE_ATTRIBUTES", "=x").starts_with("OTEL_RESOURCE_ATTRIBUTES is "));
        assert!(error("OTEL_BSP_SCHEDULE_DELAY", "0").starts_with("OTEL_BSP_SCHEDULE_DELAY is "));
    }
}
