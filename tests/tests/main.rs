//! All tests against the running product. One binary, one Postgres.

mod analytics;
mod carts;
mod errors;
mod expiry;
mod maintenance;
mod pay_page;
mod payment_links;
mod pooler;
mod probe;
mod processes;
mod queue_promises;
mod queue_upkeep;
mod schedules;
mod stripe_faults;
mod webhooks;
