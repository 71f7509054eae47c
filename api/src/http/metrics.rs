//! Prometheus metrics, on an address of their own (`METRICS_ADDR`) and never on the public one.

use axum::{Router, extract::State, http::header, response::IntoResponse, routing::get};
use common::{
    db::Database,
    observability::metrics::{CONTENT_TYPE, Scrape},
};
use tokio::net::TcpListener;

/// Serves `/metrics` until the process ends. Metrics are recorded from this call on.
///
/// # Errors
/// I/O errors of the listener.
pub fn serve(listener: TcpListener, database: Database) -> impl Future<Output = std::io::Result<()>> + Send + use<> {
    let router = Router::new().route("/metrics", get(text)).with_state(Scrape::new(database));
    async move { axum::serve(listener, router).await }
}

async fn text(State(scrape): State<Scrape>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], scrape.text().await)
}
