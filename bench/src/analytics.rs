//! Measures analytics and a list page at ten thousand carts and at ten million.

use anyhow::Result;
use sandbox::postgres::PrivatePostgres;
use sqlx::postgres::PgPoolOptions;

use crate::{
    figures::{median, milliseconds, print_row, ratios},
    http::Api,
    seeds,
};

const ROUNDS: usize = 5;
/// Requests of each kind and size per round.
const REQUESTS: usize = 200;
const FEW: i64 = 10_000;
const MANY: i64 = 10_000_000;
const PATHS: [&str; 3] = ["/api/analytics?period=90d", "/api/carts?status=abandoned&limit=10", "/api/carts?limit=10"];

pub(crate) async fn measure(postgres: &PrivatePostgres) -> Result<()> {
    let few = start(postgres, "few", FEW).await?;
    let many = start(postgres, "many", MANY).await?;
    // The median of each round by path, in milliseconds.
    let mut of_few = PATHS.map(|_| Vec::new());
    let mut of_many = PATHS.map(|_| Vec::new());
    for round in 0..=ROUNDS {
        for (path, (of_few, of_many)) in PATHS.iter().zip(of_few.iter_mut().zip(&mut of_many)) {
            let (mut waits_few, mut waits_many) = (Vec::new(), Vec::new());
            for _ in 0..REQUESTS {
                waits_few.push(milliseconds(few.get(path).await?));
                waits_many.push(milliseconds(many.get(path).await?));
            }
            // The first round only warms up.
            if round > 0 {
                of_few.push(median(&waits_few));
                of_many.push(median(&waits_many));
            }
        }
    }
    println!("Median milliseconds of {REQUESTS} requests one after the other, {ROUNDS} interleaved rounds\n");
    println!("| what | rounds | median | spread |\n|---|---|---|---|");
    for (path, (few, many)) in PATHS.iter().zip(of_few.iter().zip(&of_many)) {
        print_row(&format!("GET {path}, {FEW} carts"), few);
        print_row(&format!("GET {path}, {MANY} carts"), many);
        print_row(&format!("GET {path}, ratio (at most 1.5)"), &ratios(many, few));
    }
    Ok(())
}

/// Starts an api on a database with this many carts, compacted and vacuumed as by the worker and
/// autovacuum.
async fn start(postgres: &PrivatePostgres, database: &str, carts: i64) -> Result<Api> {
    postgres.ensure_database(database).await?;
    let pool = PgPoolOptions::new().max_connections(1).connect(&postgres.url(database)).await?;
    common::db::prepare(&pool.clone().into()).await?;
    seeds::carts(&pool, carts).await?;
    sqlx::query("checkpoint").execute(&pool).await?;
    pool.close().await;
    Api::start(postgres.url(database).parse()?).await
}
