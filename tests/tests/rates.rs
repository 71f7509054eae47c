//! A rate limit shared by all processes.

use std::{sync::Arc, time::Duration};

use queue::{Listen, RateLimit};
use sandbox::stripe::{Fault, Operation};
use tests::{App, Setup, TestDatabase, connection, eventually};
use tokio::time::Instant;

/// Ten limiters and forty waiting callers: no permit is granted before the rate allows it. (Permits
/// are not counted by the second: a busy machine wakes callers late, and then many at once.)
#[tokio::test]
async fn ten_processes_together_stay_under_the_rate() {
    const RATE: u32 = 40;
    let database = TestDatabase::create().await;
    let begun = Instant::now();
    let turns = Arc::new(std::sync::Mutex::new(Vec::new()));
    let callers: Vec<_> = (0..10)
        .flat_map(|_| {
            let limit = RateLimit::start(database.reach(Listen::Directly, 1), "test", RATE);
            (0..4).map(move |_| limit.clone())
        })
        .map(|limit| {
            let turns = turns.clone();
            tokio::spawn(async move {
                for _ in 0..3 {
                    limit.turn().await.unwrap();
                    turns.lock().unwrap().push(Instant::now());
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let turns = turns.lock().unwrap().clone();
    assert_eq!(turns.len(), 120);
    are_within(RATE, begun, turns);
}

/// No permit was granted before the rate allows it.
fn are_within(rate: u32, begun: Instant, mut turns: Vec<Instant>) {
    turns.sort_unstable();
    for (before, turn) in (0..).zip(turns) {
        let earliest = Duration::from_secs(1) * before / rate;
        assert!(turn - begun >= earliest, "turn {before} came after {:?}, not {earliest:?}", turn - begun);
    }
}

#[tokio::test]
async fn a_back_off_applies_to_every_process() {
    let database = TestDatabase::create().await;
    let reach = || database.reach(Listen::Directly, 1);
    let (one, two) = (RateLimit::start(reach(), "test", 100), RateLimit::start(reach(), "test", 100));
    one.turn().await.unwrap();
    let held_back = Instant::now();
    one.hold_back(Duration::from_millis(1_500)).await.unwrap();
    two.turn().await.unwrap();
    assert!(held_back.elapsed() >= Duration::from_millis(1_450), "{:?}", held_back.elapsed());
    // A caller does not block for a long pause; it is told when to retry.
    one.hold_back(Duration::from_secs(600)).await.unwrap();
    assert!(matches!(two.turn().await, Err(queue::RateLimited::After(wait)) if wait > Duration::from_secs(500)));
    // A process without its own limit is refused too; other rates continue.
    assert!(RateLimit::start(reach(), "test", 0).turn().await.is_err());
    RateLimit::start(reach(), "other", 100).turn().await.unwrap();
    RateLimit::start(reach(), "another", 0).turn().await.unwrap();
}

/// A caller that would wait long is refused, and does not consume a permit.
#[tokio::test]
async fn callers_do_not_wait_in_a_long_queue() {
    const RATE: u32 = 2;
    let database = TestDatabase::create().await;
    let begun = Instant::now();
    let limit = RateLimit::start(database.reach(Listen::Directly, 1), "test", RATE);
    let callers: Vec<_> = (0..60)
        .map(|_| {
            let limit = limit.clone();
            tokio::spawn(async move { limit.turn().await.ok().map(|()| Instant::now()) })
        })
        .collect();
    let mut turns = Vec::new();
    for caller in callers {
        turns.extend(caller.await.unwrap());
    }
    // All sixty would need half a minute, and each waits for 5 s at most.
    assert!((1..60).contains(&turns.len()), "{} of 60 had a turn", turns.len());
    are_within(RATE, begun, turns);
    // The queue is empty: the next caller does not wait for those that were refused.
    limit.turn().await.unwrap();
}

/// A 429 for one worker stops the requests of the others, too; waiting jobs lose no attempt.
#[tokio::test]
async fn a_429_slows_the_whole_fleet_and_costs_no_attempt() {
    let app = Setup::default().set("PAYMENT_LINK_WAIT", "100ms").start().await;
    let other = app.start_worker();
    app.stripe.fail_next(Operation::Create, Fault::RateLimited { retry_after: 600 });
    let first = app.cart().await;
    app.ask(&first).await.data(202);
    eventually("Stripe asked to slow down", async || held_back(&app).await > 500.0).await;
    let carts = [app.cart().await, app.cart().await, app.cart().await, app.cart().await];
    for cart in &carts {
        app.ask(cart).await.data(202);
    }
    // The jobs are snoozed until then, on any worker.
    let put_off = "select count(*) from jobs where kind = 'create_payment_link' and state = 'pending'
                   and run_at > now() + interval '8 minutes' and attempts = 0";
    eventually("all four wait", async || {
        sqlx::query_scalar::<_, i64>(put_off).fetch_one(&app.pool).await.unwrap() == 4
    })
    .await;
    assert_eq!(app.stripe.calls(Operation::Create), 1);
    let shown = app.get(&format!("/api/carts/{}/payment-link", carts[0])).await.data(200);
    assert!(shown["lastError"].as_str().unwrap().contains("the rate is held back"), "{shown}");
    // The pause is over: every cart gets a link.
    sqlx::raw_sql("delete from rate_limits; update jobs set run_at = now() where state = 'pending'")
        .execute(&app.pool)
        .await
        .unwrap();
    for cart in carts.iter().chain([&first]) {
        eventually("it has a link", async || app.ask(cart).await.status == 200).await;
    }
    other.stop().await;
}

async fn held_back(app: &App) -> f64 {
    sqlx::query_scalar("select coalesce(extract(epoch from max(next_at) - now()), 0)::float8 from rate_limits")
        .fetch_one(&mut connection(&app.pool).await)
        .await
        .unwrap()
}
