//! Checks that the tables stop growing under a steady load with short retention periods.

use std::time::{Duration, Instant};

use anyhow::Result;
use apalis::prelude::{Monitor, WorkerBuilder};
use chrono::{DateTime, Utc};
use common::{
    api_keys::KeyHash,
    carts::CartId,
    clock::Clock,
    db::Database,
    idempotency::{self, Fingerprint},
    maintenance::{self, RecordRetention},
    stripe_events::{self, StripeEvent, StripeObject},
};
use queue::{Config, Retention, Runtime};
use sandbox::postgres::PrivatePostgres;
use serde_json::value::RawValue;
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::{sync::oneshot, time::interval};

use crate::drain::{NoOp, no_op};

/// Rows of each kind per second.
const A_SECOND: u32 = 200;
const KEPT: Duration = Duration::from_secs(10);
const SAMPLES: usize = 12;
const SAMPLE_EVERY: Duration = Duration::from_secs(30);
/// By then, autovacuum has visited each table and the first retention run has ended.
const SETTLED: usize = 4;
const TABLES: [&str; 4] = ["jobs", "idempotency_keys", "stripe_events", "schedule_slots"];

pub(crate) async fn measure(postgres: &PrivatePostgres) -> Result<()> {
    postgres.ensure_database("retention").await?;
    let pool = PgPoolOptions::new().max_connections(6).connect(&postgres.url("retention")).await?;
    let database = Database::from(pool.clone());
    common::db::prepare(&database).await?;
    let config = Config { retention: Retention { done: KEPT, dead: KEPT }, ..Config::default() };
    let runtime = Runtime::start(&database, config);
    let (stop, stopped) = oneshot::channel::<()>();
    let (backend, stopping) = (runtime.clone(), runtime.clone());
    let monitor =
        Monitor::new().register(move |_| WorkerBuilder::new("bench").backend(backend.backend::<NoOp>()).build(no_op));
    let monitor = tokio::spawn(monitor.run_with_signal(async move {
        stopping.stop_after(stopped).await.ok();
        Ok(())
    }));
    let load = tokio::spawn(load(database.clone()));
    let upkeep = tokio::spawn(upkeep(database.clone()));
    println!(
        "{A_SECOND} jobs, idempotency keys, events and slots a second, each kept for {KEPT:?}: MiB of table and indexes\n"
    );
    println!("| after | {} | rows of jobs |\n|---|{}---|", TABLES.join(" | "), "---|".repeat(TABLES.len()));
    let mut samples = Vec::new();
    let started = Instant::now();
    for _ in 0..SAMPLES {
        tokio::time::sleep(SAMPLE_EVERY).await;
        samples.push(sample(&pool, started).await?);
    }
    load.abort();
    upkeep.abort();
    let _ = stop.send(());
    monitor.await??;
    runtime.close().await;
    for (table, name) in TABLES.iter().enumerate() {
        let largest = |part: &[[f64; 4]]| part.iter().map(|sizes| sizes[table]).fold(0.0, f64::max);
        let (early, late) = (largest(&samples[SETTLED..SAMPLES - SETTLED]), largest(&samples[SAMPLES - SETTLED..]));
        println!("{name}: the last two minutes ÷ the two before: {:.2} (flat is about 1)", late / early);
    }
    Ok(())
}

async fn sample(pool: &PgPool, started: Instant) -> Result<[f64; 4]> {
    let mut sizes = [0.0; 4];
    for (size, table) in sizes.iter_mut().zip(TABLES) {
        let bytes: i64 =
            sqlx::query_scalar("select pg_total_relation_size($1::regclass)").bind(table).fetch_one(pool).await?;
        *size = f64::from(i32::try_from(bytes / 1024)?) / 1024.0;
    }
    let rows: i64 = sqlx::query_scalar("select count(*) from jobs").fetch_one(pool).await?;
    let columns = sizes.map(|size| format!("{size:.1}")).join(" | ");
    println!("| {} s | {columns} | {rows} |", started.elapsed().as_secs());
    Ok(sizes)
}

/// Writes the rows that a shop, Stripe and the schedules leave behind, one second's worth at a
/// time.
async fn load(database: Database) -> Result<()> {
    let mut seconds = interval(Duration::from_secs(1));
    let clock = Clock::system();
    for second in 0_u32.. {
        seconds.tick().await;
        let now = clock.now();
        let jobs: Vec<NoOp> = (0..i64::from(A_SECOND)).map(|n| NoOp { n }).collect();
        let mut tx = database.begin().await?;
        queue::enqueue_many(&mut tx, &jobs).await?;
        for n in 0..A_SECOND {
            let name = format!("{second}_{n}");
            let fingerprint = Fingerprint::of(&KeyHash::of(b"bench"), &name, RawValue::NULL);
            idempotency::claim(&mut tx, &fingerprint, CartId::generate().as_str(), now).await?;
            stripe_events::apply(&mut tx, &[event(&name, now)], now).await?;
        }
        sqlx::query(
            "insert into schedule_slots (schedule, slot) select 'bench ' || n, $2 from generate_series(1, $1) n",
        )
        .bind(i32::try_from(A_SECOND)?)
        .bind(now)
        .execute(&mut tx)
        .await?;
        tx.commit().await?;
    }
    Ok(())
}

fn event(name: &str, now: DateTime<Utc>) -> StripeEvent {
    StripeEvent {
        id: format!("evt_{name}"),
        kind: "customer.created".to_owned(),
        created_at: now,
        is_of_other_account: false,
        object: StripeObject::default(),
    }
}

/// Runs the worker's hourly maintenance more often.
async fn upkeep(database: Database) -> Result<()> {
    let retention = RecordRetention { events: KEPT, idempotency_keys: KEPT, slots: KEPT, audit: KEPT };
    let (mut ticks, clock) = (interval(KEPT), Clock::system());
    loop {
        ticks.tick().await;
        loop {
            let mut tx = database.begin().await?;
            let more = maintenance::delete_batch(&mut tx, &retention, clock.now()).await?;
            tx.commit().await?;
            if !more {
                break;
            }
        }
    }
}
