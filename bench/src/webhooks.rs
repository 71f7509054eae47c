//! Sends signed Stripe events, each once, with hyper: wrk can't send a list to its end, because it
//! stops by the clock and drops the requests in flight.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use anyhow::{Result, ensure};
use common::clock::Clock;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use sandbox::stripe::sign;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::{net::TcpStream, task::JoinSet};

use crate::{
    figures::milliseconds,
    http_rows::{SCRATCH, empty, prepare_pgbench},
    results::Sample,
    scene::{Product, Scene, WEBHOOK_SECRET, both},
};

/// Sessions that are paid, each with a `checkout.session.completed` event.
const SESSIONS: usize = 7_000;
/// Sessions that have a `payment_intent.succeeded` event too.
const WITH_BOTH: usize = 1_000;
/// Events that are sent a second time.
const REPEATS: usize = 2_000;
const CONNECTIONS: usize = 32;

/// A signed event, ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    body: Bytes,
    signature: String,
}

pub(crate) async fn prepare(scene: &mut Scene) -> Result<()> {
    prepare_pgbench(scene).await?;
    scene.prepare_product(SCRATCH, 0).await
}

pub(crate) async fn take(scene: &Scene, round: u32) -> Result<Sample> {
    let product = scene.product(SCRATCH)?;
    let ours = async {
        empty(&product.pool).await?;
        lot(scene, product, round).await
    };
    both(round, ours, scene.pgbench("update_one.sql", 32)).await
}

/// Seeds and sends one round of events, in a database with other rows; returns events per second.
pub(crate) async fn lot(scene: &Scene, product: &Product, round: u32) -> Result<f64> {
    seed(&product.pool, round).await?;
    let deliveries = Arc::new(deliveries(round));
    let address: SocketAddr = product.api.address.parse()?;
    scene.settle().await?;
    let sent = send(address, deliveries).await?;
    check(&product.pool, round).await?;
    eprintln!("    {:.0}/s (deliveries)", sent.per_second);
    Ok(sent.per_second)
}

/// Creates carts with an open session each, as the api and the worker would.
pub(crate) async fn seed(pool: &PgPool, round: u32) -> Result<()> {
    let script = include_str!("../sql/open_sessions.sql").replace("ROUND", &round.to_string());
    for statement in script.replace("SESSIONS", &SESSIONS.to_string()).split(";\n") {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(pool).await?;
    }
    Ok(())
}

/// The events in a shuffled, reproducible order; a repeat may precede its original.
pub(crate) fn deliveries(round: u32) -> Vec<Delivery> {
    let completed = (0..SESSIONS).map(|n| event(round, n, "checkout.session.completed"));
    let intents = (0..WITH_BOTH).map(|n| event(round, n * (SESSIONS / WITH_BOTH), "payment_intent.succeeded"));
    let mut events: Vec<String> = completed.chain(intents).collect();
    let repeats: Vec<String> = (0..REPEATS).map(|n| events[n * (events.len() / REPEATS)].clone()).collect();
    events.extend(repeats);
    let now = Clock::system().now().timestamp();
    // 10,000 and 7,919 are coprime, so each event is used once.
    let shuffled = (0..events.len()).map(|place| &events[place * 7_919 % events.len()]);
    let delivery = |body: &String| Delivery {
        signature: sign(body, WEBHOOK_SECRET, now),
        body: Bytes::copy_from_slice(body.as_bytes()),
    };
    shuffled.map(delivery).collect()
}

