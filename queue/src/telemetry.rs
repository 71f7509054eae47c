//! Metrics of running jobs, and trace propagation from the enqueuing request to the job.
//!
//! Metrics go to the recorder that the process has installed, spans to its subscriber; without
//! them the cost is negligible. The process may provide two functions that write and read the
//! trace context ([`carry_traces`]).

use std::{sync::OnceLock, time::Instant};

use tracing::{Span, field};

use crate::job::{Job, JobId};

/// Counter of finished runs, by `queue`, `kind` and `outcome`.
pub const JOBS_FINISHED: &str = "jobs_finished_total";
/// Histogram of the duration of runs, by `kind`.
pub const JOB_DURATION: &str = "job_duration_seconds";
/// Gauge of the jobs that this process is running.
pub const JOBS_RUNNING: &str = "jobs_running";

/// Target of spans that are exported as traces only; logs omit them.
pub const SPAN_TARGET: &str = "traces";

/// Functions that propagate a trace through the queue.
#[derive(Debug, Clone, Copy)]
pub struct Carrier {
    /// Returns the current trace context as a W3C `traceparent`, stored in `jobs.trace_context`;
    /// `None` outside a trace.
    pub current: fn() -> Option<String>,
    /// Makes a span that has not been entered the child of a `traceparent`.
    pub continue_from: fn(&Span, &str),
}

static CARRIER: OnceLock<Carrier> = OnceLock::new();

/// Turns trace propagation on. Only the first call in a process has an effect.
pub fn carry_traces(carrier: Carrier) {
    let _ = CARRIER.set(carrier);
}

/// The current trace context for `jobs.trace_context`; `None` outside a trace, or if propagation is
/// off.
pub fn current_context() -> Option<String> {
    CARRIER.get().and_then(|carrier| (carrier.current)())
}

/// Trace context of the request that enqueued the job; passed with the job through apalis.
#[derive(Debug, Clone, Default)]
pub(crate) struct TraceContext(pub(crate) Option<String>);

/// Metrics and trace span of one attempt.
#[derive(Debug)]
pub(crate) struct Watch {
    queue: &'static str,
    kind: &'static str,
    began: Instant,
    span: Span,
}

impl Watch {
    pub(crate) fn begin<J: Job>(id: JobId, attempt: i16, asked_by: &TraceContext) -> Self {
        let span = tracing::info_span!(
            target: SPAN_TARGET,
            parent: None,
            "job",
            otel.name = J::KIND,
            otel.kind = "consumer",
            otel.status_code = field::Empty,
            job.queue = J::QUEUE,
            job.kind = J::KIND,
            job.id = %id,
            job.attempt = attempt,
            job.outcome = field::Empty,
        );
        if let (Some(carrier), Some(context)) = (CARRIER.get(), &asked_by.0) {
            (carrier.continue_from)(&span, context);
        }
        metrics::gauge!(JOBS_RUNNING).increment(1.0);
        Self { queue: J::QUEUE, kind: J::KIND, began: Instant::now(), span }
    }

    /// The span that instruments the handler.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Records the outcome. Call it once.
    pub(crate) fn end(&self, outcome: &'static str) {
        metrics::gauge!(JOBS_RUNNING).decrement(1.0);
        metrics::histogram!(JOB_DURATION, "kind" => self.kind).record(self.began.elapsed());
        finished(self.queue, self.kind, outcome);
        self.span.record("job.outcome", outcome);
        if matches!(outcome, "retried" | "dead") {
            self.span.record("otel.status_code", "ERROR");
        }
    }
}

/// Counts a finished run.
pub(crate) fn finished(queue: &'static str, kind: &'static str, outcome: &'static str) {
    metrics::counter!(JOBS_FINISHED, "queue" => queue, "kind" => kind, "outcome" => outcome).increment(1);
}
