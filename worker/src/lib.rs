//! The job side: makes and closes payment links, expires carts, rolls up days.
//! Every registration and every schedule is in this file.

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
pub use config::WorkerConfig;
pub use error::JobError;
pub use health::serve as serve_health;

use crate::{
    jobs::{
        anonymize_old_carts, close_payment_link, create_payment_link, delete_old_records, expire_carts, roll_up_days,
    },
    stripe::Stripe,
};

/// Hourly; nothing depends on when.
const MAINTENANCE_SCHEDULE: &str = "0 40 * * * *";
/// Daily, when few people shop: each run looks at every cart.
const ANONYMIZE_SCHEDULE: &str = "0 20 3 * * *";
/// Often enough that a list reads few rows more.
const FOLD_SCHEDULE: &str = "30 */5 * * * *";

/// What every handler can reach, as `Data<State>`.
#[derive(Debug, Clone)]
pub struct State {
    database: Database,
    /// The same database, for short statements that find rows by key.
    lookups: Database,
    clock: Clock,
    config: Arc<WorkerConfig>,
    stripe: Stripe,
    expiring: expire_carts::Expiring,
}

/// Works until `stop` resolves, then finishes what is in flight for at most `SHUTDOWN_TIMEOUT`.
///
/// Handlers share the connections of `database`; the queue opens [`queue::CONNECTIONS`] of its own.
pub async fn run(pools: Pools, clock: Clock, config: WorkerConfig, stop: impl Future<Output = ()> + Send) {
    let settings = queue::Config {
        concurrency: config.concurrency,
        lease: config.lease,
        retention: config.job_retention,
        renew_every: config.lease / 3,
        ..queue::Config::default()
    };
    let Pools { database, lookups } = pools;
    let runtime = Runtime::start(&database, settings);
    let timeout = config.shutdown_timeout;
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
    // What ended last is written down, what did not end is given back.
    if tokio::time::timeout(Duration::from_secs(5), runtime.close()).await.is_err() {
        tracing::warn!("Postgres did not take the last outcomes in time; those jobs run again");
    }
}

/// All workers share one rate, as they share one account.
fn stripe(config: &WorkerConfig, database: Database) -> Stripe {
    let rate = RateLimit::start(database, "stripe", config.stripe_rate);
    Stripe::new(&config.stripe_api_url, config.stripe_secret_key.clone(), rate)
}

/// One line a job: its handler, and why there is one.
fn register_all(runtime: &Runtime, state: &State) -> Monitor {
    let mut workers = Workers { monitor: Monitor::new(), runtime, state };
    // The api holds no key to money: it asks, this makes the session.
    workers.register::<CreatePaymentLink, _, _>(create_payment_link::run);
    // Nobody is to pay for a cart that is recovered, expired or deleted.
    workers.register::<ClosePaymentLink, _, _>(close_payment_link::run);
    // Carts older than CART_TTL are given up.
    workers.register::<ExpireCarts, _, _>(expire_carts::run);
    // Sums stay exact without it; it keeps reading them cheap.
    workers.register::<RollUpDays, _, _>(roll_up_days::run);
    // What nobody needs any more should not be kept.
    workers.register::<DeleteOldRecords, _, _>(delete_old_records::run);
    // Who shopped is nobody's business for ever; what was won back is. (A worker that is
    // not told for how long takes no such job: another may know.)
    if state.config.retain_personal_data.is_some() {
        workers.register::<AnonymizeOldCarts, _, _>(anonymize_old_carts::run);
    }
    workers.monitor
}

/// One line a schedule: when, what an outage means for it, and why.
fn schedule_all(state: &State) -> Vec<JoinHandle<()>> {
    let config = &state.config;
    let (latest, all) = (CatchUp::Latest, CatchUp::All);
    // One expiry takes all that is due: after an outage one makes up for all that were missed.
    let mut tasks = vec![schedules::propose::<ExpireCarts>(
        state,
        Schedule { name: "expire_carts", cron: config.expiry_schedule.clone(), catch_up: latest },
    )];
    // Every day has its rollup, also those that nobody was there for.
    tasks.push(schedules::propose::<RollUpDays>(
        state,
        Schedule { name: "roll_up_days", cron: config.rollup_schedule.clone(), catch_up: all },
    ));
    // Between rollups the counts of many connections add up to rows that every list would have to read.
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
    /// Adds an apalis worker for `J`, if this process serves its queue.
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
