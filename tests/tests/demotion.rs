//! Connections to a former primary: it responds but is read-only. A new connection would reach the
//! new primary.

use std::time::Duration;

use common::clock::Clock;
use sandbox::stripe::FakeStripe;
use sqlx::PgPool;
use tests::{eventually, fake_stripe, load::Load, postgres_node::PostgresNode, processes::Process, within};

use crate::processes::free_address;

const SECRET: &str = "whsec_demotion";
const TIMEOUT: Duration = Duration::from_secs(60);

/// A server that can be demoted for its existing sessions.
struct Server {
    node: PostgresNode,
    admin: PgPool,
}

impl Server {
    async fn start() -> Option<Self> {
        let mut node = PostgresNode::new("", "host all all 127.0.0.1/32 scram-sha-256").await?;
        node.start().await;
        node.sql(&["create role checkout login password 'checkout'", "create database checkout owner checkout"]).await;
        let admin = node.pool("postgres");
        Some(Self { node, admin })
    }

    fn url(&self) -> String {
        self.node.url_of("checkout", "checkout", "checkout")
    }

    /// Makes the existing sessions read-only, but not later ones; returns their process ids.
    async fn demote(&self) -> Vec<i32> {
        self.node.sql(&["alter role checkout set default_transaction_read_only = off"]).await;
        let sessions: Vec<i32> =
            sqlx::query_scalar("select pid from pg_stat_activity where usename = 'checkout' order by pid")
                .fetch_all(&self.admin)
                .await
                .unwrap();
        assert!(!sessions.is_empty());
        self.node.sql(&["alter system set default_transaction_read_only = on", "select pg_reload_conf()"]).await;
        sessions
    }

    /// The sessions among these that still exist, with their last statement.
    async fn left(&self, sessions: &[i32]) -> Vec<String> {
        sqlx::query_scalar("select query from pg_stat_activity where usename = 'checkout' and pid = any ($1)")
            .bind(sessions)
            .fetch_all(&self.admin)
            .await
            .unwrap()
    }
}

async fn start(server: &Server, with_worker: bool) -> (String, FakeStripe, Vec<Process>) {
    let address = free_address().await;
    let base = format!("http://{address}");
    let stripe = fake_stripe(&base, SECRET, Clock::system()).await;
    let variables = [
        ("DATABASE_URL", server.url()),
        ("BIND_ADDR", address.to_string()),
        ("PUBLIC_URL", base.clone()),
        ("API_KEY", "key".to_owned()),
        ("RATE_LIMIT_PER_MINUTE", "0".to_owned()),
        ("STRIPE_WEBHOOK_SECRET", SECRET.to_owned()),
        ("STRIPE_SECRET_KEY", "sk_test_demotion".to_owned()),
        ("STRIPE_API_URL", stripe.url()),
        ("STRIPE_RATE", "0".to_owned()),
    ];
    let mut api = Process::start("api", variables.clone()).await;
    api.says("api is listening").await;
    let mut processes = vec![api];
    if with_worker {
        let mut worker = Process::start("worker", variables).await;
        worker.says("worker is working").await;
        processes.push(worker);
    }
    (base, stripe, processes)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_connection_that_became_read_only_is_used_again() {
    let Some(server) = Server::start().await else { return };
    let (base, stripe, _processes) = start(&server, true).await;
    let load = Load::start(vec![base], stripe, 8);
    within(TIMEOUT, "carts are stored and paid", async || load.carts() > 60 && load.paid() > 5).await;
    let before = (load.carts(), load.paid());
    let sessions = server.demote().await;
    within(TIMEOUT, "and go on to be", async || load.carts() > before.0 + 60 && load.paid() > before.1 + 5).await;
    // Including those that listen and those that were idle.
    within(TIMEOUT, "the demoted sessions are gone", async || server.left(&sessions).await.is_empty()).await;
    let promised = load.stop().await;
    assert!(promised.wrong.is_empty(), "{:?}", promised.wrong);
    println!("{} demoted sessions were left, {} requests put off", sessions.len(), promised.put_off);
    assert!(promised.put_off < 40, "one refusal speaks for all connections of a process: {}", promised.put_off);
}

/// A read-only client gets no errors, and would read stale data.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_api_leaves_a_demoted_server_too() {
    let Some(server) = Server::start().await else { return };
    let (base, _stripe, _processes) = start(&server, false).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let read = async |path: &str| {
        let answer = http.get(format!("{base}{path}")).header("x-api-key", "key").send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    };
    eventually("it listens", async || {
        read("/api/carts").await;
        let listening = "select count(*) from pg_stat_activity where usename = 'checkout' and query ilike 'listen%'";
        sqlx::query_scalar::<_, i64>(listening).fetch_one(&server.admin).await.unwrap() == 1
    })
    .await;
    let sessions = server.demote().await;
    within(TIMEOUT, "the demoted sessions are gone", async || {
        read("/api/carts").await;
        read("/api/analytics").await;
        read("/readyz").await;
        server.left(&sessions).await.is_empty()
    })
    .await;
}
