//! Runs the schedules. Every worker proposes every occurrence; Postgres admits each one once.

use std::time::Duration;

use queue::{Job, Runtime, Schedule};
use tokio::task::JoinHandle;

/// Delay after the start of an occurrence, so that it has also started by Postgres' clock.
const AFTER: Duration = Duration::from_millis(5);

/// Proposes the occurrences of one schedule until the task is aborted.
pub(crate) fn propose<J: Job + Default>(runtime: &Runtime, schedule: Schedule) -> JoinHandle<()> {
    let database = runtime.database().clone();
    tokio::spawn(async move {
        loop {
            let wait = match queue::propose(&database, &schedule, &J::default()).await {
                Ok(wait) => wait + AFTER,
                Err(error) => {
                    tracing::debug!(%error, schedule = schedule.name, "could not propose a run");
                    Duration::from_secs(1)
                }
            };
            tokio::time::sleep(wait).await;
        }
    })
}
