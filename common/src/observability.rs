//! What operators see of a process: logs, metrics and traces.

pub mod logs;
pub mod metrics;
pub mod traces;
