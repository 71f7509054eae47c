//! The operator's pages: what was abandoned and won back, the carts, and the
//! jobs behind them. Rendered here, without a build step; every page and every
//! action works without JavaScript, which only keeps an open page up to date.
//!
//! One file a page, named as its path. What an action does is the API's own
//! handler; nothing is done here that the API can't do.

mod assets;
mod attention;
mod cart;
mod cart_actions;
mod carts;
mod chart;
mod events;
mod format;
mod guard;
mod job;
mod jobs;
mod jobs_at_once;
mod overview;
mod page;
mod period;
mod queues;
mod schedules;
mod session;
pub(crate) mod shared;
mod sign_in;
mod timeline;
mod watch;

use axum::Router;

use crate::{http::rate_limit::RateLimiter, state::AppState};

/// No form of these pages is larger, and anybody may send one.
const FORM_BYTES: usize = 16 * 1024;

/// Every page, from `/` on. Signing in counts to `limiter`, as a request with a key does.
pub(crate) fn router(limiter: RateLimiter) -> Router<AppState> {
    Router::new()
        .merge(sign_in::router(limiter))
        .merge(overview::router())
        .merge(carts::router())
        .merge(cart::router())
        .merge(cart_actions::router())
        .merge(jobs::router())
        .merge(jobs_at_once::router())
        .merge(job::router())
        .merge(queues::router())
        .merge(schedules::router())
        .merge(events::router())
        .merge(assets::router())
}
