//! Measures the time from a cart to its payment link, through the api, the queue, a worker and the
//! fake Stripe, and compares it with the fake Stripe alone.

use std::{sync::Arc, time::Instant};

use anyhow::{Context, Result, ensure};
use reqwest::{Client, RequestBuilder, Url};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::task::JoinSet;

use crate::{
    figures::{median, milliseconds},
    http_rows::{SCRATCH, empty},
    results::Sample,
    scene::{Product, Scene, both},
};

const AT_ONCE: usize = 16;
/// Requests per client, one after the other.
const EACH: usize = 30;
/// Links per round.
pub(crate) const LINKS: f64 = 480.0;
/// Requests per client that are not measured, because connections and plans are new.
const WARM_UP: usize = 3;

pub(crate) async fn prepare(scene: &mut Scene) -> Result<()> {
    scene.prepare_product(SCRATCH, 0).await?;
    scene.prepare_worker(SCRATCH).await
}

pub(crate) async fn take(scene: &Scene, round: u32) -> Result<Sample> {
    let product = scene.product(SCRATCH)?;
    let stripe = scene.fake_stripe.as_ref().context("there is no fake Stripe")?.url();
    empty(&product.pool).await?;
    let carts: Arc<Vec<String>> = Arc::new(seed(&product.pool, &round.to_string()).await?);
    let client = Client::builder().no_proxy().build()?;
    let ours = async {
        scene.settle().await?;
        asked(product, client.clone(), carts.clone()).await
    };
    let theirs = async {
        scene.settle().await?;
        let (client, carts, url) = (client.clone(), carts.clone(), format!("{stripe}/v1/checkout/sessions"));
        waits("url", move |place| session(&client, &url, &carts[place])).await
    };
    both(round, ours, theirs).await
}

/// Requests [`LINKS`] links of new carts in a database with other rows; returns the median time.
/// Each lot has its own name, because the fake Stripe serves all databases.
pub(crate) async fn ours(product: &Product, lot: &str) -> Result<f64> {
    let carts = Arc::new(seed(&product.pool, lot).await?);
    asked(product, Client::builder().no_proxy().build()?, carts).await
}

async fn asked(product: &Product, client: Client, carts: Arc<Vec<String>>) -> Result<f64> {
    let address = product.api.address.clone();
    waits("paymentLink", move |place| {
        let url = format!("http://{address}/api/carts/{}/payment-link", carts[place]);
        Ok(client.post(url).header("x-api-key", "bench"))
    })
    .await
}

/// Creates one new cart per request.
async fn seed(pool: &PgPool, lot: &str) -> Result<Vec<String>> {
    let carts = AT_ONCE * EACH;
    sqlx::query(AssertSqlSafe(format!(
        r#"insert into carts (id, customer_email, customer_name, items, total_minor, currency)
        select 'cart_link_{lot}_' || n, 'user' || n || '@example.com', 'Ada Lovelace',
               '[{{"name":"Blue T-shirt","quantity":2,"price":19.90}},{{"name":"Running shoes","quantity":1,"price":89.00}}]',
               12880, 'usd'
        from generate_series(0, {carts} - 1) n"#
    )))
    .execute(pool)
    .await?;
    Ok((0..carts).map(|n| format!("cart_link_{lot}_{n}")).collect())
}

/// Runs concurrent requests and returns the median time. Each response must be a 200 with `field`
/// in it.
async fn waits<R>(field: &'static str, request: R) -> Result<f64>
where
    R: Fn(usize) -> Result<RequestBuilder> + Clone + Send + 'static,
{
    let mut clients = JoinSet::new();
    for number in 0..AT_ONCE {
        let request = request.clone();
        clients.spawn(async move {
            let mut waits = Vec::new();
            for turn in 0..EACH {
                let request = request(number * EACH + turn)?;
                let sent = Instant::now();
                let response = request.send().await?;
                let status = response.status();
                let text = response.text().await?;
                let wait = milliseconds(sent.elapsed());
                let body: Value = serde_json::from_str(&text).unwrap_or_default();
                let there = body.get("data").unwrap_or(&body).get(field).is_some_and(Value::is_string);
                ensure!(status == reqwest::StatusCode::OK && there, "it answers {status}: {text}");
                if turn >= WARM_UP {
                    waits.push(wait);
                }
            }
            Ok(waits)
        });
    }
    let mut all = Vec::new();
    while let Some(waits) = clients.join_next().await {
        all.extend(waits??);
    }
    eprintln!("    {:.2} ms, median of {} answers with {field}", median(&all), all.len());
    Ok(median(&all))
}

/// The same request as the worker's to Stripe.
fn session(client: &Client, url: &str, cart: &str) -> Result<RequestBuilder> {
    let parameters = [
        ("client_reference_id", cart),
        ("customer_email", "user@example.com"),
        ("line_items[0][price_data][currency]", "usd"),
        ("line_items[0][price_data][product_data][name]", "Blue T-shirt"),
        ("line_items[0][price_data][unit_amount]", "1990"),
        ("line_items[0][quantity]", "2"),
        ("line_items[1][price_data][currency]", "usd"),
        ("line_items[1][price_data][product_data][name]", "Running shoes"),
        ("line_items[1][price_data][unit_amount]", "8900"),
        ("line_items[1][quantity]", "1"),
        ("metadata[cart_id]", cart),
        ("metadata[link_version]", "1"),
        ("mode", "payment"),
        ("payment_intent_data[metadata][cart_id]", cart),
        ("payment_intent_data[metadata][link_version]", "1"),
        ("success_url", "http://localhost:3000/paid"),
    ];
    let form = Url::parse_with_params("http://form/", parameters)?.query().unwrap_or_default().to_owned();
    Ok(client
        .post(url)
        .header("authorization", "Bearer sk_test_bench")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("idempotency-key", format!("alone:{cart}"))
        .body(form))
}
