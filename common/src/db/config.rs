//! The environment variables of the connection to Postgres.

use std::{borrow::Cow, str::FromStr};

use clap::ArgAction;
use queue::{Database, Listen};
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgConnectOptions;
use url::Url;

use crate::config::{ConfigError, Env, redacted, value};

const POSTGRES: &str = "postgres://user:password@host:port/database";
const CONNECTIONS: &str = "a number of connections from 3 (api) or 7 (worker) to 1000";
/// The minimum number of connections for handlers.
const MIN_CONNECTIONS: u32 = 2;
/// The default maximum number of connections of a process: the smallest plans of managed Postgres
/// services allow 22 to 25, which is enough for one api and one worker.
pub const DEFAULT_MAX_CONNECTIONS: u32 = 10;

/// The connection to Postgres.
#[derive(Clone, clap::Args)]
pub struct DatabaseConfig {
    /// Postgres 14 or newer, direct or through PgBouncer in transaction mode
    #[arg(long, env, value_name = POSTGRES, value_parser = redacted(value(Address::parse)))]
    database_url: Address,
    /// Postgres itself, for LISTEN alone, if `DATABASE_URL` leads to a pooler
    #[arg(long, env, value_name = POSTGRES, value_parser = redacted(value(Address::parse)))]
    database_listen_url: Option<Address>,
    /// Password for Postgres, for an address that has none
    #[arg(long = "password", env = "PGPASSWORD", value_name = "a password")]
    password: Option<SecretString>,
    /// `off`: find jobs by polling alone, for a pooler without `DATABASE_LISTEN_URL`
    #[arg(long, env, default_value = "on", value_name = "`on` or `off`", action = ArgAction::Set)]
    #[arg(value_parser = value(|text| ["off", "on"].iter().position(|word| *word == text).map(|at| at == 1)))]
    queue_listen: bool,
    /// Maximum number of connections of the process
    #[arg(long, env = "DATABASE_MAX_CONNECTIONS", default_value_t = DEFAULT_MAX_CONNECTIONS, value_name = CONNECTIONS)]
    #[arg(value_parser = value(|text| text.parse().ok().filter(|number| (MIN_CONNECTIONS + 1..=1_000).contains(number))))]
    pub max_connections: u32,
}

impl DatabaseConfig {
    /// The connection of `DATABASE_URL`.
    pub fn options(&self) -> PgConnectOptions {
        self.with_password(&self.database_url)
    }

    fn with_password(&self, address: &Address) -> PgConnectOptions {
        match &self.password {
            Some(password) if !address.has_password => address.options.clone().password(password.expose_secret()),
            _ => address.options.clone(),
        }
    }

    /// The connection for LISTEN: to the same server as all others, to the server of
    /// `DATABASE_LISTEN_URL`, or none.
    pub fn listen(&self) -> Listen {
        match &self.database_listen_url {
            _ if !self.queue_listen => Listen::Off,
            Some(address) => Listen::At(Box::new(self.with_password(address))),
            None => Listen::Directly,
        }
    }
}

/// An address of Postgres.
#[derive(Clone)]
struct Address {
    options: PgConnectOptions,
    /// Whether the address has a password of its own, which `PGPASSWORD` does not replace.
    has_password: bool,
}

impl Address {
    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"))?;
        let unreadable = |c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER;
        if rest.is_empty() || rest.contains(unreadable) {
            return None;
        }
        let options = PgConnectOptions::from_str(&without_unknown_parameters(text)).ok()?;
        let url = Url::parse(text).ok()?;
        let has_password = url.password().is_some() || url.query_pairs().any(|(key, _)| key == "password");
        Some(Self { options, has_password })
    }
}

/// The address without the parameters that sqlx ignores, for example `channel_binding` of managed
/// Postgres services: sqlx would log their values, which may be secret.
fn without_unknown_parameters(address: &str) -> Cow<'_, str> {
    const KNOWN: [&str; 18] = [
        "sslmode",
        "ssl-mode",
        "sslrootcert",
        "ssl-root-cert",
        "ssl-ca",
        "sslcert",
        "ssl-cert",
        "sslkey",
        "ssl-key",
        "statement-cache-capacity",
        "host",
        "hostaddr",
        "port",
        "dbname",
        "user",
        "password",
        "application_name",
        "options",
    ];
    let known = |key: &str| KNOWN.contains(&key) || (key.starts_with("options[") && key.ends_with(']'));
    let Ok(mut url) = Url::parse(address) else { return Cow::Borrowed(address) };
    let (kept, ignored): (Vec<_>, Vec<_>) = url.query_pairs().into_owned().partition(|(key, _)| known(key));
    if ignored.is_empty() {
        return Cow::Borrowed(address);
    }
    for (key, _) in ignored {
        let key: String = key.chars().take(40).collect();
        tracing::warn!(parameter = key, "unknown connection parameter ignored");
    }
    url.query_pairs_mut().clear().extend_pairs(kept);
    Cow::Owned(url.to_string())
}

/// The connection pools of a process, in addition to those of the queue.
#[derive(Debug, Clone)]
pub struct Pools {
    /// For statements that need the full planner: searches, analytics, imports and exports.
    pub database: Database,
    /// For short statements that find rows by key. Each session plans a statement once, and with an
    /// index scan even if the table was nearly empty then. `lock_timeout` is 5 s.
    pub lookups: Database,
}

impl Pools {
    /// Creates pools of at most `connections` together. A third of them is for [`Pools::database`],
    /// and at least two if there are three.
    pub fn new(options: PgConnectOptions, listen: Listen, connections: u32) -> Self {
        const IN_ORDER: &str = "set lock_timeout = '5s'; set enable_bitmapscan = off; set enable_sort = off";
        let large = (connections / 3).max(2).min(connections.saturating_sub(1)).max(1);
        let database = Database::new(options, listen, large);
        let lookups = database.planned_once((connections - large).max(1), IN_ORDER);
        Self { database, lookups }
    }
}

/// Creates the pools of [`DatabaseConfig`]. Opens no connection yet. `reserved` is the number of
/// connections that the queue opens.
///
/// # Errors
/// If one of the variables is missing or malformed.
pub fn from_env(env: &Env, reserved: u32) -> Result<Pools, ConfigError> {
    let config: DatabaseConfig = env.read()?;
    let (max, listen) = (config.max_connections, config.listen());
    let reserved = reserved + u32::from(!matches!(listen, Listen::Off));
    let connections = max.checked_sub(reserved).filter(|connections| *connections >= MIN_CONNECTIONS);
    let connections =
        connections.ok_or_else(|| ConfigError::malformed("DATABASE_MAX_CONNECTIONS", max, CONNECTIONS))?;
    Ok(Pools::new(config.options(), listen, connections))
}

#[cfg(test)]
mod tests {
    use sqlx::ConnectOptions;

    use super::*;

    #[test]
    fn the_password_is_that_of_the_address_or_else_of_its_variable() {
        for (address, expected) in [
            ("postgres://shop@db/shop", "p%40ss%2Fw%3Ard%231%3F"),
            ("postgres://shop:own@db/shop", "own"),
            ("postgres://shop@db/shop?password=own", "own"),
        ] {
            let env =
                Env::of([("DATABASE_URL", address), ("DATABASE_LISTEN_URL", address), ("PGPASSWORD", "p@ss/w:rd#1?")]);
            let config: DatabaseConfig = env.read().unwrap();
            let Listen::At(listen) = config.listen() else { panic!("it has an address of its own") };
            for options in [config.options(), *listen] {
                assert_eq!(options.to_url_lossy().password(), Some(expected), "{address}");
            }
        }
    }
}
