//! The environment variables that say where Postgres is.

use std::{borrow::Cow, str::FromStr};

use queue::{Database, Listen};
use sqlx::postgres::PgConnectOptions;
use url::Url;

use crate::config::{ConfigError, Env};

/// `DATABASE_URL`
///
/// # Errors
/// If it is missing or no such address. The value is not repeated: it holds a password.
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

/// The pools of a process, besides those of the queue.
#[derive(Debug, Clone)]
pub struct Pools {
    /// For statements that need all of the planner: searches, analytics, imports and exports.
    pub database: Database,
    /// For short statements that find rows by key. Its sessions plan each statement once, and by an
    /// index, however few rows there were then. A statement waits 5 s for a lock at most.
    pub lookups: Database,
}

impl Pools {
    /// Pools of at most `connections` together, of which a third is for [`Pools::database`].
    pub fn new(options: PgConnectOptions, listen: Listen, connections: u32) -> Self {
        const BY_INDEX: &str = "set lock_timeout = '5s'; set enable_seqscan = off; set enable_bitmapscan = off; \
                                set enable_hashjoin = off; set enable_mergejoin = off; set enable_sort = off";
        let large = (connections / 3).max(1);
        let database = Database::new(options, listen, large);
        let lookups = database.planned_once((connections - large).max(1), BY_INDEX);
        Self { database, lookups }
    }
}

/// The pools by `DATABASE_URL`, `DATABASE_MAX_CONNECTIONS`, `QUEUE_LISTEN` and `DATABASE_LISTEN_URL`.
/// Opens no connection yet. `reserved` is the number of connections that the queue opens.
///
/// # Errors
/// If one of them is missing or malformed.
pub fn from_env(env: &Env, reserved: u32) -> Result<Pools, ConfigError> {
    let listen = listen_from_env(env)?;
    let reserved = reserved + u32::from(!matches!(listen, Listen::Off));
    let max = max_connections(env)?;
    let connections = max.checked_sub(reserved).filter(|connections| *connections >= MIN_CONNECTIONS);
    let connections = connections.ok_or_else(|| too_few_or_many(max.to_string()))?;
    Ok(Pools::new(options_from_env(env)?, listen, connections))
}

/// The connections that a process opens at most by default: the smallest plans of managed Postgres
/// services allow 22 to 25, and one api and one worker should fit.
pub const DEFAULT_MAX_CONNECTIONS: u32 = 10;
/// The connections that handlers need at least.
const MIN_CONNECTIONS: u32 = 2;

/// `DATABASE_MAX_CONNECTIONS`
///
/// # Errors
/// If it is not a number up to 1000.
pub fn max_connections(env: &Env) -> Result<u32, ConfigError> {
    let Some(value) = env.get(MAX_CONNECTIONS) else { return Ok(DEFAULT_MAX_CONNECTIONS) };
    let parsed = value.parse().ok().filter(|number| *number <= 1_000);
    parsed.ok_or_else(|| too_few_or_many(value.to_owned()))
}

const MAX_CONNECTIONS: &str = "DATABASE_MAX_CONNECTIONS";

fn too_few_or_many(value: String) -> ConfigError {
    const TAKES: &str = "a number of connections from 3 (api) or 7 (worker) to 1000";
    ConfigError::Malformed { name: MAX_CONNECTIONS, value, takes: TAKES }
}

/// Where LISTEN goes: along with everything else, to a Postgres that only
/// `DATABASE_LISTEN_URL` reaches directly, or nowhere.
///
/// # Errors
/// If one of the two variables is malformed.
pub fn listen_from_env(env: &Env) -> Result<Listen, ConfigError> {
    if !env.queue_listen()? {
        return Ok(Listen::Off);
    }
    match env.get("DATABASE_LISTEN_URL") {
        Some(_) => Ok(Listen::At(Box::new(options(env, "DATABASE_LISTEN_URL")?))),
        None => Ok(Listen::Directly),
    }
}
