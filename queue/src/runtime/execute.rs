//! Runs one job: catches panics, enforces the timeout, stops on a lost lease, reports the outcome.

use std::{
    any::Any,
    marker::PhantomData,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use apalis_core::{error::BoxDynError, task::Task};
use futures_util::FutureExt;
use tower::{Layer, Service};
use tracing::Instrument;

use super::{lease::Lease, state::Shared};
use crate::{
    job::{Attempt, Job},
    outcome::Outcome,
    telemetry::{TraceContext, Watch},
};

/// Data of a run that is passed with its job through apalis.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) lease: Arc<Lease>,
    pub(crate) asked_by: TraceContext,
}

/// Wraps a worker's service, outside the layers that the user adds.
pub struct JobLayer<J> {
    shared: Arc<Shared>,
    job: PhantomData<fn(J)>,
}

impl<J> JobLayer<J> {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, job: PhantomData }
    }
}

impl<S, J> Layer<S> for JobLayer<J> {
    type Service = JobService<S, J>;

    fn layer(&self, inner: S) -> Self::Service {
        JobService { inner, shared: self.shared.clone(), job: PhantomData }
    }
}

/// The service created by [`JobLayer`].
pub struct JobService<S, J> {
    inner: S,
    shared: Arc<Shared>,
    job: PhantomData<fn(J)>,
}

impl<S, J> Service<Task<J>> for JobService<S, J>
where
    J: Job,
    S: Service<Task<J>>,
    S::Error: Into<BoxDynError>,
    S::Future: Send + 'static,
{
    type Response = ();
    type Error = BoxDynError;
    type Future = Pin<Box<dyn Future<Output = Result<(), BoxDynError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, task: Task<J>) -> Self::Future {
        let run = task.data().get::<Run>().cloned();
        let attempt = task.data().get::<Attempt>().copied().unwrap_or(Attempt { number: 1, max: J::MAX_ATTEMPTS });
        let handler = self.inner.call(task);
        let shared = self.shared.clone();
        Box::pin(async move {
            let Some(Run { lease, asked_by }) = run else {
                return handler.await.map(drop).map_err(Into::into); // a task of another backend
            };
            let watch = Watch::begin::<J>(lease.id, attempt.number, &asked_by);
            let handler = handler.instrument(watch.span());
            let mut running = Running { shared, lease: lease.clone(), attempt, watch, ended: false };
            let guarded = tokio::time::timeout(J::TIME_LIMIT, AssertUnwindSafe(handler).catch_unwind());
            let outcome = tokio::select! {
                biased;
                () = lease.lost() => {
                    running.lost(); // its outcome is not written
                    return Ok(());
                }
                result = guarded => match result {
                    Ok(Ok(Ok(_))) => Outcome::Done,
                    Ok(Ok(Err(error))) => Outcome::of_error(&error.into(), attempt.number, J::BACKOFF),
                    Ok(Err(panic)) => Outcome::Retry {
                        error: format!("panicked: {}", panic_message(panic.as_ref())),
                        delay: J::BACKOFF.after(attempt.number),
                    },
                    Err(_) => Outcome::Retry {
                        error: format!("took longer than its limit of {:?}", J::TIME_LIMIT),
                        delay: J::BACKOFF.after(attempt.number),
                    },
                },
            };
            running.end::<J>(outcome);
            Ok(())
        })
    }
}

/// A run in progress. Dropping it without an outcome reports [`Outcome::Interrupted`].
struct Running {
    shared: Arc<Shared>,
    lease: Arc<Lease>,
    attempt: Attempt,
    watch: Watch,
    ended: bool,
}

impl Running {
    fn end<J: Job>(&mut self, outcome: Outcome) {
        match &outcome {
            Outcome::Dead { error } => tracing::error!(job = %self.lease.id, kind = J::KIND, error, "job is dead"),
            Outcome::Retry { error, delay } => {
                tracing::warn!(job = %self.lease.id, kind = J::KIND, error, ?delay, "job failed; retrying");
            }
            Outcome::Snoozed { delay, .. } => {
                tracing::debug!(job = %self.lease.id, kind = J::KIND, ?delay, "job snoozed")
            }
            _ => {}
        }
        self.ended = true;
        self.watch.end(self.name(&outcome));
        self.shared.end(&self.lease, outcome);
    }

    fn lost(&mut self) {
        self.ended = true;
        self.watch.end("interrupted");
    }

    /// The outcome's label in metrics and traces. A retry after the last attempt is `dead`.
    fn name(&self, outcome: &Outcome) -> &'static str {
        match outcome {
            Outcome::Done => "done",
            Outcome::Retry { .. } if self.attempt.number < self.attempt.max => "retried",
            Outcome::Retry { .. } | Outcome::Dead { .. } => "dead",
            Outcome::Snoozed { .. } | Outcome::NotBegun => "snoozed",
            Outcome::Interrupted => "interrupted",
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.watch.end("interrupted");
            self.shared.end(&self.lease, Outcome::Interrupted);
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
