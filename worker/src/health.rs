//! Whether this worker lives, and whether it can work; only where `HEALTH_ADDR` asks for it.

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

/// Serves `/healthz`, `/readyz` and `/metrics` until the process ends. From the call on this process records.
///
/// # Errors
/// If the listener fails.
pub fn serve(listener: TcpListener, database: Database) -> impl Future<Output = std::io::Result<()>> + Send + use<> {
    let metrics = Router::new().route("/metrics", get(metrics)).with_state(Scrape::new(database.clone()));
    let router =
        Router::new().route("/healthz", get(|| async { "alive\n" })).route("/readyz", get(ready)).with_state(database);
    async move { axum::serve(listener, router.merge(metrics)).await }
}

async fn metrics(State(scrape): State<Scrape>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], scrape.text().await)
}

/// Ready is a worker that reaches Postgres, while what is to run by the clock
/// does run. (A paused queue keeps its schedules waiting because somebody wants it to.)
async fn ready(State(database): State<Database>) -> (StatusCode, String) {
    let not_ready = |why: String| (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"));
    if let Err(why) = db::answers(&database).await {
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
