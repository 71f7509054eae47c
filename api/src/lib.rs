//! The HTTP server: stores carts, queues requests for payment links, receives Stripe's webhooks,
//! returns analytics, and serves the dashboard. It holds no Stripe key and never calls Stripe.

#![cfg_attr(test, allow(clippy::disallowed_types, reason = "tests read what they wrote themselves"))]

mod auth;
mod cli;
pub mod config;
mod dashboard;
mod http;
mod openapi;
mod pages;
mod router;
mod routes;
mod state;
mod upkeep;

pub use auth::keys::BootstrapKey;
pub use cli::CommandLine;
pub use config::{ApiConfig, variables};
pub use http::{acceptor::raise_file_limit, metrics::serve as serve_metrics, server::serve};
pub use router::{document, router};
pub use routes::payment_links::wait::PgNotifications;
pub use state::AppState;
