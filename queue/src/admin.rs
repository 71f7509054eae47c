//! Administration: inspecting jobs and queues, and actions on them.

pub(crate) mod actions;
pub(crate) mod change_token;
pub(crate) mod health;
pub(crate) mod inspect;
pub(crate) mod throughput;
