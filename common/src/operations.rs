//! What the api may ask about jobs, queues and schedules, and do to them, without knowing the queue.

pub use queue::{
    ActionOutcome, COUNT_LIMIT, CancelledMany, DEAD_LIMIT, DeadFilter, FailedAttempt, JobFilter, JobState, JobSummary,
    QueueHealth, QueueSummary, RetriedMany, ScheduleStatus, WorkerStatus, cancel, cancel_many, change_token, count,
    find, history, list, pause, queue_health, queues, resume, retry, retry_dead, schedules, workers,
};
