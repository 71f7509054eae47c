//! What the api may ask about jobs, queues and schedules, and do to them, without knowing the queue.

pub use queue::{
    COUNT_LIMIT, DeadFilter, JobFilter, JobState, JobSummary, Pulled, QueueSummary, RetriedMany, ScheduleStatus,
    cancel, count, find, history, list, pause, queues, resume, retry, retry_dead, schedules,
};
