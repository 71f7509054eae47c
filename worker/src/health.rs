//! Whether this worker lives, and whether it can work; only where `HEALTH_ADDR` asks for it.

use axum::{Router, extract::State, http::StatusCode, routing::get};
use common::db::{self, Database};
use tokio::net::TcpListener;

/// Serves `/healthz` and `/readyz` until the process ends.
///
/// # Errors
/// If the listener fails.
pub async fn serve(listener: TcpListener, database: Database) -> std::io::Result<()> {
    let router =
        Router::new().route("/healthz", get(|| async { "alive\n" })).route("/readyz", get(ready)).with_state(database);
    axum::serve(listener, router).await
}

async fn ready(State(database): State<Database>) -> (StatusCode, String) {
    match db::answers(&database).await {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("Postgres does not answer: {why}\n")),
    }
}
