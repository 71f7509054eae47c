//! The queue's functions for operators, re-exported so that the api does not depend on the queue.

pub use queue::{
    ActionOutcome, COUNT_LIMIT, CancelledMany, DEAD_LIMIT, DeadFilter, FailedAttempt, JobFilter, JobState, JobSummary,
    QueueHealth, QueueSummary, RetriedMany, ScheduleStatus, WorkerStatus, cancel, cancel_many, change_token, count,
    find, history, list, pause, queue_health, queues, resume, retry, retry_dead, schedules, workers,
};
