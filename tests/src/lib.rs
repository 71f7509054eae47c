//! The harness: a real Postgres a test run, a database of its own a test, the
//! real router and worker in the test's process, Stripe played by the stand-in.

mod app;
pub mod cluster;
mod contract;
mod database;
mod door;
mod last_release;
pub mod leaks;
pub mod load;
pub mod migration_harm;
pub mod pooler;
pub mod postgres_node;
pub mod processes;

use std::time::Duration;

pub use app::{Answer, App, RunningWorker, Setup, a_cart};
pub use contract::{Contract, is_of_the_dashboard};
pub use database::{ROLES, TestDatabase, connection, transaction};
pub use door::Door;
pub use last_release::{Binaries, LastRelease};

/// Waits until `condition` holds.
///
/// # Panics
/// If it does not within 20 s.
pub async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl FnMut() -> F) {
    within(Duration::from_secs(20), what, condition).await;
}

/// Waits until `condition` holds.
///
/// # Panics
/// If it does not within `deadline`.
pub async fn within<F: Future<Output = bool>>(deadline: Duration, what: &str, mut condition: impl FnMut() -> F) {
    let held = tokio::time::timeout(deadline, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(held.await.is_ok(), "within {deadline:?} it should have come true that {what}");
}
