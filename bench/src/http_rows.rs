//! Measures the api's HTTP endpoints and compares them with Postgres alone: creating, getting,
//! listing, far pages, analytics.

use anyhow::{Result, ensure};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;
use sqlx::PgPool;

use crate::{
    results::Sample,
    scene::{Scene, both},
    wrk::{self, Load},
};

/// A database that is empty at first.
pub(crate) const SCRATCH: &str = "scratch";
pub(crate) const MILLION: &str = "million";
const FEW: &str = "few";
const MANY: &str = "many";

const PEER_SCRIPTS: [&str; 3] = [
    include_str!("../sql/peer_schema.sql"),
    include_str!("../sql/peer_seed_1m.sql"),
    include_str!("../sql/peer_update_copy.sql"),
];

const CART: &str = r#"{"customerEmail":"USER@example.com","customerName":"Ada Lovelace","items":[{"name":"Blue T-shirt","quantity":2,"price":19.90},{"name":"Running shoes","quantity":1,"price":89.00}]}"#;

/// A load that creates carts.
pub(crate) fn creating() -> Load {
    Load::creating("/api/carts", CART, 32)
}

/// Creates pgbench's tables.
pub(crate) async fn prepare_pgbench(scene: &mut Scene) -> Result<PgPool> {
    scene.prepare_peer("pgbench", &PEER_SCRIPTS).await
}

/// Empties the table before each load that fills it.
pub(crate) async fn empty(pool: &PgPool) -> Result<()> {
    sqlx::query("truncate carts, recovery_links, payment_links, jobs, stripe_events, idempotency_keys cascade")
        .execute(pool)
        .await?;
    Ok(())
}

pub(crate) async fn prepare_post(scene: &mut Scene) -> Result<()> {
    prepare_pgbench(scene).await?;
    scene.prepare_product(SCRATCH, 0).await?;
    let product = scene.product(SCRATCH)?;
    scene.warm_up(&product.api.address, creating()).await
}

pub(crate) async fn post(scene: &Scene, round: u32) -> Result<Sample> {
    let product = scene.product(SCRATCH)?;
    let ours = async {
        empty(&product.pool).await?;
        scene.settle().await?;
        let report = wrk::run(&scene.kit, &product.api.address, &creating(), scene.seconds).await?;
        let stored: i64 = sqlx::query_scalar("select count(*) from carts").fetch_one(&product.pool).await?;
        ensure!(stored.unsigned_abs() >= report.requests, "{} were answered, {stored} are stored", report.requests);
        Ok(report.per_second())
    };
    let theirs = async {
        sqlx::query("truncate cart, job").execute(&scene.peers["pgbench"]).await?;
        scene.pgbench("a_insert.sql", 32).await
    };
    both(round, ours, theirs).await
}

pub(crate) async fn prepare_million(scene: &mut Scene) -> Result<()> {
    if scene.products.contains_key(MILLION) {
        return Ok(());
    }
    prepare_pgbench(scene).await?;
    scene.prepare_product(MILLION, 1_000_000).await?;
    let product = scene.product(MILLION)?;
    scene.warm_up(&product.api.address, Load::by_id("/api/carts/", &product.ids, 32)).await
}

pub(crate) async fn get(scene: &Scene, round: u32) -> Result<Sample> {
    let product = scene.product(MILLION)?;
    let id: String = sqlx::query_scalar("select id from carts limit 1").fetch_one(&product.pool).await?;
    let cart = json(&product.api.address, &format!("/api/carts/{id}")).await?;
    ensure!(cart["data"]["id"].as_str() == Some(&id), "the cart {id} is answered as {cart}");
    let ours = scene.load(&product.api.address, Load::by_id("/api/carts/", &product.ids, 32));
    both(round, ours, scene.pgbench("c_select.sql", 32)).await
}

pub(crate) async fn list(scene: &Scene, round: u32) -> Result<Sample> {
    const PATH: &str = "/api/carts?status=abandoned&limit=10";
    let product = scene.product(MILLION)?;
    let exact: i64 =
        sqlx::query_scalar("select count(*) from carts where status = 'abandoned'").fetch_one(&product.pool).await?;
    let page = json(&product.api.address, PATH).await?;
    ensure!(page["data"]["pagination"]["total"].as_i64() == Some(exact), "the total is not {exact}: {page}");
    let carts = page["data"]["carts"].as_array().map_or(0, Vec::len);
    ensure!(carts == 10, "{carts} carts instead of 10");
    let ours = scene.load(&product.api.address, Load::of_path(PATH, 8));
    both(round, ours, scene.pgbench("d1_page.sql", 8)).await
}

/// Compares the 50,000th page by cursor with the first page.
pub(crate) async fn pages(scene: &Scene, round: u32) -> Result<Vec<(&'static str, Sample)>> {
    const FIRST: &str = "/api/carts?limit=10";
    let address = &scene.product(MILLION)?.api.address;
    let before = json(address, "/api/carts?page=49999&limit=10").await?;
    let cursor = before["data"]["pagination"]["nextCursor"].as_str().unwrap_or_default();
    let by_cursor = format!("/api/carts?limit=10&cursor={cursor}");
    let by_page = json(address, "/api/carts?page=50000&limit=10").await?;
    let after = json(address, &by_cursor).await?;
    ensure!(by_page["data"]["carts"] == after["data"]["carts"], "the cursor leads elsewhere than the page's number");
    let (far, first) = (Load::of_path(by_cursor, 8), Load::of_path(FIRST, 8));
    let sample = both(round, scene.load(address, far), scene.load(address, first)).await?;
    Ok(vec![("cursor50k", sample)])
}

pub(crate) async fn prepare_analytics(scene: &mut Scene) -> Result<()> {
    scene.prepare_product(FEW, 10_000).await?;
    scene.prepare_product(MANY, 10_000_000).await?;
    for database in [FEW, MANY] {
        scene.warm_up(&scene.product(database)?.api.address, Load::of_path(ANALYTICS, 8)).await?;
    }
    Ok(())
}

const ANALYTICS: &str = "/api/analytics?period=90d";

pub(crate) async fn analytics(scene: &Scene, round: u32) -> Result<Sample> {
    let (few, many) = (&scene.product(FEW)?.api.address, &scene.product(MANY)?.api.address);
    for address in [few, many] {
        let answer = json(address, ANALYTICS).await?;
        let days = answer["data"]["dailyStats"].as_array().map_or(0, Vec::len);
        ensure!(days == 90, "{days} days instead of 90");
    }
    let load = || Load::of_path(ANALYTICS, 8);
    both(round, scene.load(many, load()), scene.load(few, load())).await
}

/// The JSON of a path's response, which must be a success.
pub(crate) async fn json(address: &str, path: &str) -> Result<Value> {
    answer(request(Method::GET, address, path)?).await
}

/// Builds a request with the API key, on its own connection.
pub(crate) fn request(method: Method, address: &str, path: &str) -> Result<RequestBuilder> {
    let client = Client::builder().no_proxy().build()?;
    Ok(client.request(method, format!("http://{address}{path}")).header("x-api-key", "bench"))
}

/// The JSON of a response, which must be a success.
pub(crate) async fn answer(request: RequestBuilder) -> Result<Value> {
    let response = request.send().await?;
    let (status, url) = (response.status(), response.url().clone());
    let text = response.text().await?;
    ensure!(status.is_success(), "{url} answers {status}: {text}");
    Ok(serde_json::from_str(&text)?)
}
