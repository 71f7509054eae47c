//! A durable job queue in Postgres that implements apalis' [`Backend`] trait.
//!
//! Workers, monitors, layers, handlers and shutdown come from apalis. This crate replaces the
//! storage, because apalis' own is not safe enough for unattended work with money. It is
//! independent of what the jobs do. Its promises:
//!
//! 1. **Enqueue in the caller's transaction** ([`enqueue`]): one statement inserts one or many
//!    jobs. A unique key that is in use means "already queued", never an error.
//! 2. **One lease per job** (`runtime/lease.rs`): the holder renews its leases on a timer that is
//!    independent of the handlers. If a lease is lost, the job's future is dropped. A job is
//!    fetched only when a permit is free to run it.
//! 3. **Interrupted is not failed** (`runtime/outcomes.rs`, `runtime/poll.rs`): an attempt that a
//!    shutdown or a lost lease ended does not count. A job that was running in each of ten losses of
//!    a worker is `dead`.
//! 4. **Retries are rows** (`runtime/ack.rs`): `run_at` moves by the backoff or by the error's
//!    delay; the permit is free meanwhile. Panics and timeouts are ordinary errors; an
//!    [`AbortError`] is permanent and ends the job at once.
//! 5. **Outcomes are written in batches.** A lost outcome causes a second run, never a lost job, so
//!    handlers must be idempotent. A job that another session has locked delays no other outcome;
//!    its own is written once the lock is released.
//! 6. **Immediate pickup** (`runtime/notify.rs`): each commit that adds jobs wakes the processes of
//!    their queue through LISTEN, and polling (`runtime/poll.rs`) makes LISTEN optional. No write
//!    fails because NOTIFY does (`db/notifier.rs`). Scheduled jobs start when due, not at the next
//!    poll. A process with nothing to do sends one statement a second.
//! 7. **History is cheap** (`runtime/retention.rs`): partial indexes keep finished jobs out of
//!    every frequent statement, and finished jobs are deleted in small batches after their
//!    retention.
//! 8. **Schedules run once per occurrence** (`schedules.rs`): each occurrence is recorded once,
//!    whichever worker proposes it, and those missed in an outage are caught up on.
//! 9. **Administration**: pause queues, retry, cancel and discard jobs (`admin/actions.rs`), list them,
//!    also by subject (`admin/inspect.rs`), run a schedule by hand (`schedules.rs`), and limit a rate
//!    across all processes (`rate_limit.rs`).
//! 10. **No task ends when the database connection is lost**: each task retries with backoff and
//!     logs the failure, also if Postgres is silent (`db/timeout.rs`). After a fail-over,
//!     connections to a read-only server are replaced (`db/failover.rs`).
//! 11. **Works behind a pooler** (`db/pool.rs`): PgBouncer in transaction mode supports neither
//!     LISTEN nor named statements, and neither is needed.
//! 12. **Observability** (`telemetry.rs`, `admin/health.rs`, `runtime/heartbeat.rs`,
//!     `admin/change_token.rs`): outcomes and durations are recorded through the `metrics` facade,
//!     gauges come from bounded queries, and `trace_context` carries a trace from the enqueuing
//!     request to the job's attempts.
//!
//! Postgres' clock is the only clock: times in the tables come from `now()`.
//!
//! One [`Runtime`] per process fetches jobs for all of its workers:
//!
//! ```ignore
//! let database = queue::Database::new(options, queue::Listen::Directly, 10);
//! let runtime = queue::Runtime::start(&database, queue::Config::default());
//! let monitor = Monitor::new().register({
//!     let runtime = runtime.clone();
//!     move |_| WorkerBuilder::new("greet").backend(runtime.backend::<Greet>()).build(greet)
//! });
//! monitor.run_with_signal(runtime.stop_after(signal)).await?;
//! runtime.close().await; // writes the last outcomes
//! ```
//!
//! [`Backend`]: apalis_core::backend::Backend
//! [`AbortError`]: apalis_core::error::AbortError

mod admin;
mod backend;
mod db;
mod enqueue;
mod job;
pub mod mutex;
mod outcome;
mod rate_limit;
mod runtime;
mod schedules;
mod sql;
pub mod telemetry;

pub use admin::{
    actions::{
        ActionOutcome, CANCELLED, CancelledMany, DiscardedJob, RetriedMany, cancel, cancel_many, discard, discard_dead,
        pause, resume, retry, retry_dead,
    },
    change_token::change_token,
    health::{DEAD_LIMIT, QueueHealth, queue_health},
    inspect::{
        COUNT_LIMIT, FailedAttempt, JobFilter, JobState, JobSummary, QueueSummary, count, count_by_state, find,
        history, list, queues,
    },
    throughput::{Throughput, throughput},
};
pub use backend::PgBackend;
pub use db::{Connection, Connections, Database, Listen, Listener};
pub use enqueue::{EnqueueOptions, enqueue, enqueue_many, enqueue_traced, enqueue_with};
pub use job::{Attempt, Backoff, Job, JobId};
pub use outcome::{ERROR_CHARACTERS, Snooze};
pub use rate_limit::{RateLimit, RateLimited};
pub use runtime::{
    CONNECTIONS, Runtime,
    config::{Config, Retention},
    execute::{JobLayer, JobService},
    heartbeat::{RunningJob, WorkerStatus, workers},
};
pub use schedules::{
    CatchUp, Cron, RunByHand, Schedule, ScheduleStatus, latest_slot, next_slot, propose, run_schedule, schedules,
};
pub use sql::has_sql_state;
