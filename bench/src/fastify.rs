//! A plain Fastify service over Postgres, as many teams would write it.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    figures::{median, milliseconds},
    http_rows::{creating, json},
    processes::{Process, free_address},
    results::Sample,
    scene::{Scene, Service, both},
    wrk::Load,
};

const DATABASE: &str = "fastify";
/// The product's database with the same number of carts.
const OURS: &str = "hundred_thousand";
const SCRIPTS: [&str; 3] = [
    include_str!("../peers/fastify_schema.sql"),
    include_str!("../peers/fastify_seed.sql"),
    "vacuum analyze carts;\ncheckpoint",
];
const CART: &str = r#"{"email":"USER@example.com","name":"Ada Lovelace","items":[{"sku":"SKU-1001","title":"Blue T-shirt","quantity":2,"unit_price":19.90},{"sku":"SKU-2002","title":"Running shoes","quantity":1,"unit_price":89.00}]}"#;
const STARTS: usize = 5;
/// The poll interval while a service starts.
const LOOK_EVERY: Duration = Duration::from_millis(5);
const OUR_LIST: &str = "/api/carts?limit=10";
const ITS_LIST: &str = "/carts?page=1&limit=10";

async fn prepare_databases(scene: &mut Scene) -> Result<()> {
    let pool = scene.prepare_peer(DATABASE, &SCRIPTS).await?;
    let ids: Vec<String> = sqlx::query_scalar("select id::text from carts").fetch_all(&pool).await?;
    std::fs::write(ids_file(scene), ids.iter().flat_map(|id| [id.as_str(), "\n"]).collect::<String>())?;
    scene.prepare_product(OURS, 100_000).await
}

fn ids_file(scene: &Scene) -> PathBuf {
    scene.kit.folder.join("fastify.ids")
}

pub(crate) async fn prepare(scene: &mut Scene) -> Result<()> {
    prepare_databases(scene).await?;
    let address = free_address()?;
    let process = start(scene, &address)?;
    let mut service = Service { process, address };
    service.process.answers(&scene.client, &service.address, ITS_LIST, LOOK_EVERY).await?;
    for row in ["fastify-create", "fastify-get", "fastify-list"] {
        let (ours, theirs) = loads(scene, row)?;
        scene.warm_up(&scene.product(OURS)?.api.address, ours).await?;
        scene.warm_up(&service.address, theirs).await?;
    }
    scene.fastify = Some(service);
    Ok(())
}

/// Starts two processes without logs.
fn start(scene: &Scene, address: &str) -> Result<Process> {
    let port = address.rsplit(':').next().unwrap_or_default();
    let variables = [
        ("DATABASE_URL", scene.postgres.url(DATABASE)),
        ("PORT", port.to_owned()),
        ("WORKERS", "2".to_owned()),
        ("NODE_ENV", "production".to_owned()),
    ];
    let script = scene.kit.folder.join("peers/fastify.js");
    let script = script.to_str().context("the folder's name is not UTF-8")?;
    Process::start(&scene.kit.node(), &[script], &variables, &scene.kit.folder, "fastify")
}

/// The loads of the product and of the peer.
fn loads(scene: &Scene, row: &str) -> Result<(Load, Load)> {
    let ids = &scene.product(OURS)?.ids;
    Ok(match row {
        "fastify-create" => (creating(), Load::creating("/carts", CART, 32)),
        "fastify-get" => (Load::by_id("/api/carts/", ids, 32), Load::by_id("/carts/", &ids_file(scene), 32)),
        _ => (Load::of_path(OUR_LIST, 32), Load::of_path(ITS_LIST, 32)),
    })
}

pub(crate) async fn take(scene: &Scene, round: u32) -> Result<Vec<(&'static str, Sample)>> {
    let fastify = &scene.fastify.as_ref().context("Fastify was not started")?.address;
    let address = &scene.product(OURS)?.api.address;
    let (ours, theirs) = (json(address, OUR_LIST).await?, json(fastify, ITS_LIST).await?);
    let carts = |list: &Value| list.as_array().map_or(0, Vec::len);
    ensure!(carts(&ours["data"]["carts"]) == 10 && carts(&theirs["data"]) == 10, "a list has not ten carts");
    let mut samples = Vec::new();
    for row in ["fastify-create", "fastify-get", "fastify-list"] {
        if scene.wants(row) {
            let (ours, theirs) = loads(scene, row)?;
            samples.push((row, both(round, scene.load(address, ours), scene.load(fastify, theirs)).await?));
        }
    }
    Ok(samples)
}

pub(crate) async fn prepare_start(scene: &mut Scene) -> Result<()> {
    prepare_databases(scene).await
}

/// Measures the time from the start of the process to its first successful list, in milliseconds.
pub(crate) async fn cold_start(scene: &Scene, round: u32) -> Result<Sample> {
    let ours = async {
        scene.settle().await?;
        let mut waits = Vec::new();
        for _ in 0..STARTS {
            let address = free_address()?;
            let mut process = scene.start_api(OURS, &address)?;
            waits.push(milliseconds(process.answers(&scene.client, &address, OUR_LIST, LOOK_EVERY).await?));
            process.end().await?;
        }
        Ok(median(&waits))
    };
    let theirs = async {
        scene.settle().await?;
        let mut waits = Vec::new();
        for _ in 0..STARTS {
            let address = free_address()?;
            let mut process = start(scene, &address)?;
            waits.push(milliseconds(process.answers(&scene.client, &address, ITS_LIST, LOOK_EVERY).await?));
            process.end().await?;
        }
        Ok(median(&waits))
    };
    both(round, ours, theirs).await
}
