//! The worker's settings, read from environment variables.

use std::{net::SocketAddr, time::Duration};

use common::{
    clock::Clock,
    config::{ConfigError, Env, is_token},
    jobs::QUEUES,
    maintenance::RecordRetention,
    payment_links::hosts::CheckoutHosts,
};
use queue::{Cron, Retention};
use secrecy::SecretString;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CRON: &str = "a cron expression with seconds, in UTC, such as `0 */5 * * * *`";

/// The worker's settings; `docs/configuration.md` describes each variable.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// `PUBLIC_URL`, without a trailing slash.
    pub public_url: String,
    /// `STRIPE_SECRET_KEY`
    pub stripe_secret_key: SecretString,
    /// `STRIPE_API_URL`, without a trailing slash.
    pub stripe_api_url: String,
    /// Hosts that a session's URL may have: `CHECKOUT_HOSTS` and Stripe's own.
    pub checkout_hosts: CheckoutHosts,
    /// `STRIPE_RATE`: calls per second, all workers together; 0 means no limit.
    pub stripe_rate: u32,
    /// `CART_TTL`
    pub cart_ttl: Duration,
    /// `WORKER_CONCURRENCY`
    pub concurrency: usize,
    /// `WORKER_QUEUES`; empty means all.
    pub queues: Vec<&'static str>,
    /// `EXPIRY_SCHEDULE`
    pub expiry_schedule: Cron,
    /// `ROLLUP_SCHEDULE`
    pub rollup_schedule: Cron,
    /// `RETAIN_DONE_JOBS` and `RETAIN_DEAD_JOBS`
    pub job_retention: Retention,
    /// `RETAIN_EVENTS`, `RETAIN_IDEMPOTENCY_KEYS` and `RETAIN_SLOTS`
    pub record_retention: RecordRetention,
    /// `RETAIN_PERSONAL_DATA`; `None` means as long as the cart.
    pub retain_personal_data: Option<Duration>,
    /// `HEALTH_ADDR`
    pub health_addr: Option<SocketAddr>,
    /// Lifetime of a lease without renewal. Jobs of a killed worker run again within this time and
    /// one more second.
    pub lease: Duration,
    /// `SHUTDOWN_TIMEOUT`
    pub shutdown_timeout: Duration,
}

impl WorkerConfig {
    /// Reads and validates all variables.
    ///
    /// # Errors
    /// The first variable that is missing or malformed.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        Ok(Self {
            public_url: env.public_url()?,
            stripe_secret_key: env.secret(
                "STRIPE_SECRET_KEY",
                "Stripe's secret or restricted key (sk_… or rk_…)",
                is_stripe_key,
            )?,
            stripe_api_url: env.web_address("STRIPE_API_URL", "https://api.stripe.com")?,
            checkout_hosts: CheckoutHosts::from_env(env)?,
            stripe_rate: env.parse_or(
                "STRIPE_RATE",
                80,
                "calls a second, a whole number up to 10000; 0 switches the limit off",
                |text| text.parse().ok().filter(|rate| *rate <= 10_000),
            )?,
            cart_ttl: env.duration("CART_TTL", 30 * DAY)?,
            concurrency: env.parse_or("WORKER_CONCURRENCY", 16, "a whole number from 1 to 1000", |text| {
                text.parse().ok().filter(|jobs| (1..=1000).contains(jobs))
            })?,
            queues: env.list(
                "WORKER_QUEUES",
                "queues separated by commas: payment-links, expiry, analytics, maintenance",
                |text| QUEUES.into_iter().find(|queue| *queue == text),
            )?,
            expiry_schedule: schedule(env, "EXPIRY_SCHEDULE", "0 */5 * * * *")?,
            rollup_schedule: schedule(env, "ROLLUP_SCHEDULE", "0 10 0 * * *")?,
            job_retention: Retention {
                done: env.duration("RETAIN_DONE_JOBS", DAY)?,
                dead: env.duration("RETAIN_DEAD_JOBS", 30 * DAY)?,
            },
            record_retention: RecordRetention {
                events: env.duration_of_at_least(
                    "RETAIN_EVENTS",
                    30 * DAY,
                    RecordRetention::SHORTEST_EVENTS,
                    "a duration of at least 3d, for which Stripe may repeat an event",
                )?,
                idempotency_keys: env.duration_of_at_least(
                    "RETAIN_IDEMPOTENCY_KEYS",
                    DAY,
                    RecordRetention::SHORTEST_KEYS,
                    "a duration of at least 24h, for which a key is promised to work",
                )?,
                slots: env.duration("RETAIN_SLOTS", 30 * DAY)?,
            },
            retain_personal_data: retain_personal_data(env)?,
            health_addr: env.parse_or("HEALTH_ADDR", None, "an address and a port such as 0.0.0.0:9090", |text| {
                text.parse().ok().map(Some)
            })?,
            lease: queue::Config::default().lease,
            shutdown_timeout: env.shutdown_timeout()?,
        })
    }

    /// Whether this process takes jobs of `queue`.
    pub fn serves(&self, queue: &str) -> bool {
        self.queues.is_empty() || self.queues.contains(&queue)
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

/// `None` if the variable is not set: carts are then never anonymized.
fn retain_personal_data(env: &Env) -> Result<Option<Duration>, ConfigError> {
    const NAME: &str = "RETAIN_PERSONAL_DATA";
    const TAKES: &str =
        "a duration of at least 1d such as 365d; not set keeps what is personal for as long as its cart";
    let set = env.get(NAME).is_some();
    set.then(|| env.duration_of_at_least(NAME, DAY, DAY, TAKES)).transpose()
}

fn schedule(env: &Env, name: &'static str, default: &str) -> Result<Cron, ConfigError> {
    let expression = env.get(name).unwrap_or(default);
    let malformed = |why: &str| ConfigError::Malformed { name, value: format!("{expression:?} ({why})"), takes: CRON };
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
    fn the_prefix_of_a_key_tells_its_mode() {
        let known = ["sk_live_1", "rk_live_1", "sk_test_1", "rk_test_1"].map(livemode);
        assert_eq!(known, [Some(true), Some(true), Some(false), Some(false)]);
        let unknown = ["sk_livery_1", "sk_live", "pk_live_1", "xsk_live_1", "fake", ""].map(livemode);
        assert_eq!(unknown, [None; 6]);
    }
}
