//! A primary, a synchronous standby and HAProxy, set up like in production.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use sqlx::PgPool;
use tokio::{net::TcpStream, process::Child};

use crate::{
    eventually, free_port,
    postgres_node::{PostgresNode, ending_with_us},
    within,
};

/// The HAProxy configuration that `docs/operations.md` recommends.
const PROXY_CONFIGURATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/fail-over/haproxy.cfg");

/// The access rules of `docs/operations.md`, for one machine.
const ACCESS: &str = "host postgres haproxy_check 127.0.0.1/32 trust\n\
    host replication postgres 127.0.0.1/32 scram-sha-256\n\
    host all all 127.0.0.1/32 scram-sha-256";

/// The timeout of each step.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Two servers: the primary and, if present, its standby.
#[derive(Debug)]
pub struct Cluster {
    primary: PostgresNode,
    standby: Option<PostgresNode>,
    free_port: u16,
    proxy_port: u16,
    _proxy: Child,
}

impl Cluster {
    /// Starts all three; `None` if HAProxy or Postgres is not installed.
    ///
    /// # Panics
    /// If one does not start, or is missing although required.
    pub async fn start() -> Option<Self> {
        let Some(program) = haproxy() else {
            assert!(std::env::var_os("REQUIRE_HAPROXY").is_none(), "HAProxy should be installed");
            eprintln!("left out: no haproxy on this machine (Debian: apt-get install haproxy)");
            return None;
        };
        let mut primary = PostgresNode::new("", ACCESS).await?;
        primary.start().await;
        primary
            .sql(&[
                "create role haproxy_check login",
                "create role checkout login password 'checkout'",
                "create database checkout owner checkout",
            ])
            .await;
        let (standby_port, proxy_port) = (free_port(), free_port());
        let mut command = ending_with_us(&program, "KILL");
        command.args(["-db", "-f", PROXY_CONFIGURATION]).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null()).kill_on_drop(true);
        command.env("LISTEN", format!("127.0.0.1:{proxy_port}"));
        command.env("POSTGRES_ONE", format!("127.0.0.1:{}", primary.port()));
        command.env("POSTGRES_TWO", format!("127.0.0.1:{standby_port}"));
        let proxy = command.spawn().expect("haproxy starts");
        eventually("HAProxy answers", async || TcpStream::connect(("127.0.0.1", proxy_port)).await.is_ok()).await;
        let mut cluster = Self { primary, standby: None, free_port: standby_port, proxy_port, _proxy: proxy };
        cluster.add_standby().await;
        Some(cluster)
    }

    /// The URL of the product's database through HAProxy, for `DATABASE_URL`.
    pub fn url(&self) -> String {
        format!("postgres://checkout:checkout@127.0.0.1:{}/checkout", self.proxy_port)
    }

    /// Connections to the product's database on the current primary, without HAProxy.
    pub fn pool(&self) -> PgPool {
        self.primary.pool("checkout")
    }

    /// Adds a standby; from then on commits wait for it.
    ///
    /// # Panics
    /// If there is a standby, or it does not catch up.
    pub async fn add_standby(&mut self) {
        assert!(self.standby.is_none(), "there is one");
        let mut standby = self.primary.standby(self.free_port).await;
        standby.start().await;
        self.standby = Some(standby);
        // The standby has no such line, so after its promotion it does not wait for another.
        self.primary.sql(&["alter system set synchronous_standby_names = '*'", "select pg_reload_conf()"]).await;
        let pool = self.primary.pool("postgres");
        within(TIMEOUT, "commits wait for the standby", async || {
            sqlx::query_scalar("select count(*) = 1 from pg_stat_replication where sync_state = 'sync'")
                .fetch_one(&pool)
                .await
                .expect("the primary answers")
        })
        .await;
    }

    /// Kills the standby; commits wait for it.
    ///
    /// # Panics
    /// If there is none.
    pub async fn lose_standby(&mut self) {
        let mut standby = self.standby.take().expect("there is a standby");
        standby.kill().await;
    }

    /// Continues with one server, like an operator: commits no longer wait for a standby.
    pub async fn go_on_alone(&mut self) {
        self.primary.sql(&["alter system reset synchronous_standby_names", "select pg_reload_conf()"]).await;
    }

    /// Kills the primary and promotes the standby immediately.
    pub async fn fail_over(&mut self) {
        self.primary.kill().await;
        self.promote().await;
    }

    /// A planned switchover: stops writes, waits for the standby, and promotes it.
    ///
    /// # Panics
    /// If the standby does not catch up.
    pub async fn switch_over(&mut self) {
        let fence = ["alter system set default_transaction_read_only = on", "select pg_reload_conf()"];
        self.primary.sql(&fence).await;
        self.primary.stop().await; // sends all WAL to the standby first
        self.promote().await;
    }

    async fn promote(&mut self) {
        let standby = self.standby.take().expect("there is a standby");
        standby.sql(&["select pg_promote(true, 60)"]).await;
        let gone = std::mem::replace(&mut self.primary, standby);
        self.free_port = gone.port();
    }
}

fn haproxy() -> Option<PathBuf> {
    let known = ["/usr/sbin/haproxy", "/usr/bin/haproxy", "/usr/local/sbin/haproxy", "/opt/homebrew/bin/haproxy"];
    known.map(Path::new).into_iter().find(|program| program.exists()).map(Path::to_owned)
}
