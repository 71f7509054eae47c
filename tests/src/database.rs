//! One Postgres for all tests of the process, with one database per test.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use queue::{Connection, Database, Listen};
use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use uuid::Uuid;

/// A server that ends with this process, because its standard input closes.
struct Server {
    _process: Child,
    url: String,
}

static SERVER: OnceLock<Server> = OnceLock::new();

/// The folder of the binaries built with this test.
pub(crate) fn binaries() -> PathBuf {
    let test = std::env::current_exe().expect("a process knows its binary");
    test.ancestors().nth(2).expect("target/<profile>/deps/test").to_owned()
}

fn server() -> &'static Server {
    SERVER.get_or_init(|| {
        let mut process = Command::new(binaries().join("postgres_for_tests"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cargo builds the binaries of this package before its tests");
        let mut url = String::new();
        let stdout = process.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut url).expect("postgres_for_tests says where it is");
        assert!(url.starts_with("postgres"), "postgres_for_tests did not start; its message is above");
        Server { _process: process, url: url.trim().to_owned() }
    })
}

/// The script with which operators create the two roles.
pub const ROLES: &str = include_str!("../../examples/roles.sql");

/// A migrated database for one test.
#[derive(Debug, Clone)]
pub struct TestDatabase {
    /// The URL for `DATABASE_URL`.
    pub url: String,
    /// Its name.
    pub name: String,
}

impl TestDatabase {
    /// Clones the template database.
    ///
    /// # Panics
    /// If Postgres refuses.
    pub async fn create() -> Self {
        let name = format!("test_{}", Uuid::new_v4().simple());
        let admin_url = tokio::task::spawn_blocking(|| server().url.clone()).await.expect("it does not panic");
        let mut admin = PgConnection::connect(&admin_url).await.expect("Postgres is there");
        sqlx::query(AssertSqlSafe(format!("create database {name} template template")))
            .execute(&mut admin)
            .await
            .expect("the template can be cloned");
        let url = admin_url.rsplit_once('/').map(|(server, _)| format!("{server}/{name}")).expect("a URL with a path");
        Self { url, name }
    }

    /// Creates an empty database on the same server.
    ///
    /// # Panics
    /// If Postgres refuses.
    pub async fn empty(&self) -> Self {
        let name = format!("empty_{}", Uuid::new_v4().simple());
        let mut admin = PgConnection::connect(&self.url).await.expect("Postgres is there");
        sqlx::query(AssertSqlSafe(format!("create database {name}")))
            .execute(&mut admin)
            .await
            .expect("it can be made");
        let url = self.url.rsplit_once('/').map(|(server, _)| format!("{server}/{name}")).expect("a URL with a path");
        Self { url, name }
    }

    /// The connection options.
    ///
    /// # Panics
    /// Never: the URL is well-formed.
    pub fn options(&self) -> PgConnectOptions {
        self.url.parse().expect("a well-formed URL")
    }

    /// The address of the server.
    ///
    /// # Panics
    /// Never: it is an address of this machine.
    pub fn server_address(&self) -> std::net::SocketAddr {
        let options = self.options();
        let host: std::net::IpAddr = options.get_host().parse().expect("an address of this machine");
        (host, options.get_port()).into()
    }

    /// The same database through another address.
    #[must_use]
    pub fn by_way_of(&self, address: std::net::SocketAddr) -> Self {
        let url = self.url.replace(&self.server_address().to_string(), &address.to_string());
        Self { url, name: self.name.clone() }
    }

    /// The same database with another role.
    ///
    /// # Panics
    /// Never: the URL has a user.
    #[must_use]
    pub fn as_role(&self, role: &str, password: &str) -> Self {
        let (_, after) = self.url.split_once('@').expect("a URL with a user");
        Self { url: format!("postgres://{role}:{password}@{after}"), name: self.name.clone() }
    }

    /// The same database with the product's role, which may only read and write rows.
    #[must_use]
    pub fn as_product(&self) -> Self {
        self.as_role("checkout", "checkout")
    }

    /// Makes Postgres refuse connections to this database (SQLSTATE 55000) and end those that are open, or
    /// accept connections again.
    ///
    /// # Panics
    /// If Postgres is unavailable.
    pub async fn accept_connections(&self, accept: bool) {
        let mut server =
            PgConnection::connect_with(&self.options().database("postgres")).await.expect("Postgres is there");
        let name = &self.name;
        let mut statements = vec![format!("alter database {name} with allow_connections {accept}")];
        if !accept {
            statements.push(format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'"));
        }
        for statement in statements {
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut server).await.expect("a good statement");
        }
    }

    /// A pool like the product's.
    pub fn reach(&self, listen: Listen, connections: u32) -> Database {
        Database::new(self.options(), listen, connections)
    }

    /// A pool of its own.
    pub fn pool(&self, connections: u32) -> PgPool {
        PgPoolOptions::new().max_connections(connections).connect_lazy_with(self.options())
    }
}

/// A connection of the type that the product's statements use.
///
/// # Panics
/// If Postgres is unavailable.
pub async fn connection(pool: &PgPool) -> Connection {
    Database::from(pool.clone()).acquire().await.expect("Postgres is there")
}

/// A transaction of the type that the product's statements use.
///
/// # Panics
/// If Postgres is unavailable.
pub async fn transaction(pool: &PgPool) -> Connection {
    Database::from(pool.clone()).begin().await.expect("Postgres is there")
}
