//! Code that the api and the worker share: carts, payment links, analytics, jobs, and all of their
//! SQL statements. The crate does not depend on axum and makes no requests to Stripe.

#![cfg_attr(test, allow(clippy::disallowed_types, reason = "tests read what they wrote themselves"))]

pub mod analytics;
pub mod api_keys;
pub mod audit;
pub mod batch;
pub mod carts;
pub mod clock;
pub mod config;
pub mod db;
pub mod dead_jobs;
pub mod email;
pub mod first_steps;
pub mod http_client;
pub mod idempotency;
pub mod jobs;
pub mod json;
pub mod locale;
pub mod maintenance;
pub mod money;
pub mod observability;
pub mod operations;
pub mod payment_links;
pub mod personal_data;
pub mod refused_webhooks;
pub mod shutdown;
pub mod stripe_events;
pub mod time_zone;
pub mod timeline;

pub use queue::mutex;
