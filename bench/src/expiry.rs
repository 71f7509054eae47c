//! Expires a million due carts, compared with plain batched updates, and measures how the api
//! responds meanwhile.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use chrono::TimeDelta;
use common::{clock::Clock, db::Database};
use sandbox::postgres::PrivatePostgres;
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::sync::oneshot;

use crate::{
    figures::{print_row, quantile, ratios},
    http::Api,
    seeds::run_script,
};

const ROUNDS: usize = 3;
const DUE: i64 = 1_000_000;
/// How long the idle api is measured.
const IDLE: Duration = Duration::from_secs(20);

/// The results of one activity per round, measured while the api was queried for carts.
struct Measured {
    what: &'static str,
    seconds: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
}

/// The activities, in the order of each round.
const IDLING: usize = 0;
const PEER: usize = 1;
const PEER_BY_STATUS: usize = 2;
const PLAIN: usize = 3;
const OURS: usize = 4;
const NAMES: [&str; 5] = [
    "nothing",
    "plain: the peer's table and statement",
    "plain: the same, without its index on creation alone",
    "plain: our carts table, without triggers and links",
    "ours: what the worker runs",
];

pub(crate) async fn measure(postgres: &PrivatePostgres) -> Result<()> {
    for database in ["peer", "carts"] {
        postgres.ensure_database(database).await?;
    }
    let connect = PgPoolOptions::new().max_connections(2);
    let peer = connect.clone().connect(&postgres.url("peer")).await?;
    let carts = connect.connect(&postgres.url("carts")).await?;
    common::db::prepare(&carts.clone().into()).await?;
    let api = Api::start(postgres.url("carts").parse()?).await?;
    eprintln!("seeding the peer's million carts");
    run_script(&peer, include_str!("../sql/peer_schema.sql")).await?;
    run_script(&peer, include_str!("../sql/peer_seed_1m.sql")).await?;
    let mut all = NAMES.map(|what| Measured { what, seconds: Vec::new(), p50: Vec::new(), p99: Vec::new() });
    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        take_round(&mut all, &peer, &carts, &api).await?;
    }
    print(&all);
    Ok(())
}

async fn take_round(all: &mut [Measured; 5], peer: &PgPool, carts: &PgPool, api: &Api) -> Result<()> {
    const PEER_DUE: &str = include_str!("../sql/peer_due.sql");
    const PEER_BATCHES: &str = include_str!("../sql/peer_batches.sql");
    run_script(carts, include_str!("../sql/due_carts.sql")).await?;
    let ids = sqlx::query_scalar("select id from carts where status = 'abandoned' order by md5(id) limit 2000");
    let ids: Arc<Vec<String>> = Arc::new(ids.fetch_all(carts).await?);
    for id in ids.iter().take(200) {
        api.get(&format!("/api/carts/{id}")).await?; // opens connections and caches plans
    }
    let idling = async {
        tokio::time::sleep(IDLE).await;
        Ok(())
    };
    all[IDLING].take(api, &ids, idling).await?;

    run_script(peer, PEER_DUE).await?;
    all[PEER].take(api, &ids, execute(peer, PEER_BATCHES)).await?;
    run_script(peer, PEER_DUE).await?;
    run_script(peer, "drop index due_created;\ncheckpoint").await?;
    all[PEER_BY_STATUS].take(api, &ids, execute(peer, PEER_BATCHES)).await?;

    run_script(carts, include_str!("../sql/plain_carts.sql")).await?;
    all[PLAIN].take(api, &ids, execute(carts, include_str!("../sql/plain_carts_batches.sql"))).await?;
    run_script(carts, "drop table plain_carts;\ncheckpoint").await?;
    let now = Clock::system().now();
    let database = Database::from(carts.clone()); // the same kind of pool as the worker's
    let expire =
        async { Ok(common::carts::expiry::expire_older_than(&database, now - TimeDelta::days(30), now).await?) };
    let expired = all[OURS].take(api, &ids, expire).await?;
    check(carts, expired).await
}

impl Measured {
    /// Runs `work` while the api is queried for carts.
    async fn take<T>(&mut self, api: &Api, ids: &Arc<Vec<String>>, work: impl Future<Output = Result<T>>) -> Result<T> {
        let (stop, stopped) = oneshot::channel();
        let watch = tokio::spawn(api.clone().at_a_steady_rate(ids.clone(), stopped));
        let started = Instant::now();
        let done = work.await?;
        self.seconds.push(started.elapsed().as_secs_f64());
        let _ = stop.send(());
        let waits = watch.await??;
        self.p50.push(quantile(&waits, 50));
        self.p99.push(quantile(&waits, 99));
        eprintln!(
            "{}: {:.1} s; GET p50 {:.2} ms, p99 {:.2} ms ({} requests)",
            self.what,
            started.elapsed().as_secs_f64(),
            quantile(&waits, 50),
            quantile(&waits, 99),
            waits.len(),
        );
        Ok(done)
    }
}

fn print(all: &[Measured; 5]) {
    println!("Expiry of {DUE} due carts, {ROUNDS} interleaved rounds\n");
    println!("| seconds | rounds | median | spread |\n|---|---|---|---|");
    for measured in &all[PEER..] {
        print_row(measured.what, &measured.seconds);
    }
    let seconds = |of: usize| ratios(&all[OURS].seconds, &all[of].seconds);
    print_row("ours ÷ the peer's (at most 1.3)", &seconds(PEER));
    print_row("ours ÷ the peer's without that index", &seconds(PEER_BY_STATUS));
    print_row("ours ÷ plain on our table", &seconds(PLAIN));
    println!("\n| GET by id meanwhile, milliseconds | rounds | median | spread |\n|---|---|---|---|");
    for measured in all {
        print_row(&format!("p50, {}", measured.what), &measured.p50);
        print_row(&format!("p99, {}", measured.what), &measured.p99);
    }
    print_row("p99, ours ÷ nothing (at most 3)", &ratios(&all[OURS].p99, &all[IDLING].p99));
    print_row("p99, the peer's ÷ nothing", &ratios(&all[PEER].p99, &all[IDLING].p99));
}

/// Checks that every due cart expired, all others were spared, and every open session is being
/// closed.
async fn check(carts: &PgPool, expired: i64) -> Result<()> {
    ensure!(expired == DUE, "{expired} of {DUE} carts expired");
    let wrong: i64 = sqlx::query_scalar(
        "select count(*) from carts where (status = 'expired') = (id like 'cart\\_linked%' or id like 'cart\\_paying%')",
    )
    .fetch_one(carts)
    .await?;
    ensure!(wrong == 0, "{wrong} carts are not what they should be");
    let closing: (i64, i64) = sqlx::query_as(
        "select (select count(*) from payment_links where status = 'closing'), (select count(*) from jobs)",
    )
    .fetch_one(carts)
    .await?;
    ensure!(closing == (1_000, 1_000), "sessions being closed, and jobs for them: {closing:?}");
    Ok(())
}

async fn execute(pool: &PgPool, statement: &'static str) -> Result<()> {
    sqlx::raw_sql(statement).execute(pool).await?;
    Ok(())
}
