//! All tests against the running product. One binary, one Postgres.

mod analytics;
mod api_keys;
mod cart_export;
mod cart_import;
mod cart_search;
mod cart_uploads;
mod carts;
mod dashboard;
mod doctor;
mod errors;
mod expiry;
#[cfg(target_os = "linux")] // it looks at memory and connections in /proc
mod hostile;
mod interface;
mod maintenance;
mod metrics;
mod operations;
mod pages;
mod pay_page;
mod payment_links;
mod pooler;
mod probe;
mod processes;
mod queue_promises;
mod queue_upkeep;
mod rates;
mod rollup;
mod schedules;
mod secrets;
mod stripe_faults;
mod timeline;
mod timeline_growth;
mod traces;
mod webhooks;
