//! The routes of the API and of the webhook, one module for each resource.

pub(crate) mod analytics;
pub(crate) mod audit;
pub(crate) mod carts;
pub(crate) mod erasure;
pub(crate) mod health;
pub(crate) mod jobs;
pub(crate) mod payment_links;
pub(crate) mod queues;
pub(crate) mod schedules;
pub(crate) mod webhooks;
pub(crate) mod workers;
