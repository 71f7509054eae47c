//! Prometheus metrics: names, units, descriptions and the text format. Nothing is recorded unless
//! metrics are enabled.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use queue::Connections;
use queue::telemetry::{JOB_DURATION, JOBS_FINISHED, JOBS_RUNNING};
use tokio::{sync::Mutex, time::Instant};

use crate::{
    db::{
        Database,
        snapshots::{self, OldestSnapshot},
    },
    jobs::QUEUES,
};

/// The content type of [`Scrape::text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const HTTP_REQUESTS: &str = "http_requests_total";
const HTTP_REQUEST_DURATION: &str = "http_request_duration_seconds";
const STRIPE_REQUESTS: &str = "stripe_requests_total";
const POSTGRES_UP: &str = "postgres_up";
const OLDEST_READY_AGE: &str = "queue_oldest_ready_age_seconds";
const QUEUE_PAUSED: &str = "queue_paused";
const JOBS_DEAD: &str = "jobs_dead";
const SCHEDULE_OVERDUE: &str = "schedule_overdue";
const DATABASE_CONNECTIONS: &str = "database_connections";
const OLDEST_SNAPSHOT_AGE: &str = "postgres_oldest_snapshot_age_seconds";
const OLDEST_SNAPSHOT_INFO: &str = "postgres_oldest_snapshot_info";

/// Buckets from an in-memory response to the longest wait for a payment link.
const REQUEST_SECONDS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Buckets from a job with nothing to do to the longest time limit.
const JOB_SECONDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 20.0, 60.0, 600.0];

/// Minimum interval between queries of Postgres, however often metrics are scraped.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long a scrape waits for Postgres.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How often recorded values are moved into buckets, also while nobody scrapes.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// The recorder of this process; a process can have only one.
static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

fn recorder() -> Option<&'static PrometheusHandle> {
    RECORDER
        .get_or_init(|| {
            install().inspect_err(|error| tracing::error!(%error, "could not install the metrics recorder")).ok()
        })
        .as_ref()
}

fn install() -> Result<PrometheusHandle, Box<dyn std::error::Error>> {
    let recorder = builder()?.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)?;
    describe();
    Ok(handle)
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(HTTP_REQUEST_DURATION.to_owned()), &REQUEST_SECONDS)?
        .set_buckets_for_metric(Matcher::Full(JOB_DURATION.to_owned()), &JOB_SECONDS)
}

fn describe() {
    describe_counter!(HTTP_REQUESTS, Unit::Count, "Requests answered, by method, route and status");
    describe_histogram!(HTTP_REQUEST_DURATION, Unit::Seconds, "How long answers took, by method and route");
    describe_counter!(
        JOBS_FINISHED,
        Unit::Count,
        "Runs of jobs that ended in this process: done, retried, dead, snoozed or interrupted"
    );
    describe_histogram!(JOB_DURATION, Unit::Seconds, "How long runs of jobs took, by kind");
    describe_gauge!(JOBS_RUNNING, Unit::Count, "Jobs that this process runs now");
    describe_counter!(STRIPE_REQUESTS, Unit::Count, "Calls to Stripe, by operation and outcome");
    describe_gauge!(POSTGRES_UP, Unit::Count, "1 if Postgres answered the last look; else what it knows is old");
    describe_gauge!(OLDEST_READY_AGE, Unit::Seconds, "How long the oldest ready job has waited; 0 where none does");
    describe_gauge!(QUEUE_PAUSED, Unit::Count, "1 while an operator keeps workers from the queue");
    describe_gauge!(JOBS_DEAD, Unit::Count, "Dead jobs among the newest 1,000 of all queues together");
    describe_gauge!(SCHEDULE_OVERDUE, Unit::Count, "1 while a slot that should have run did not begin");
    describe_gauge!(DATABASE_CONNECTIONS, Unit::Count, "This process' connections: used, idle, and at most");
    describe_gauge!(
        OLDEST_SNAPSHOT_AGE,
        Unit::Seconds,
        "Age of the oldest snapshot, since which no dead row can be removed; 0 if there is none or its age is unknown"
    );
    describe_gauge!(OLDEST_SNAPSHOT_INFO, Unit::Count, "1 for the holder of a snapshot older than ten minutes, else 0");
}

/// Counts a request. `route` is the matched template, not the path.
pub fn http_request(method: &str, route: &str, status: u16, took: Duration) {
    if RECORDER.get().is_none() {
        return;
    }
    let (method, route) = (method_label(method), route.to_owned());
    counter!(HTTP_REQUESTS, "method" => method, "route" => route.clone(), "status" => status.to_string()).increment(1);
    histogram!(HTTP_REQUEST_DURATION, "method" => method, "route" => route).record(took);
}

