//! What the api may ask about jobs, queues and schedules, and do to them, without knowing the queue.

pub use queue::{
    COUNT_LIMIT, CancelledMany, DEAD_LIMIT, DeadFilter, FailedAttempt, JobFilter, JobState, JobSummary, Pulled,
    QueueSummary, RetriedMany, ScheduleStatus, Standing, WorkerStatus, cancel, cancel_many, count, find, history, list,
    pause, pulse, queues, resume, retry, retry_dead, schedules, standings, workers,
};
