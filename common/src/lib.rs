//! What the api and the worker share: the carts, their payment links, the
//! analytics, the jobs, and every SQL statement on them. It knows no axum and
//! makes no call to Stripe.

#![cfg_attr(test, allow(clippy::disallowed_types, reason = "tests read what they wrote themselves"))]

pub mod analytics;
pub mod api_keys;
pub mod batches;
pub mod cart_export;
mod cart_id;
pub mod cart_import;
pub mod cart_list;
pub mod cart_pulse;
pub mod cart_search;
mod cart_status;
pub mod carts;
pub mod checkout;
pub mod checkout_hosts;
pub mod clock;
pub mod config;
pub mod db;
pub mod email;
pub mod ended_sessions;
pub mod expiry;
pub mod idempotency;
pub mod jobs;
pub mod json;
pub mod maintenance;
pub mod metrics;
pub mod migrations;
pub mod money;
pub mod new_cart;
pub mod operations;
pub mod payment_links;
pub mod personal_data;
pub mod rebuild;
pub mod recovery_links;
pub mod refused_webhooks;
pub mod shutdown;
pub mod stripe_events;
pub mod telemetry;
pub mod timeline;
pub mod traces;
