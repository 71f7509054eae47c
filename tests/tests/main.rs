//! All tests against the running product. One binary, one Postgres.

mod analytics;
mod cart_export;
mod cart_import;
mod cart_uploads;
mod carts;
mod doctor;
mod errors;
mod expiry;
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
mod stripe_faults;
mod traces;
mod webhooks;
