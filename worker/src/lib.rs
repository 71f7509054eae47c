//! The worker: creates and closes payment links, expires carts and adds up their stored counts. All
//! jobs and schedules are registered in this file.

#![cfg_attr(test, allow(clippy::disallowed_types, reason = "tests read what they wrote themselves"))]

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
    jobs::{
        AnonymizeOldCarts, ClosePaymentLink, CreatePaymentLink, DeleteOldRecords, ExpireCarts, ReconcilePayments,
        RollUpDays,
    },
};
use queue::{CatchUp, Cron, Job, RateLimit, Runtime, Schedule};
use tokio::task::JoinHandle;

pub use cli::{Check, CheckStatus, CommandLine, examine};
pub use config::{WorkerConfig, variables};
pub use error::JobError;
pub use health::serve as serve_health;

use crate::{
    jobs::{
        anonymize_old_carts, batches::Batches, close_payment_link, close_session, create_payment_link,
        delete_old_records, expire_carts, reconcile_payments, roll_up_days,
    },
    stripe::Stripe,
};

/// Every minute, so that a payment without an event is found within two minutes of its session's end.
const RECONCILE_SCHEDULE: &str = "15 * * * * *";
/// Hourly, at an arbitrary minute.
const MAINTENANCE_SCHEDULE: &str = "0 40 * * * *";
/// Daily, at a time of low traffic, because each run scans all carts.
const ANONYMIZE_SCHEDULE: &str = "0 20 3 * * *";
/// Often enough that analytics read few rows besides the sums.
const ADD_UP_SCHEDULE: &str = "30 * * * * *";

/// State shared by all handlers, which take it as `Data<State>`.
#[derive(Debug, Clone)]
pub struct State {
    database: Database,
    /// Another pool to the same database, for short statements that find rows by key.
    lookups: Database,
    clock: Clock,
    config: Arc<WorkerConfig>,
    stripe: Stripe,
    batches: Batches,
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
    let batches = Batches::start(&lookups, close_session::current_settings(&config), stripe.livemode(), &clock);
    let state = State {
        database,
        lookups,
        clock,
        config: Arc::new(config),
        stripe,
        batches,
        expiring: expire_carts::Expiring::default(),
    };

    let Workers { monitor, schedules, .. } = register_all(&runtime, &state);
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
    Stripe::new(&config.checkout_hosts.stripe_api_url, config.stripe_secret_key.clone(), &config.proxy, rate)
}

/// Registers each job with its handler, and its schedule if it has one.
fn register_all<'a>(runtime: &'a Runtime, state: &'a State) -> Workers<'a> {
    let config = &state.config;
    let mut workers = Workers { monitor: Monitor::new(), schedules: Vec::new(), runtime, state };
    // Creates Stripe sessions for the api, which has no Stripe key.
    workers.register::<CreatePaymentLink, _, _>(create_payment_link::run);
    // Prevents payments for carts that are recovered, expired or deleted.
    workers.register::<ClosePaymentLink, _, _>(close_payment_link::run);
    // Finds the outcome of sessions whose events were lost.
    workers.scheduled::<ReconcilePayments, _, _>(&cron(RECONCILE_SCHEDULE), CatchUp::Latest, reconcile_payments::run);
    // One run expires all carts that are due, so one run is enough after an outage.
    workers.scheduled::<ExpireCarts, _, _>(&config.expiry_schedule, CatchUp::Latest, expire_carts::run);
    // Every missed occurrence is run after an outage.
    workers.scheduled::<RollUpDays, _, _>(&config.rollup_schedule, CatchUp::All, roll_up_days::run);
    workers.schedule::<RollUpDays>("add_up_counts", &cron(ADD_UP_SCHEDULE), CatchUp::Latest);
    workers.scheduled::<DeleteOldRecords, _, _>(&cron(MAINTENANCE_SCHEDULE), CatchUp::Latest, delete_old_records::run);
    // A worker without RETAIN_PERSONAL_DATA takes no such job, because another worker may have it
    // set.
    if config.retain_personal_data.is_some() {
        workers.scheduled::<AnonymizeOldCarts, _, _>(
            &cron(ANONYMIZE_SCHEDULE),
            CatchUp::Latest,
            anonymize_old_carts::run,
        );
    }
    workers
}

/// A schedule of this file.
fn cron(expression: &str) -> Cron {
    expression.parse().expect("it is a constant, and a test starts every schedule")
}

struct Workers<'a> {
    monitor: Monitor,
    schedules: Vec<JoinHandle<()>>,
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

    /// Like [`Workers::register`], with a schedule of the job's name.
    fn scheduled<J, H, F>(&mut self, cron: &Cron, catch_up: CatchUp, handler: H)
    where
        J: Job + Default,
        H: Fn(J, Data<State>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<(), JobError>> + Send + 'static,
    {
        self.register(handler);
        self.schedule::<J>(J::KIND, cron, catch_up);
    }

    /// Starts the task of a schedule, also if this process does not serve the job's queue.
    fn schedule<J: Job + Default>(&mut self, name: &'static str, cron: &Cron, catch_up: CatchUp) {
        let schedule = Schedule { name, cron: cron.clone(), catch_up };
        self.schedules.push(schedules::propose::<J>(self.runtime, schedule));
    }
}
