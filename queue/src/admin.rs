//! What operators see of jobs, queues and workers, and do to them.

pub(crate) mod actions;
pub(crate) mod change_token;
pub(crate) mod health;
pub(crate) mod inspect;
