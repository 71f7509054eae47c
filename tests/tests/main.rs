//! All tests of the running product, as one binary with one Postgres.

#![allow(clippy::disallowed_types, reason = "it reads no untrusted input")]

mod addresses;
mod analytics;
mod api_keys;
mod batches;
mod cart_changes;
mod cart_csv;
mod cart_export;
mod cart_fields;
mod cart_import;
mod cart_search;
mod cart_uploads;
mod carts;
mod configuration;
mod dashboard;
mod dashboard_carts;
mod database_roles;
mod database_tls;
mod demotion;
mod disputes;
mod doctor;
mod documents;
mod early_events;
mod erasure;
mod erasure_races;
mod errors;
mod expiry;
mod external_ids;
mod fail_over;
mod foreign_events;
#[cfg(target_os = "linux")] // reads memory and connections from /proc
mod hostile;
#[cfg(target_os = "linux")]
mod hostile_webhooks;
#[cfg(target_os = "linux")]
mod http2;
mod interface;
mod keep_alive;
mod key_scopes;
mod locked_carts;
mod locked_jobs;
mod lost_connections;
mod lost_sessions;
mod maintenance;
mod metrics;
mod migrations;
mod operations;
mod pages;
mod pay_page;
mod payment_links;
mod personal_logs;
mod personal_retention;
mod pooler;
mod processes;
mod queue_promises;
mod queue_upkeep;
mod rates;
mod refunds;
mod rollup;
mod schedules;
mod secrets;
mod sign_out;
mod stripe_answers;
mod stripe_connections;
mod stripe_faults;
mod supply_chain;
mod timeline;
mod timeline_growth;
mod timeline_links;
mod times;
mod traces;
mod uncounted;
#[cfg(target_os = "linux")] // reads memory from /proc
mod untrusted_json;
mod untrusted_requests;
mod upgrades;
mod webhooks;
