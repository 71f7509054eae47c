//! The test harness: a real Postgres per test run, a database per test, the real router and worker
//! in the test's process, and the fake Stripe.

#![allow(clippy::disallowed_types, reason = "it reads no untrusted input")]

mod app;
mod authority;
mod carts;
pub mod cluster;
mod connect_proxy;
mod contract;
mod database;
mod door;
pub mod events;
pub mod http2;
pub mod imports;
mod last_release;
pub mod leaks;
pub mod lives;
pub mod load;
pub mod migration_harm;
pub mod pooler;
mod ports;
pub mod postgres_node;
pub mod probe;
pub mod processes;

use std::time::Duration;

pub use app::{Answer, App, RunningWorker, Setup};
pub use authority::Authority;
pub use carts::{OF_THE_SHOPPER, UNKNOWN_FIELD, a_cart, a_line, exact, shown_cart};
pub use connect_proxy::{ConnectProxy, Tunnel};
pub use contract::{Contract, is_of_the_dashboard};
pub use database::{ROLES, TestDatabase, connection, transaction};
pub use door::Door;
pub use last_release::{Binaries, LastRelease};
pub use ports::{free_address, free_port};

use common::clock::Clock;
use sandbox::stripe::{FakeStripe, FakeStripeConfig};

/// Starts a fake Stripe that sends events to the api at `base`, for example
/// `http://127.0.0.1:3000`.
///
/// # Panics
/// If it can't be started.
pub async fn fake_stripe(base: &str, webhook_secret: &str, clock: Clock) -> FakeStripe {
    let config = FakeStripeConfig {
        bind_addr: ([127, 0, 0, 1], 0).into(),
        public_url: None,
        webhook_url: Some(format!("{base}/api/webhooks/stripe")),
        webhook_secret: webhook_secret.to_owned(),
        file: None,
        clock,
    };
    FakeStripe::start(config).await.expect("the fake Stripe starts")
}

/// The names of the schedules of a worker with default settings, sorted.
pub const SCHEDULES: [&str; 5] =
    ["add_up_counts", "delete_old_records", "expire_carts", "reconcile_payments", "roll_up_days"];

/// The timeout of conditions. On an idle machine they hold within milliseconds.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds.
///
/// # Panics
/// If it does not hold within [`DEADLINE`].
pub async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl FnMut() -> F) {
    within(DEADLINE, what, condition).await;
}

/// Waits until `condition` holds.
///
/// # Panics
/// If it does not hold within `deadline`.
pub async fn within<F: Future<Output = bool>>(deadline: Duration, what: &str, mut condition: impl FnMut() -> F) {
    let held = tokio::time::timeout(deadline, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(held.await.is_ok(), "within {deadline:?} it should have come true that {what}");
}
