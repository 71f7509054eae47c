//! What runs by the clock. Every worker proposes every slot; the ledger in
//! Postgres lets each in once.

use std::time::Duration;

use common::jobs::{DeleteOldRecords, ExpireCarts, RollUpDays};
use queue::{Job, Schedule};
use tokio::task::JoinHandle;

use crate::State;

/// Hourly; nothing depends on when.
const MAINTENANCE_SCHEDULE: &str = "0 40 * * * *";

/// Proposes slots until the tasks are aborted.
pub(crate) fn start(state: &State) -> Vec<JoinHandle<()>> {
    let config = &state.config;
    let mut tasks = vec![
        propose::<ExpireCarts>(state, config.expiry_schedule.clone()),
        propose::<RollUpDays>(state, config.rollup_schedule.clone()),
    ];
    if let Ok(schedule) = MAINTENANCE_SCHEDULE.parse() {
        tasks.push(propose::<DeleteOldRecords>(state, schedule));
    }
    tasks
}

fn propose<J: Job + Default>(state: &State, schedule: Schedule) -> JoinHandle<()> {
    let pool = state.pool.clone();
    tokio::spawn(async move {
        loop {
            let wait = match queue::propose(&pool, J::KIND, &schedule, &J::default()).await {
                Ok(wait) => wait.to_std().unwrap_or_default() + Duration::from_millis(5),
                Err(error) => {
                    tracing::debug!(%error, schedule = J::KIND, "could not propose a slot");
                    Duration::from_secs(1)
                }
            };
            tokio::time::sleep(wait).await;
        }
    })
}
