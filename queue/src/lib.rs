//! A durable job queue in Postgres, behind apalis' own [`Backend`] trait.
//!
//! Workers, monitors, layers, handlers and shutdown are apalis'. This crate is
//! the storage, because the one that comes with apalis is not safe enough for
//! unattended work with money. It knows nothing of what the jobs do. Its promises:
//!
//! 1. **Enqueue in the caller's transaction** ([`enqueue`]): one statement, one
//!    job or many. A unique key that is taken means "already queued", never an error.
//! 2. **A lease a job** (`lease.rs`): the holder renews it on a timer of its own,
//!    whatever the handlers do. A lease found lost drops the job's future. A job is
//!    never fetched before there is a free slot to run it.
//! 3. **Attempts are counted when a job is taken**, so a job that kills its
//!    process ends as `dead` too.
//! 4. **Retries are rows** (`ack.rs`): `run_at` moves, by backoff or to what the error
//!    asks for; the slot is free meanwhile. A panic or a timeout is an error like
//!    any other; an [`AbortError`] can't heal and ends the job at once.
//! 5. **Outcomes are written in batches.** One that gets lost means a second run,
//!    never a lost job: handlers must bear running twice. A job that another session
//!    has locked delays no other outcome, and is written once the lock is released.
//! 6. **Pickup at once** (`wake.rs`): LISTEN wakes a process once a commit, and a poll
//!    makes LISTEN optional. Scheduled jobs start when due, not at the next poll.
//! 7. **History is free** (`retention.rs`): partial indexes keep finished jobs out of
//!    every hot statement, and they are deleted after a while in small batches.
//! 8. **Schedules are a ledger** (`schedules.rs`): a slot is let in once, whoever
//!    proposes it, and what an outage missed is made up for.
//! 9. **Queues can be paused, jobs retried and cancelled** (`levers.rs`), seen
//!    (`inspect.rs`), and a rate shared by all processes (`rate.rs`).
//! 10. **A lost database connection ends nothing**: every task here retries with
//!     backoff and says so, also where it was lost without a word (`patience.rs`).
//!     Nor does a fail-over: what led to a server that takes no writes any more is
//!     used no more (`kin.rs`).
//! 11. **A pooler may stand in between** (`database.rs`): PgBouncer in transaction
//!     mode takes LISTEN and named statements away, and neither is needed.
//! 12. **It can be watched** (`telemetry.rs`, `standing.rs`, `presence.rs`, `pulse.rs`): outcomes and durations are counted by the
//!     `metrics` facade, gauges are read without counting what is big, and `trace_context` carries a
//!     trace from who asks for a job to its attempts.
//!
//! Postgres' clock is the only clock: times in the tables come from `now()`.
//!
//! One [`Runtime`] a process does the fetching for all of its workers:
//!
//! ```ignore
//! let database = queue::Database::new(options, queue::Listen::Directly, 10);
//! let runtime = queue::Runtime::start(&database, queue::Config::default());
//! let monitor = Monitor::new().register({
//!     let runtime = runtime.clone();
//!     move |_| WorkerBuilder::new("greet").backend(runtime.backend::<Greet>()).build(greet)
//! });
//! monitor.run_with_signal(runtime.stop_after(signal)).await?;
//! runtime.close().await; // writes down what ended last
//! ```
//!
//! [`Backend`]: apalis_core::backend::Backend
//! [`AbortError`]: apalis_core::error::AbortError

mod admin;
mod backend;
mod db;
mod enqueue;
mod job;
mod outcome;
mod rate_limit;
mod runtime;
mod schedules;
mod sql;
pub mod telemetry;

pub use admin::{
    actions::{
        ActionOutcome, CancelledMany, DeadFilter, RetriedMany, cancel, cancel_many, pause, resume, retry, retry_dead,
    },
    change_token::change_token,
    health::{DEAD_LIMIT, QueueHealth, queue_health},
    inspect::{
        COUNT_LIMIT, FailedAttempt, JobFilter, JobState, JobSummary, QueueSummary, UnknownState, count, find, history,
        list, queues,
    },
};
pub use backend::PgBackend;
pub use db::{Connection, Connections, Database, Listen, Listener};
pub use enqueue::{EnqueueOptions, enqueue, enqueue_many, enqueue_with};
pub use job::{Attempt, Backoff, Job, JobId};
pub use outcome::{ERROR_CHARACTERS, Snooze};
pub use rate_limit::{RateLimit, RateLimited};
pub use runtime::{
    CONNECTIONS, Runtime,
    config::{Config, Retention},
    execute::{JobLayer, JobService},
    heartbeat::{RunningJob, WorkerStatus, workers},
};
pub use schedules::{CatchUp, Cron, Schedule, ScheduleStatus, latest_slot, next_slot, propose, schedules};
pub use sql::has_sql_state;
