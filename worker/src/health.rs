//! HTTP endpoints for liveness, readiness and metrics, served if `HEALTH_ADDR` is set.

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use common::{
    db::{self, Database},
    observability::metrics::{CONTENT_TYPE, Scrape},
    operations,
};
use tokio::net::TcpListener;

/// Serves `/healthz`, `/readyz` and `/metrics` until the process ends. The call itself starts the
/// recording of metrics.
///
/// # Errors
/// An I/O error of the listener.
pub fn serve(listener: TcpListener, database: Database) -> impl Future<Output = std::io::Result<()>> + Send + use<> {
    let metrics = Router::new().route("/metrics", get(metrics)).with_state(Scrape::new(database.clone()));
    let router =
        Router::new().route("/healthz", get(|| async { "alive\n" })).route("/readyz", get(ready)).with_state(database);
    async move { axum::serve(listener, router.merge(metrics)).await }
}

async fn metrics(State(scrape): State<Scrape>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], scrape.text().await)
}

/// A worker is ready if it reaches Postgres and no schedule is overdue. Schedules of paused queues
/// are ignored, because the pause is intended.
async fn ready(State(database): State<Database>) -> (StatusCode, String) {
    let not_ready = |why: String| (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"));
    if let Err(why) = db::ping(&database).await {
        return not_ready(format!("Postgres does not answer: {why}"));
    }
    match overdue(&database).await {
        Ok(overdue) if overdue.is_empty() => (StatusCode::OK, "ready\n".to_owned()),
        Ok(overdue) => not_ready(format!("overdue: {}", overdue.join(", "))),
        Err(error) => not_ready(format!("Postgres: {error}")),
    }
}

async fn overdue(database: &Database) -> sqlx::Result<Vec<String>> {
    let schedules = operations::schedules(&mut database.acquire().await?).await?;
    let overdue = schedules.into_iter().filter(|schedule| !schedule.paused);
    Ok(overdue
        .filter_map(|schedule| schedule.overdue_slot.map(|slot| format!("{} of {slot}", schedule.name)))
        .collect())
}
