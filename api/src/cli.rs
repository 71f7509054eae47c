//! The api's command line. Without a command the api serves requests; with one it manages API keys
//! and exits.

use chrono::{DateTime, Utc};
use clap::{Parser, Subcommand};
use common::{
    api_keys::{self, KeyHash, ListedKey, NewKey, Scope},
    clock::Clock,
    config::{self, Env, parse_duration},
    db::{self, Database},
};

use crate::{config::variables, http::query};

/// Serves the API and the dashboard until SIGTERM. With a command it runs that and exits; both read
/// the same environment.
#[derive(Debug, Parser)]
#[command(name = "api", version, after_long_help = config::help(&variables()))]
pub struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Manages API keys besides API_KEY
    #[command(subcommand)]
    Keys(Keys),
}

#[derive(Debug, Subcommand)]
enum Keys {
    /// Creates a key and prints it, this once
    Add {
        /// Name of the key: letters, digits, points, dashes and underscores
        #[arg(value_parser = api_keys::parse_name)]
        name: String,
        /// Scopes of the key: read, write, operator, support, separated by commas
        #[arg(long = "scope", required = true, value_delimiter = ',')]
        scopes: Vec<Scope>,
        /// When the key expires: after a duration such as 90d (1s to 100 years), or at a future
        /// date or instant
        #[arg(long, value_parser = parse_end, allow_hyphen_values = true)]
        expires: Option<End>,
    },
    /// Lists all keys, with their scopes and last use
    List,
    /// Revokes a key: every api refuses it within five seconds
    Revoke {
        /// Name of the key
        #[arg(value_parser = api_keys::parse_name)]
        name: String,
    },
}

/// Expiry of a key.
#[derive(Debug, Clone, Copy)]
enum End {
    After(std::time::Duration),
    At(DateTime<Utc>),
}

/// The shortest lifetime of a key.
const MIN_LIFE: std::time::Duration = std::time::Duration::from_secs(1);

fn parse_end(text: &str) -> Result<End, &'static str> {
    let after = parse_duration(text).filter(|duration| *duration >= MIN_LIFE).map(End::After);
    after.or_else(|| query::date_or_instant(text).map(End::At)).ok_or(
        "it takes a duration such as 90d, from 1s to 100 years, or a date or an instant such as 2030-01-15T10:30:00Z",
    )
}

impl CommandLine {
    /// Whether a command was given.
    pub fn is_command(&self) -> bool {
        self.command.is_some()
    }

    /// Runs the command and prints its result to standard output.
    ///
    /// # Errors
    /// One line that states why the command failed.
    pub async fn answer(self, env: &Env) -> Result<(), Box<dyn std::error::Error>> {
        let Some(Command::Keys(command)) = self.command else { return Ok(()) };
        let database = db::from_env(env, 0)?.database;
        let now = Clock::system().now();
        let answered = match command {
            Keys::Add { name, scopes, expires } => add(&database, name, scopes, expires, now).await,
            Keys::List => list(&database, now).await,
            Keys::Revoke { name } => revoke(&database, &name, now).await,
        };
        database.close();
        answered.map_err(|error| match error.downcast::<sqlx::Error>() {
            Ok(error) if is_not_migrated(&error) => "the database has no keys yet: start the api once".into(),
            Ok(error) => format!("Postgres can't be used: {error}; see DATABASE_URL").into(),
            Err(other) => other,
        })
    }
}

type Answered = Result<(), Box<dyn std::error::Error>>;

async fn add(
    database: &Database,
    name: String,
    scopes: Vec<Scope>,
    expires: Option<End>,
    now: DateTime<Utc>,
) -> Answered {
    let expires_at = match expires {
        None => None,
        Some(End::After(duration)) => Some(now + duration),
        Some(End::At(at)) if at > now => Some(at),
        Some(End::At(_)) => {
            return Err(
                "--expires is not in the future; it takes a date or instant in the future, or a duration such as 90d"
                    .into(),
            );
        }
    };
    let key = api_keys::new_key();
    let new = NewKey { name, hash: KeyHash::of(key.as_bytes()), scopes: scopes.into_iter().collect(), expires_at };
    let mut conn = database.acquire().await?;
    if !api_keys::add(&mut conn, &new, now).await? {
        return Err(format!("there is a key named {} already; `api keys revoke {0}` ends it", new.name).into());
    }
    conn.commit().await?;
    let until = expires_at.map(|at| format!(", until {}", minute(at))).unwrap_or_default();
    eprintln!("{}: {}{until}. This is the key; it is not kept, and not shown again:", new.name, new.scopes);
    println!("{key}");
    Ok(())
}

async fn list(database: &Database, now: DateTime<Utc>) -> Answered {
    let keys = api_keys::list(&mut database.acquire().await?).await?;
    for key in &keys {
        println!("{}", line(key, now));
    }
    if keys.is_empty() {
        eprintln!("there are none but those of API_KEY");
    }
    Ok(())
}

fn line(key: &ListedKey, now: DateTime<Utc>) -> String {
    let used = key.last_used_at.map_or_else(|| "never used".to_owned(), |at| format!("used {}", minute(at)));
    let end = match (key.revoked_at, key.expires_at) {
        (Some(at), _) => format!("  REVOKED {}", minute(at)),
        (None, Some(at)) if at <= now => format!("  EXPIRED {}", minute(at)),
        (None, Some(at)) => format!("  expires {}", minute(at)),
        (None, None) => String::new(),
    };
    format!("{:24}  {:30}  made {}  {used}{end}", key.name, key.scopes.to_string(), minute(key.created_at))
}

fn minute(at: DateTime<Utc>) -> impl std::fmt::Display {
    at.format("%F %H:%M")
}

async fn revoke(database: &Database, name: &str, now: DateTime<Utc>) -> Answered {
    let mut conn = database.acquire().await?;
    if !api_keys::revoke(&mut conn, name, now).await? {
        return Err(format!("there is no key named {name} (any more)").into());
    }
    conn.commit().await?;
    println!("{name} is revoked; every api refuses it within 5 s");
    Ok(())
}

/// Whether a table is missing (`undefined_table`).
fn is_not_migrated(error: &sqlx::Error) -> bool {
    db::has_sql_state(error, &["42P01"])
}
