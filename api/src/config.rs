//! The api's environment variables.

use std::{net::SocketAddr, time::Duration};

use axum::http::HeaderValue;
use chrono_tz::Tz;
use clap::{Args, Command};
use common::{
    config::{DURATION, SharedConfig, is_token, list, parse_duration, parsed, redacted, text, value, web_address},
    db::DatabaseConfig,
    http_client::ProxyConfig,
    money::Currency,
    observability::{logs::LogConfig, traces::TraceConfig},
    payment_links::hosts::CheckoutHosts,
};
use ipnet::IpNet;
use secrecy::SecretString;

use crate::{auth::keys::BootstrapKey, http::cors::parse_origin};

/// The api's settings.
#[derive(Debug, Clone, Args)]
pub struct ApiConfig {
    /// Keys with every scope, several during a rotation; `api keys` makes others
    #[arg(long, env = "API_KEY", value_name = "one key, or several separated by commas")]
    #[arg(value_parser = redacted(list(|key| is_printable(key).then(|| BootstrapKey::new(&key.into())))))]
    pub api_keys: std::vec::Vec<BootstrapKey>,
    /// Secrets that sign Stripe's webhooks, several during a rotation
    #[arg(long, env = "STRIPE_WEBHOOK_SECRET")]
    #[arg(value_name = "the signing secret of Stripe's webhook endpoint (whsec_…), or several separated by commas")]
    #[arg(value_parser = redacted(list(|secret| is_webhook_secret(secret).then(|| SecretString::from(secret)))))]
    pub webhook_secrets: std::vec::Vec<SecretString>,
    /// Where the API and the dashboard are served
    #[arg(long, env, default_value = "0.0.0.0:3000", value_name = "an address and a port such as 0.0.0.0:3000")]
    #[arg(value_parser = parsed::<SocketAddr>)]
    pub bind_addr: SocketAddr,
    /// Where `/metrics` is served; never on `BIND_ADDR`
    #[arg(long, env, value_name = "an address and a port such as 127.0.0.1:9091")]
    #[arg(value_parser = parsed::<SocketAddr>)]
    pub metrics_addr: Option<SocketAddr>,
    /// `PUBLIC_URL` and `SHUTDOWN_TIMEOUT`
    #[command(flatten)]
    pub shared: SharedConfig,
    /// `CHECKOUT_HOSTS` and `STRIPE_API_URL`
    #[command(flatten)]
    pub checkout_hosts: CheckoutHosts,
    /// `SHOP_NAME` and `SHOP_URL`
    #[command(flatten)]
    pub shop: Shop,
    /// Currency of carts that name none, and of analytics by default
    #[arg(long, env, default_value = "usd")]
    #[arg(value_name = "an ISO 4217 code of a currency that shoppers pay with, such as usd")]
    #[arg(value_parser = parsed::<Currency>)]
    pub currency: Currency,
    /// The shop's time zone: days of analytics, and times on the dashboard
    #[arg(long, env, default_value = "UTC", value_name = "an IANA time zone such as Europe/Vienna")]
    #[arg(value_parser = parsed::<Tz>)]
    pub time_zone: Tz,
    /// Requests per minute of each client address; shoppers' pages have a limit for each link instead
    #[arg(long, env, default_value = "100", value_name = "a whole number; 0 switches both limits off")]
    #[arg(value_parser = parsed::<u32>)]
    pub rate_limit_per_minute: u32,
    /// Networks of proxies whose `X-Forwarded-For` is trusted
    #[arg(long, env, default_value = "", value_name = "networks such as 10.0.0.0/8, separated by commas")]
    #[arg(value_parser = list(parse_network))]
    pub trusted_proxies: std::vec::Vec<IpNet>,
    /// Origins whose pages may call the API from a browser
    #[arg(long, env, default_value = "")]
    #[arg(value_name = "origins such as https://shop.example, without a path, separated by commas")]
    #[arg(value_parser = list(parse_origin))]
    pub cors_origins: std::vec::Vec<HeaderValue>,
    /// How long the `recoveryUrl` of a cart works
    #[arg(long, env, default_value = "7d", value_name = DURATION, value_parser = value(parse_duration))]
    pub payment_link_ttl: Duration,
    /// How long a request for a payment link waits for the worker before it returns 202
    #[arg(long, env, default_value = "10s", value_name = DURATION, value_parser = value(parse_duration))]
    pub payment_link_wait: Duration,
}

/// How the pages for shoppers name the shop.
#[derive(Debug, Clone, Args)]
pub struct Shop {
    /// Name of the shop on the pages that shoppers see
    #[arg(id = "shop_name", long = "shop-name", env = "SHOP_NAME", value_name = "a name of 1 to 100 characters", value_parser = text(is_name))]
    pub name: Option<String>,
    /// Where the pages that shoppers see lead back to
    #[arg(
        id = "shop_url",
        long = "shop-url",
        env = "SHOP_URL",
        value_name = "an address such as https://shop.example"
    )]
    #[arg(value_parser = value(web_address))]
    pub url: Option<String>,
}

/// All variables of the api, as arguments.
pub fn variables() -> Command {
    let command = ApiConfig::augment_args(DatabaseConfig::augment_args(Command::new("api")));
    TraceConfig::augment_args(LogConfig::augment_args(ProxyConfig::augment_args(command)))
}

fn parse_network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse().ok().map(|host: std::net::IpAddr| IpNet::from(host)))
}

/// Whether a page can show `text` as a name.
fn is_name(text: &str) -> bool {
    (1..=100).contains(&text.chars().count()) && is_printable(text)
}

/// Whether `text` has no control characters, nor parts that were not UTF-8. Only then can a client
/// send it as `x-api-key`.
fn is_printable(text: &str) -> bool {
    !text.contains(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER)
}

/// Whether `text` can be a signing secret. Stripe's begin with `whsec_`; a fake Stripe may sign
/// with any word, except one that looks like a Stripe id or API key, which is easily confused with
/// the secret.
fn is_webhook_secret(text: &str) -> bool {
    const OTHERS: [&str; 4] = ["we_", "sk_", "rk_", "pk_"];
    is_token(text) && text != "whsec_" && !OTHERS.iter().any(|other| text.starts_with(other))
}
