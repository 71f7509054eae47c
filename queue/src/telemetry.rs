//! What is counted of running jobs, and how a trace follows a request into them.
//!
//! Both cost next to nothing where nobody listens: the counters go to whichever
//! recorder the process has installed, the spans to whichever subscriber, and
//! the traces' text is made and read by two functions that the process may give.

use std::{sync::OnceLock, time::Instant};

use tracing::{Span, field};

use crate::job::{Job, JobId};

/// Runs of jobs that ended, by `queue`, `kind` and `outcome`.
pub const JOBS_FINISHED: &str = "jobs_finished_total";
/// How long runs took, by `kind`.
pub const JOB_DURATION: &str = "job_duration_seconds";
/// Jobs that this process runs right now.
pub const JOBS_RUNNING: &str = "jobs_running";

/// The target of spans that are for traces alone: logs leave them out.
pub const SPAN_TARGET: &str = "traces";

/// How a process that exports traces carries them over the queue.
#[derive(Debug, Clone, Copy)]
pub struct Carrier {
    /// Where the caller stands in its trace, as `jobs.trace_context` keeps it (a W3C traceparent).
    pub current: fn() -> Option<String>,
    /// Makes a span that has not begun the child of such a text.
    pub continue_from: fn(&Span, &str),
}

static CARRIER: OnceLock<Carrier> = OnceLock::new();

/// From now on jobs carry their trace. The first call in a process counts.
pub fn carry_traces(carrier: Carrier) {
    let _ = CARRIER.set(carrier);
}

/// Where the caller stands in its trace, for `jobs.trace_context` of what it asks for.
pub fn current_context() -> Option<String> {
    CARRIER.get().and_then(|carrier| (carrier.current)())
}

/// Who asked for a job; travels with it through apalis.
#[derive(Debug, Clone, Default)]
pub(crate) struct TraceContext(pub(crate) Option<String>);

/// Watches one attempt: counts it when it ends, and is its span in a trace.
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

    /// What the handler does belongs in here.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Counts it, once.
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

/// Counts a run that ended.
pub(crate) fn finished(queue: &'static str, kind: &'static str, outcome: &'static str) {
    metrics::counter!(JOBS_FINISHED, "queue" => queue, "kind" => kind, "outcome" => outcome).increment(1);
}
