//! Many sessions without an outcome, several workers, and a Stripe that fails.

use std::time::Duration;

use tokio::time::Instant;

use super::*;

/// Adds links whose sessions ended an hour ago. Stripe does not know them.
async fn add_ended_links(app: &App, count: i32) {
    sqlx::query(
        "insert into payment_links (cart_id, version, status, job_id, amount_minor, currency, session_expires_at, session_id, url, created_at, updated_at)
         select 'cart_' || n, 1, 'open', gen_random_uuid(), 100, 'usd', $2, 'cs_' || n, 'http://localhost', $2, $2
         from generate_series(1, $1) n",
    )
    .bind(count)
    .bind(app.now() - TimeDelta::hours(1))
    .execute(&app.pool)
    .await
    .unwrap();
}

async fn left(app: &App) -> i64 {
    sqlx::query_scalar("select count(*) from payment_links where status = 'open'").fetch_one(&app.pool).await.unwrap()
}

#[tokio::test]
async fn several_workers_work_off_thousands_in_the_rate_and_ask_once() {
    const RATE: u32 = 400;
    const LINKS: u32 = 2_000;
    let app = Setup::default().set("STRIPE_RATE", &RATE.to_string()).start().await;
    let workers = [app.start_worker(), app.start_worker()];
    add_ended_links(&app, 2_000).await;
    let begun = Instant::now();
    for _ in 0..3 {
        queue::enqueue(&mut connection(&app.pool).await, &ReconcilePayments::default()).await.unwrap();
    }
    eventually("none is left", async || left(&app).await == 0).await;
    let earliest = Duration::from_secs(1) * (LINKS - 1) / RATE;
    assert!(begun.elapsed() >= earliest, "{:?} is less than {earliest:?}", begun.elapsed());
    assert_eq!(app.stripe.calls(Operation::Retrieve), 2_000);
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test]
async fn an_unavailable_stripe_is_asked_again_by_the_next_run() {
    let app = without_events().await;
    let (id, _, paid_at) = paid(&app).await;
    end_sessions(&app).await;
    app.stripe.fail_next(Operation::Retrieve, Fault::Unavailable { retry_after: 0 });
    app.stripe.fail_next(Operation::Retrieve, Fault::Garbage);
    for calls in [1, 1, 2] {
        reconcile(&app).await;
        assert_eq!((link_status(&app, &id).await.as_str(), app.stripe.calls(Operation::Retrieve)), ("open", calls));
        app.clock.advance(TimeDelta::seconds(26));
    }
    app.clock.advance(TimeDelta::seconds(26));
    reconcile(&app).await;
    assert_eq!(app.show(&id).await["recoveredAt"], json!(paid_at));
}

/// A run ends soon if Stripe is unavailable, and a few bad responses do not end it.
#[tokio::test]
async fn a_run_ends_after_many_failures_in_a_row() {
    let app = Setup::default().at("2026-03-10T22:00:00Z").set("STRIPE_RATE", "0").start().await;
    add_ended_links(&app, 150).await;
    (0..10).for_each(|_| app.stripe.fail_next(Operation::Retrieve, Fault::Garbage));
    reconcile(&app).await;
    assert_eq!((left(&app).await, app.stripe.calls(Operation::Retrieve)), (10, 150));

    sqlx::query("update payment_links set status = 'open', asked_at = null").execute(&app.pool).await.unwrap();
    (0..200).for_each(|_| app.stripe.fail_next(Operation::Retrieve, Fault::HtmlBadGateway));
    reconcile(&app).await;
    let calls = app.stripe.calls(Operation::Retrieve) - 150;
    assert!((16..50).contains(&calls), "{calls}");
    assert_eq!(left(&app).await, 150);
}
