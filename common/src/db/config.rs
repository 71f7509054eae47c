//! The environment variables of the connection to Postgres.

use std::{borrow::Cow, str::FromStr};

use queue::{Database, Listen};
use sqlx::postgres::PgConnectOptions;
use url::Url;

use crate::config::{ConfigError, Env};

/// `DATABASE_URL`
///
/// # Errors
/// If the variable is not set or not a `postgres://` address. The message does not repeat the
/// value, which holds a password.
pub fn options_from_env(env: &Env) -> Result<PgConnectOptions, ConfigError> {
    options(env, "DATABASE_URL")
}

fn options(env: &Env, name: &'static str) -> Result<PgConnectOptions, ConfigError> {
    const TAKES: &str = "postgres://user:password@host:port/database";
    let url = env.required(name, TAKES)?;
    let malformed = || ConfigError::Malformed { name, value: "malformed".to_owned(), takes: TAKES };
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
    let unreadable = |c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER;
    if rest.is_none_or(|rest| rest.is_empty() || rest.contains(unreadable)) {
        return Err(malformed());
    }
    let url = without_unknown_parameters(name, url);
    PgConnectOptions::from_str(&url).map_err(|_| malformed())
}

/// The address without the parameters that sqlx ignores, for example `channel_binding` of managed
/// Postgres services: sqlx would log their values, which may be secret.
fn without_unknown_parameters<'a>(name: &str, address: &'a str) -> Cow<'a, str> {
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
        tracing::warn!(variable = name, parameter = key, "unknown connection parameter ignored");
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
        const BY_INDEX: &str = "set lock_timeout = '5s'; set enable_seqscan = off; set enable_bitmapscan = off; \
                                set enable_hashjoin = off; set enable_mergejoin = off; set enable_sort = off";
        let large = (connections / 3).max(2).min(connections.saturating_sub(1)).max(1);
        let database = Database::new(options, listen, large);
        let lookups = database.planned_once((connections - large).max(1), BY_INDEX);
        Self { database, lookups }
    }
}

/// Creates the pools from `DATABASE_URL`, `DATABASE_MAX_CONNECTIONS`, `QUEUE_LISTEN` and
/// `DATABASE_LISTEN_URL`. Opens no connection yet. `reserved` is the number of connections that the
/// queue opens.
///
/// # Errors
/// If one of the variables is missing or malformed.
pub fn from_env(env: &Env, reserved: u32) -> Result<Pools, ConfigError> {
    let listen = listen_from_env(env)?;
    let reserved = reserved + u32::from(!matches!(listen, Listen::Off));
    let max = max_connections(env)?;
    let connections = max.checked_sub(reserved).filter(|connections| *connections >= MIN_CONNECTIONS);
    let connections = connections.ok_or_else(|| too_few_or_many(max.to_string()))?;
    Ok(Pools::new(options_from_env(env)?, listen, connections))
}

/// The default maximum number of connections of a process: the smallest plans of managed Postgres
/// services allow 22 to 25, which is enough for one api and one worker.
pub const DEFAULT_MAX_CONNECTIONS: u32 = 10;
/// The minimum number of connections for handlers.
const MIN_CONNECTIONS: u32 = 2;

/// `DATABASE_MAX_CONNECTIONS`
///
/// # Errors
/// If the value is not a number up to 1000.
pub fn max_connections(env: &Env) -> Result<u32, ConfigError> {
    let Some(value) = env.get(MAX_CONNECTIONS) else { return Ok(DEFAULT_MAX_CONNECTIONS) };
    let parsed = value.parse().ok().filter(|number| (MIN_CONNECTIONS + 1..=1_000).contains(number));
    parsed.ok_or_else(|| too_few_or_many(value.to_owned()))
}

const MAX_CONNECTIONS: &str = "DATABASE_MAX_CONNECTIONS";

fn too_few_or_many(value: String) -> ConfigError {
    const TAKES: &str = "a number of connections from 3 (api) or 7 (worker) to 1000";
    ConfigError::Malformed { name: MAX_CONNECTIONS, value, takes: TAKES }
}

/// The connection for LISTEN: to the same server as all others, to the server of
/// `DATABASE_LISTEN_URL` (for use behind a pooler), or none.
///
/// # Errors
/// If `QUEUE_LISTEN` or `DATABASE_LISTEN_URL` is malformed.
pub fn listen_from_env(env: &Env) -> Result<Listen, ConfigError> {
    if !env.queue_listen()? {
        return Ok(Listen::Off);
    }
    match env.get("DATABASE_LISTEN_URL") {
        Some(_) => Ok(Listen::At(Box::new(options(env, "DATABASE_LISTEN_URL")?))),
        None => Ok(Listen::Directly),
    }
}
