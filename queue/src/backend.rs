//! Implements apalis' backend trait. The backend only hands jobs to a worker; fetching, renewing
//! leases and writing outcomes happen in the runtime's own tasks, independent of the worker.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use apalis_core::{
    backend::{Backend, BackendConfig, finalize::Ephemeral},
    task::{Task, builder::TaskBuilder, task_id::TaskId},
    worker::context::WorkerContext,
};
use futures_util::task::AtomicWaker;

use crate::{
    job::{Job, JobId},
    mutex::lock,
    runtime::{
        config::Config,
        execute::{JobLayer, Run},
        lease::Lease,
        state::{Fetched, JobSink, Shared},
    },
};

/// Supplies jobs to a worker of `J`; created by [`Runtime::backend`](crate::Runtime::backend).
pub struct PgBackend<J> {
    shared: Arc<Shared>,
    inbox: Arc<Inbox<J>>,
    announced: bool,
}

impl<J> PgBackend<J> {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let inbox = Arc::new(Inbox { tasks: Mutex::default(), waker: AtomicWaker::new() });
        Self { shared, inbox, announced: false }
    }
}

impl<J: Job> fmt::Debug for PgBackend<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgBackend").field("kind", &J::KIND).finish_non_exhaustive()
    }
}

impl<J: Job> Backend for PgBackend<J> {
    type Task = Task<J>;
    /// Infallible, because an error would end the worker.
    type Error = Infallible;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Option<Result<Task<J>, Infallible>>> {
        self.inbox.waker.register(cx.waker());
        if let Some((task, _)) = lock(&self.inbox.tasks).pop_front() {
            return Poll::Ready(Some(Ok(task)));
        }
        if !std::mem::replace(&mut self.announced, true) {
            self.shared.jobs.notify_one(); // this worker takes jobs from now on
        }
        Poll::Pending
    }

    fn poll_close(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        self.shared.give_back(self.inbox.take_all());
        Poll::Ready(Ok(()))
    }
}

impl<J: Job> BackendConfig for PgBackend<J> {
    type Args = J;
    type Id = JobId;
    /// With `Durable`, an unreadable payload would be an error that ends the worker.
    type Kind = Ephemeral;
    type Config = Config;
    type Layer = JobLayer<J>;

    fn config(&self) -> &Config {
        &self.shared.config
    }

    fn middleware(&mut self, worker: &mut WorkerContext) -> JobLayer<J> {
        self.shared.register(Arc::new(WorkerSink { inbox: self.inbox.clone(), worker: worker.clone() }));
        JobLayer::new(self.shared.clone())
    }
}

/// Jobs that were fetched for a worker and not started.
pub(crate) struct Inbox<J> {
    tasks: Mutex<VecDeque<(Task<J>, Arc<Lease>)>>,
    waker: AtomicWaker,
}

impl<J> Inbox<J> {
    fn take_all(&self) -> Vec<Arc<Lease>> {
        lock(&self.tasks).drain(..).map(|(_, lease)| lease).collect()
    }
}

/// Delivers fetched jobs to one worker.
struct WorkerSink<J> {
    inbox: Arc<Inbox<J>>,
    worker: WorkerContext,
}

impl<J: Job> fmt::Debug for WorkerSink<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerSink").field("kind", &J::KIND).finish_non_exhaustive()
    }
}

impl<J: Job> JobSink for WorkerSink<J> {
    fn queue(&self) -> &'static str {
        J::QUEUE
    }

    fn kind(&self) -> &'static str {
        J::KIND
    }

    fn accepts(&self) -> bool {
        self.worker.is_running() && !self.worker.is_shutting_down()
    }

    fn deliver(&self, jobs: Vec<(Fetched, Arc<Lease>)>) -> Vec<(Arc<Lease>, String)> {
        let mut unreadable = Vec::new();
        let mut tasks = VecDeque::with_capacity(jobs.len());
        for (job, lease) in jobs {
            match serde_json::from_str::<J>(&job.payload) {
                Ok(payload) => {
                    let run = Run { lease: lease.clone(), asked_by: job.asked_by };
                    let task = TaskBuilder::new(payload).task_id(TaskId::from_string(lease.id));
                    tasks.push_back((task.data(job.attempt).data(run).build(), lease));
                }
                Err(error) => unreadable.push((lease, error.to_string())),
            }
        }
        lock(&self.inbox.tasks).append(&mut tasks);
        self.inbox.waker.wake();
        unreadable
    }

    fn recall(&self) -> Vec<Arc<Lease>> {
        self.inbox.take_all()
    }
}
