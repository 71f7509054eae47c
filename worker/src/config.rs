//! The worker's environment variables.

use std::{net::SocketAddr, time::Duration};

use clap::{Args, Command};
use common::{
    clock::Clock,
    config::{ConfigError, DURATION, SharedConfig, is_token, list, parse_duration, parsed, redacted, value},
    db::DatabaseConfig,
    http_client::ProxyConfig,
    jobs::QUEUES,
    maintenance::RecordRetention,
    observability::{logs::LogConfig, traces::TraceConfig},
    payment_links::{CheckoutSettings, hosts::CheckoutHosts},
};
use queue::Cron;
use secrecy::{ExposeSecret, SecretString};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CRON: &str = "a cron expression with seconds, in UTC, such as `0 */5 * * * *`";

/// The worker's settings.
#[derive(Debug, Clone, Args)]
pub struct WorkerConfig {
    /// Key for the Stripe API; the api has none
    #[arg(long, env, value_name = "Stripe's secret or restricted key (sk_… or rk_…)")]
    #[arg(value_parser = redacted(value(|key| is_stripe_key(key).then(|| SecretString::from(key)))))]
    pub stripe_secret_key: SecretString,
    /// Calls to Stripe per second, all workers together
    #[arg(long, env, default_value = "80")]
    #[arg(value_name = "calls a second, a whole number up to 10000; 0 switches the limit off")]
    #[arg(value_parser = value(|text| text.parse().ok().filter(|rate: &u32| *rate <= 10_000)))]
    pub stripe_rate: u32,
    /// `PUBLIC_URL` and `SHUTDOWN_TIMEOUT`
    #[command(flatten)]
    pub shared: SharedConfig,
    /// `CHECKOUT_HOSTS` and `STRIPE_API_URL`
    #[command(flatten)]
    pub checkout_hosts: CheckoutHosts,
    /// `CHECKOUT_SHIPPING_COUNTRIES` and the other settings of Stripe's page
    #[command(flatten)]
    pub checkout: CheckoutSettings,
    /// `HTTPS_PROXY` and `NO_PROXY`
    #[command(flatten)]
    pub proxy: ProxyConfig,
    /// Age at which an abandoned cart expires
    #[arg(long, env, default_value = "30d", value_name = DURATION, value_parser = value(parse_duration))]
    pub cart_ttl: Duration,
    /// Number of jobs that the process runs at once
    #[arg(long, env = "WORKER_CONCURRENCY", default_value = "16", value_name = "a whole number from 1 to 1000")]
    #[arg(value_parser = value(|text| text.parse().ok().filter(|jobs: &usize| (1..=1000).contains(jobs))))]
    pub concurrency: usize,
    /// Queues whose jobs the process runs; all if not set
    #[arg(long, env = "WORKER_QUEUES", default_value = "")]
    #[arg(value_name = "queues separated by commas: payment-links, expiry, analytics, maintenance")]
    #[arg(value_parser = list(|text| QUEUES.into_iter().find(|queue| *queue == text)))]
    pub queues: std::vec::Vec<&'static str>,
    /// When carts expire
    #[arg(long, env, default_value = "0 */5 * * * *", value_name = CRON, value_parser = parse_schedule)]
    pub expiry_schedule: Cron,
    /// When the counts of carts are added up, besides every minute
    #[arg(long, env, default_value = "0 10 0 * * *", value_name = CRON, value_parser = parse_schedule)]
    pub rollup_schedule: Cron,
    /// How long done jobs are kept
    #[arg(long, env, default_value = "1d", value_name = DURATION, value_parser = value(parse_duration))]
    pub retain_done_jobs: Duration,
    /// How long dead jobs are kept
    #[arg(long, env, default_value = "30d", value_name = DURATION, value_parser = value(parse_duration))]
    pub retain_dead_jobs: Duration,
    /// `RETAIN_EVENTS`, `RETAIN_IDEMPOTENCY_KEYS`, `RETAIN_SLOTS` and `RETAIN_AUDIT`
    #[command(flatten)]
    pub record_retention: RecordRetention,
    /// How long after their last change recovered and expired carts are anonymized; never if not set
    #[arg(long, env, value_name = "a duration of at least 1d such as 365d")]
    #[arg(value_parser = value(|text| parse_duration(text).filter(|kept| *kept >= DAY)))]
    pub retain_personal_data: Option<Duration>,
    /// Where `/healthz`, `/readyz` and `/metrics` are served
    #[arg(long, env, value_name = "an address and a port such as 0.0.0.0:9090")]
    #[arg(value_parser = parsed::<SocketAddr>)]
    pub health_addr: Option<SocketAddr>,
    /// Lifetime of a lease without renewal. Jobs of a killed worker run again within this time and
    /// one more second.
    #[arg(skip = queue::Config::default().lease)]
    pub lease: Duration,
}

