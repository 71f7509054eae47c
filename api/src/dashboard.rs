//! The operator's pages: analytics, carts, jobs, queues and schedules. They are rendered on the
//! server, without a build step. Every page and action works without JavaScript, which only keeps
//! an open page up to date.
//!
//! Each page has a file named after its path. Actions call the API's own handlers, so the dashboard
//! can do nothing that the API can't.

pub(crate) mod assets;
mod attention;
mod audit;
mod cart;
mod cart_actions;
mod cart_contents;
mod cart_filters;
mod carts;
mod carts_at_once;
mod chart;
pub(crate) mod errors;
mod events;
mod format;
mod funnels;
mod guard;
mod job;
mod job_filters;
mod jobs;
mod jobs_at_once;
mod notice;
mod overview;
mod page;
mod period;
mod queues;
mod schedules;
mod selection;
mod session;
pub(crate) mod shared;
mod sign_in;
mod start;
mod throughput;
mod timeline;
mod watch;

use axum::Router;

use crate::{http::rate_limit::RateLimiter, state::AppState};

/// Size limit of forms. Clients that are not signed in can send one, too.
const FORM_BYTES: usize = 16 * 1024;

/// All pages, from `/` on. Sign-in requests count against `limiter`, like requests with an API key.
pub(crate) fn router(limiter: RateLimiter) -> Router<AppState> {
    Router::new()
        .merge(sign_in::router(limiter))
        .merge(overview::router())
        .merge(carts::router())
        .merge(carts_at_once::router())
        .merge(cart::router())
        .merge(cart_actions::router())
        .merge(jobs::router())
        .merge(jobs_at_once::router())
        .merge(job::router())
        .merge(queues::router())
        .merge(throughput::router())
        .merge(schedules::router())
        .merge(start::router())
        .merge(audit::router())
        .merge(events::router())
        .merge(assets::router())
}