/// The label of an HTTP method in metrics, logs and traces; `other` for unknown methods.
pub fn method_label(method: &str) -> &'static str {
    const METHODS: [&str; 9] = ["GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS", "TRACE", "CONNECT"];
    METHODS.into_iter().find(|known| *known == method).unwrap_or("other")
}

/// Counts a request to Stripe.
pub fn stripe_request(operation: &'static str, outcome: &'static str) {
    counter!(STRIPE_REQUESTS, "operation" => operation, "outcome" => outcome).increment(1);
}

/// Serves Prometheus' scrapes. Creating one starts the recording of metrics.
#[derive(Debug, Clone)]
pub struct Scrape {
    database: Database,
    last: Arc<Mutex<Option<Look>>>,
}

/// The labels of the holder of a snapshot.
type Labels = [(&'static str, String); 4];

/// The last query of Postgres.
#[derive(Debug)]
struct Look {
    at: Instant,
    /// The holder of an old snapshot whose metric is 1.
    holder: Option<Labels>,
}

impl Scrape {
    /// Starts recording. `database` is used for the metrics read from Postgres.
    pub fn new(database: Database) -> Self {
        if let Some(recorder) = recorder() {
            tokio::spawn(async {
                loop {
                    tokio::time::sleep(UPKEEP_EVERY).await;
                    recorder.run_upkeep();
                }
            });
        }
        Self { database, last: Arc::default() }
    }

    /// All metrics in Prometheus' text format. Values from Postgres are up to five seconds old, or
    /// older while Postgres is unavailable and `postgres_up` is 0.
    pub async fn text(&self) -> String {
        let looked = tokio::time::timeout(TIMEOUT, self.look()).await;
        gauge!(POSTGRES_UP).set(if matches!(looked, Ok(Ok(()))) { 1.0 } else { 0.0 });
        self.count_connections();
        recorder().map(PrometheusHandle::render).unwrap_or_default()
    }

    async fn look(&self) -> sqlx::Result<()> {
        let mut last = self.last.lock().await;
        if last.as_ref().is_some_and(|last| last.at.elapsed() < LOOK_EVERY) {
            return Ok(());
        }
        let mut conn = self.database.acquire().await?;
        for health in queue::queue_health(&mut conn, &QUEUES).await? {
            gauge!(OLDEST_READY_AGE, "queue" => health.queue.clone()).set(health.oldest_ready_age_seconds);
            gauge!(JOBS_DEAD, "queue" => health.queue.clone()).set(f64::from(health.dead));
            gauge!(QUEUE_PAUSED, "queue" => health.queue).set(f64::from(u8::from(health.paused)));
        }
        for schedule in queue::schedules(&mut conn).await? {
            gauge!(SCHEDULE_OVERDUE, "schedule" => schedule.name).set(f64::from(u8::from(schedule.overdue)));
        }
        let oldest = snapshots::oldest(&mut conn).await?;
        let before = last.take().and_then(|last| last.holder);
        let holder = set_oldest_snapshot(oldest.as_ref(), before.as_ref());
        *last = Some(Look { at: Instant::now(), holder });
        Ok(())
    }

    fn count_connections(&self) {
        let Connections { used, idle, max } = self.database.connections();
        for (state, connections) in [("used", used), ("idle", idle), ("max", max)] {
            gauge!(DATABASE_CONNECTIONS, "state" => state).set(f64::from(connections));
        }
    }
}

/// Sets the metrics of the oldest snapshot. `before` are the labels whose value is 1; returns those
/// whose value is 1 now.
fn set_oldest_snapshot(oldest: Option<&OldestSnapshot>, before: Option<&Labels>) -> Option<Labels> {
    gauge!(OLDEST_SNAPSHOT_AGE).set(oldest.and_then(|oldest| oldest.seconds).unwrap_or(0.0));
    let holder = oldest.filter(|oldest| oldest.is_old()).map(|oldest| {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        [
            ("application", text(&oldest.application)),
            ("role", text(&oldest.role)),
            ("client", text(&oldest.client)),
            ("state", text(&oldest.state)),
        ]
    });
    if let Some(before) = before.filter(|before| holder.as_ref() != Some(*before)) {
        gauge!(OLDEST_SNAPSHOT_INFO, before).set(0.0);
    }
    if let Some(holder) = &holder {
        gauge!(OLDEST_SNAPSHOT_INFO, holder).set(1.0);
    }
    holder
}
