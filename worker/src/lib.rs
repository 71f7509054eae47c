//! The worker: creates and closes payment links, expires carts and compacts the analytics counters.
//! All jobs and schedules are registered in this file.

mod cli;
pub mod config;
mod error;
mod health;
mod jobs;
mod schedules;
mod stripe;

use std::{sync::Arc, time::Duration};

use apalis::prelude::{Data, Monitor, WorkerBuilder};
use common::{
    clock::Clock,
    db::{Database, Pools},
    jobs::{AnonymizeOldCarts, ClosePaymentLink, CreatePaymentLink, DeleteOldRecords, ExpireCarts, RollUpDays},
};
use queue::{CatchUp, Job, RateLimit, Runtime, Schedule};
use tokio::task::JoinHandle;

pub use cli::{Check, CheckStatus, CommandLine, examine};
pub use config::{WorkerConfig, variables};
pub use error::JobError;
pub use health::serve as serve_health;

use crate::{
    jobs::{
        anonymize_old_carts, close_payment_link, create_payment_link, delete_old_records, expire_carts, roll_up_days,
    },
    stripe::Stripe,
};

/// Hourly, at an arbitrary minute.
const MAINTENANCE_SCHEDULE: &str = "0 40 * * * *";
/// Daily, at a time of low traffic, because each run scans all carts.
const ANONYMIZE_SCHEDULE: &str = "0 20 3 * * *";
/// Often enough that listing carts reads only a few additional counter rows.
const FOLD_SCHEDULE: &str = "30 */5 * * * *";

/// State shared by all handlers, which take it as `Data<State>`.
#[derive(Debug, Clone)]
pub struct State {
    database: Database,
    /// Another pool to the same database, for short statements that find rows by key.
    lookups: Database,
    clock: Clock,
    config: Arc<WorkerConfig>,
    stripe: Stripe,
    expiring: expire_carts::Expiring,
}

/// Runs jobs until `stop` resolves, then waits for running jobs for at most `SHUTDOWN_TIMEOUT`.
///
/// Handlers share the connections of `pools`; the queue opens [`queue::CONNECTIONS`] of its own.
pub async fn run(pools: Pools, clock: Clock, config: WorkerConfig, stop: impl Future<Output = ()> + Send) {
    let settings = queue::Config {
        concurrency: config.concurrency,
        lease: config.lease,
        retention: queue::Retention { done: config.retain_done_jobs, dead: config.retain_dead_jobs },
        renew_every: config.lease / 3,
        ..queue::Config::default()
    };
    let Pools { database, lookups } = pools;
    let runtime = Runtime::start(&database, settings);
    let timeout = config.shared.shutdown_timeout;
    let stripe = stripe(&config, lookups.clone());
    let state = State {
        database,
        lookups,
        clock,
        config: Arc::new(config),
        stripe,
        expiring: expire_carts::Expiring::default(),
    };

    let schedules = schedule_all(&state);
    let monitor = register_all(&runtime, &state);
    let worked = monitor.shutdown_timeout(timeout).run_with_signal(async {
        runtime.stop_after(stop).await;
        Ok(())
    });
    if let Err(error) = worked.await {
        tracing::error!(%error, "workers ended");
    }
    for schedule in schedules {
        schedule.abort();
    }
    // Writes the last outcomes and returns unfinished jobs to the queue.
    if tokio::time::timeout(Duration::from_secs(5), runtime.close()).await.is_err() {
        tracing::warn!("Postgres did not take the last outcomes in time; those jobs run again");
    }
}

/// Creates the Stripe client. All workers share one rate limit, because they share one account.
fn stripe(config: &WorkerConfig, database: Database) -> Stripe {
    let rate = RateLimit::start(database, "stripe", config.stripe_rate);
    Stripe::new(&config.checkout_hosts.stripe_api_url, config.stripe_secret_key.clone(), rate)
}

/// Registers one handler per job, each with its purpose.
fn register_all(runtime: &Runtime, state: &State) -> Monitor {
    let mut workers = Workers { monitor: Monitor::new(), runtime, state };
    // Creates Stripe sessions for the api, which has no Stripe key.
    workers.register::<CreatePaymentLink, _, _>(create_payment_link::run);
    // Prevents payments for carts that are recovered, expired or deleted.
    workers.register::<ClosePaymentLink, _, _>(close_payment_link::run);
    // Expires carts older than CART_TTL.
    workers.register::<ExpireCarts, _, _>(expire_carts::run);
    // Compacts the counters, so that sums stay cheap to read. They are exact without it.
    workers.register::<RollUpDays, _, _>(roll_up_days::run);
    // Deletes records after their retention.
    workers.register::<DeleteOldRecords, _, _>(delete_old_records::run);
    // Anonymizes old carts; revenue totals are kept. A worker without RETAIN_PERSONAL_DATA
    // takes no such job, because another worker may have it set.
    if state.config.retain_personal_data.is_some() {
        workers.register::<AnonymizeOldCarts, _, _>(anonymize_old_carts::run);
    }
    workers.monitor
}

/// Starts one task per schedule, each with its behavior after an outage.
fn schedule_all(state: &State) -> Vec<JoinHandle<()>> {
    let config = &state.config;
    let (latest, all) = (CatchUp::Latest, CatchUp::All);
    // One run expires all carts that are due, so one run is enough after an outage.
    let mut tasks = vec![schedules::propose::<ExpireCarts>(
        state,
        Schedule { name: "expire_carts", cron: config.expiry_schedule.clone(), catch_up: latest },
    )];
    // Every missed occurrence is run after an outage.
    tasks.push(schedules::propose::<RollUpDays>(
        state,
        Schedule { name: "roll_up_days", cron: config.rollup_schedule.clone(), catch_up: all },
    ));
    // Each connection adds its own counter rows, and every list reads all that are not compacted.
    if let Ok(cron) = FOLD_SCHEDULE.parse() {
        tasks.push(schedules::propose::<RollUpDays>(state, Schedule { name: "fold_counts", cron, catch_up: latest }));
    }
    if let Ok(cron) = MAINTENANCE_SCHEDULE.parse() {
        let schedule = Schedule { name: "delete_old_records", cron, catch_up: latest };
        tasks.push(schedules::propose::<DeleteOldRecords>(state, schedule));
    }
    if config.retain_personal_data.is_some()
        && let Ok(cron) = ANONYMIZE_SCHEDULE.parse()
    {
        let schedule = Schedule { name: "anonymize_old_carts", cron, catch_up: latest };
        tasks.push(schedules::propose::<AnonymizeOldCarts>(state, schedule));
    }
    tasks
}

struct Workers<'a> {
    monitor: Monitor,
    runtime: &'a Runtime,
    state: &'a State,
}

impl Workers<'_> {
    /// Adds an apalis worker for `J` if this process serves its queue.
    fn register<J, H, F>(&mut self, handler: H)
    where
        J: Job,
        H: Fn(J, Data<State>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<(), JobError>> + Send + 'static,
    {
        if !self.state.config.serves(J::QUEUE) {
            return;
        }
        let (runtime, state) = (self.runtime.clone(), self.state.clone());
        self.monitor = std::mem::take(&mut self.monitor).register(move |_| {
            WorkerBuilder::new(J::KIND).backend(runtime.backend::<J>()).data(state.clone()).build(handler.clone())
        });
    }
}
