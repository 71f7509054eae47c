//! The api's configuration, read from environment variables.

use std::{net::SocketAddr, time::Duration};

use axum::http::HeaderValue;
use common::{
    config::{ConfigError, Env, is_token},
    money::Currency,
    payment_links::hosts::CheckoutHosts,
};
use ipnet::IpNet;
use secrecy::SecretString;

use crate::auth::keys::BootstrapKey;

/// The api's settings; `docs/configuration.md` describes each variable.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// `API_KEY`, hashed.
    pub api_keys: Vec<BootstrapKey>,
    /// `BIND_ADDR`
    pub bind_addr: SocketAddr,
    /// `METRICS_ADDR`; `None` if metrics are not served.
    pub metrics_addr: Option<SocketAddr>,
    /// `PUBLIC_URL`, without a trailing slash.
    pub public_url: String,
    /// `STRIPE_WEBHOOK_SECRET`
    pub webhook_secrets: Vec<SecretString>,
    /// Hosts to which shoppers may be sent to pay: `CHECKOUT_HOSTS` and Stripe's own.
    pub checkout_hosts: CheckoutHosts,
    /// `CURRENCY`
    pub currency: Currency,
    /// `RATE_LIMIT_PER_MINUTE`; 0 means no limit.
    pub rate_limit_per_minute: u32,
    /// `TRUSTED_PROXIES`
    pub trusted_proxies: Vec<IpNet>,
    /// `CORS_ORIGINS`
    pub cors_origins: Vec<HeaderValue>,
    /// `PAYMENT_LINK_TTL`
    pub payment_link_ttl: Duration,
    /// `PAYMENT_LINK_WAIT`
    pub payment_link_wait: Duration,
    /// `SHUTDOWN_TIMEOUT`
    pub shutdown_timeout: Duration,
}

impl ApiConfig {
    /// Reads and validates all variables.
    ///
    /// # Errors
    /// The first variable that is missing or malformed.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        Ok(Self {
            api_keys: env
                .secrets("API_KEY", "one key, or several separated by commas", is_key)?
                .iter()
                .map(BootstrapKey::new)
                .collect(),
            bind_addr: env.parse_or(
                "BIND_ADDR",
                SocketAddr::from(([0, 0, 0, 0], 3000)),
                "an address and a port such as 0.0.0.0:3000",
                |text| text.parse().ok(),
            )?,
            metrics_addr: env.parse_or(
                "METRICS_ADDR",
                None,
                "an address and a port such as 127.0.0.1:9091",
                |text| text.parse().ok().map(Some),
            )?,
            public_url: env.public_url()?,
            webhook_secrets: env.secrets(
                "STRIPE_WEBHOOK_SECRET",
                "the signing secret of Stripe's webhook endpoint (whsec_…), or several separated by commas",
                is_webhook_secret,
            )?,
            checkout_hosts: CheckoutHosts::from_env(env)?,
            currency: env.currency()?,
            rate_limit_per_minute: env.parse_or(
                "RATE_LIMIT_PER_MINUTE",
                100,
                "a whole number; 0 switches the limit off",
                |text| text.parse().ok(),
            )?,
            trusted_proxies: env.list(
                "TRUSTED_PROXIES",
                "networks such as 10.0.0.0/8, separated by commas",
                |text| text.parse().ok().or_else(|| text.parse().ok().map(|host: std::net::IpAddr| IpNet::from(host))),
            )?,
            cors_origins: env.list(
                "CORS_ORIGINS",
                "origins such as https://shop.example, without a path, separated by commas",
                crate::http::cors::parse_origin,
            )?,
            payment_link_ttl: env.payment_link_ttl()?,
            payment_link_wait: env.duration("PAYMENT_LINK_WAIT", Duration::from_secs(10))?,
            shutdown_timeout: env.shutdown_timeout()?,
        })
    }
}

/// Whether a client can send `text` as `x-api-key`.
fn is_key(text: &str) -> bool {
    !text.contains(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER)
}

/// Whether `text` can be a signing secret. Stripe's begin with `whsec_`; a fake Stripe may sign
/// with any word, except one that looks like a Stripe id or API key, which is easily confused with
/// the secret.
fn is_webhook_secret(text: &str) -> bool {
    const OTHERS: [&str; 4] = ["we_", "sk_", "rk_", "pk_"];
    is_token(text) && text != "whsec_" && !OTHERS.iter().any(|other| text.starts_with(other))
}