/// An event in Stripe's format, including fields that the product ignores.
fn event(round: u32, n: usize, kind: &str) -> String {
    let (cart, session) = (format!("cart_paid_{round}_{n}"), format!("cs_bench_{round}_{n}"));
    let metadata = json!({"cart_id": cart, "link_version": "1"});
    let now = Clock::system().now().timestamp();
    let object = if kind == "payment_intent.succeeded" {
        json!({
            "id": format!("pi_{round}_{n}"), "object": "payment_intent", "amount": 12880, "amount_received": 12880,
            "currency": "usd", "status": "succeeded", "metadata": metadata, "created": now, "livemode": false,
        })
    } else {
        json!({
            "id": session, "object": "checkout.session", "livemode": false, "mode": "payment", "status": "complete",
            "payment_status": "paid", "amount_subtotal": 12880, "amount_total": 12880, "currency": "usd",
            "client_reference_id": cart, "customer": null, "customer_email": format!("user{n}@example.com"),
            "metadata": metadata, "payment_intent": format!("pi_{round}_{n}"), "success_url": "http://localhost:3000/paid",
            "cancel_url": null, "created": now, "expires_at": now + 86_000, "url": null,
            "automatic_tax": {"enabled": false, "liability": null, "provider": null, "status": null},
            "custom_fields": [], "payment_method_types": ["card"], "shipping_options": [], "ui_mode": "hosted_page",
        })
    };
    json!({
        "id": format!("evt_{round}_{n}_{kind}"), "object": "event", "api_version": "2026-09-30.endive", "created": now,
        "livemode": false, "pending_webhooks": 1, "request": {"id": null, "idempotency_key": null}, "type": kind,
        "data": {"object": object},
    })
    .to_string()
}

/// The result of sending events.
pub(crate) struct Sent {
    /// Events per second, from the first request to the last response.
    pub(crate) per_second: f64,
    /// The time of each request, in milliseconds.
    pub(crate) waits: Vec<f64>,
}

/// Sends the events.
pub(crate) async fn send(address: SocketAddr, deliveries: Arc<Vec<Delivery>>) -> Result<Sent> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let (sender, connection) = http1::handshake(TokioIo::new(TcpStream::connect(address).await?)).await?;
        tokio::spawn(connection);
        connections.push(sender);
    }
    let begun = Instant::now();
    let mut senders = JoinSet::new();
    for mut sender in connections {
        let (next, deliveries) = (next.clone(), deliveries.clone());
        senders.spawn(async move {
            let mut waits = Vec::new();
            while let Some(delivery) = deliveries.get(next.fetch_add(1, Ordering::Relaxed)) {
                let sent = Instant::now();
                deliver(&mut sender, address, delivery).await?;
                waits.push(milliseconds(sent.elapsed()));
            }
            anyhow::Ok(waits)
        });
    }
    let mut waits = Vec::new();
    while let Some(ended) = senders.join_next().await {
        waits.extend(ended??);
    }
    Ok(Sent { per_second: f64::from(u32::try_from(deliveries.len())?) / begun.elapsed().as_secs_f64(), waits })
}

async fn deliver(sender: &mut http1::SendRequest<Full<Bytes>>, address: SocketAddr, delivery: &Delivery) -> Result<()> {
    let request = Request::builder()
        .method(Method::POST)
        .uri("/api/webhooks/stripe")
        .header(header::HOST, address.to_string())
        .header(header::CONTENT_TYPE, "application/json")
        .header("stripe-signature", &delivery.signature)
        .body(Full::new(delivery.body.clone()))?;
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    ensure!(status == StatusCode::OK, "a delivery is answered {status}: {}", String::from_utf8_lossy(&body));
    let answer: Value = serde_json::from_slice(&body)?;
    ensure!(answer["data"]["received"] == json!(true), "a delivery is answered {answer}");
    Ok(())
}

/// Checks that every cart was recovered once, every session paid, and every event stored once.
pub(crate) async fn check(pool: &PgPool, round: u32) -> Result<()> {
    let found: (i64, i64, i64) = sqlx::query_as(
        r"select (select count(*) from carts where status = 'recovered' and id like 'cart\_paid\_' || $1 || '\_%'),
                 (select count(*) from payment_links where status = 'paid' and cart_id like 'cart\_paid\_' || $1 || '\_%'),
                 (select count(*) from stripe_events where id like 'evt\_' || $1 || '\_%')",
    )
    .bind(round.to_string())
    .fetch_one(pool)
    .await?;
    let wanted = (i64::try_from(SESSIONS)?, i64::try_from(SESSIONS)?, i64::try_from(SESSIONS + WITH_BOTH)?);
    ensure!(found == wanted, "recovered carts, paid sessions and events are {found:?}, not {wanted:?}");
    Ok(())
}
