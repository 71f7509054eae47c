//! `worker doctor`: the key of Stripe.

use common::db::Database;
use queue::RateLimit;

use super::check::Check;
use crate::{
    WorkerConfig,
    stripe::{Stripe, error::StripeError},
};

/// The mode of the key, and whether Stripe accepts it and lets it create sessions.
pub(super) async fn examine(config: &WorkerConfig, database: &Database) -> Check {
    if let Err(error) = config.check() {
        return Check::fail("stripe", error.to_string());
    }
    let stripe = Stripe::new(
        &config.checkout_hosts.stripe_api_url,
        config.stripe_secret_key.clone(),
        &config.proxy,
        RateLimit::none(database.clone()), // two calls, and Postgres may be unavailable
    );
    let mode = match stripe.livemode() {
        Some(true) => "a live key: payments move money",
        Some(false) => "a test key: no money moves",
        None => "neither a live nor a test key by its prefix",
    };
    let may_create = match stripe.check_key().await {
        Ok(()) => stripe.may_create().await,
        Err(error) => Err(error),
    };
    match may_create {
        Ok(true) => Check::ok("stripe", format!("STRIPE_SECRET_KEY is accepted and may create sessions; it is {mode}")),
        Ok(false) => {
            let advice = "give it the permission \"Checkout Sessions: Write\" at https://dashboard.stripe.com/apikeys";
            Check::fail("stripe", format!("STRIPE_SECRET_KEY may not create Checkout Sessions: {advice}"))
        }
        Err(StripeError::RateLimited { .. }) => {
            Check::warn("stripe", "Stripe asks to slow down; the key was not looked at")
        }
        Err(error) => Check::fail("stripe", format!("{error}; see STRIPE_SECRET_KEY and STRIPE_API_URL")),
    }
}
