//! What the api may ask about a job, without knowing the queue.

pub use queue::{JobSummary, find};
