//! Whether this worker lives, and whether it can work; only where `HEALTH_ADDR` asks for it.

use std::time::Duration;

use axum::{Router, extract::State, http::StatusCode, routing::get};
use sqlx::PgPool;
use tokio::net::TcpListener;

/// Serves `/healthz` and `/readyz` until the process ends.
///
/// # Errors
/// If the listener fails.
pub async fn serve(listener: TcpListener, pool: PgPool) -> std::io::Result<()> {
    let router =
        Router::new().route("/healthz", get(|| async { "alive\n" })).route("/readyz", get(ready)).with_state(pool);
    axum::serve(listener, router).await
}

async fn ready(State(pool): State<PgPool>) -> (StatusCode, &'static str) {
    let answer = tokio::time::timeout(Duration::from_secs(2), sqlx::query("select 1").execute(&pool)).await;
    match answer {
        Ok(Ok(_)) => (StatusCode::OK, "ready\n"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "Postgres does not answer\n"),
    }
}