/// All variables of the worker, as arguments.
pub fn variables() -> Command {
    let command = WorkerConfig::augment_args(DatabaseConfig::augment_args(Command::new("worker")));
    TraceConfig::augment_args(LogConfig::augment_args(command))
}

impl WorkerConfig {
    /// Whether this process takes jobs of `queue`.
    pub fn serves(&self, queue: &str) -> bool {
        self.queues.is_empty() || self.queues.contains(&queue)
    }

    /// Checks that the variables fit together.
    ///
    /// # Errors
    /// A key for live mode with a `PUBLIC_URL` that is not https. Stripe would refuse every session:
    /// "Livemode requests must always be redirected via HTTPS"
    /// (<https://docs.stripe.com/api/checkout/sessions/create#create_checkout_session-success_url>).
    pub fn check(&self) -> Result<(), ConfigError> {
        let is_live = livemode(self.stripe_secret_key.expose_secret()) == Some(true);
        if !is_live || self.shared.public_url.starts_with("https://") {
            return Ok(());
        }
        let takes = "an https:// address with the live key in STRIPE_SECRET_KEY, because Stripe refuses http return \
                     addresses in live mode; set PUBLIC_URL to the api's https address, or use a test key (sk_test_…)";
        Err(ConfigError::malformed("PUBLIC_URL", format_args!("{:?}", self.shared.public_url), takes))
    }
}

/// Whether `text` can be a secret key. Stripe's keys begin with `sk_` or `rk_`. Other words are
/// allowed for a fake Stripe, except publishable keys and webhook secrets or ids.
fn is_stripe_key(text: &str) -> bool {
    const OTHERS: [&str; 3] = ["pk_", "whsec_", "we_"];
    const PREFIXES: [&str; 6] = ["sk_", "rk_", "sk_test_", "sk_live_", "rk_test_", "rk_live_"];
    is_token(text) && !PREFIXES.contains(&text) && !OTHERS.iter().any(|other| text.starts_with(other))
}

/// Whether a key is for live mode (real money); `None` if its prefix does not show the mode.
pub(crate) fn livemode(key: &str) -> Option<bool> {
    let (_, mode) = key.split_once("sk_").or_else(|| key.split_once("rk_")).filter(|(before, _)| before.is_empty())?;
    match mode.split_once('_')?.0 {
        "live" => Some(true),
        "test" => Some(false),
        _ => None,
    }
}

fn parse_schedule(expression: &str) -> Result<Cron, String> {
    let malformed = |why: &str| format!("{expression:?} ({why})");
    let cron: Cron = expression.parse().map_err(|error| malformed(&error_line(&error)))?;
    // `0 0 0 30 2 *` (30 February) is valid syntax, but has no occurrence.
    match queue::next_slot(&cron, Clock::system().now()) {
        Some(_) => Ok(cron),
        None => Err(malformed("it never comes")),
    }
}

/// The parser's message on one line.
fn error_line(error: &impl ToString) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_of_a_key_determines_its_mode() {
        let known = ["sk_live_1", "rk_live_1", "sk_test_1", "rk_test_1"].map(livemode);
        assert_eq!(known, [Some(true), Some(true), Some(false), Some(false)]);
        let unknown = ["sk_livery_1", "sk_live", "pk_live_1", "xsk_live_1", "fake", ""].map(livemode);
        assert_eq!(unknown, [None; 6]);
    }
}
