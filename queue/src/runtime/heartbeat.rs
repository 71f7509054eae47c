//! Heartbeats: each process regularly updates its row in `workers`, also while it is idle.

use std::{collections::BTreeSet, time::Duration};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use utoipa::ToSchema;

use super::state::Shared;
use crate::{
    db::{Connection, timeout::with_timeout},
    job::JobId,
    sql,
};

/// Interval between heartbeats.
pub(crate) const EVERY: Duration = Duration::from_secs(8);
/// A worker without a heartbeat for this long is not listed.
const SILENCE: Duration = Duration::from_secs(30);
/// Rows of workers without a heartbeat for this long are deleted.
const KEPT: Duration = Duration::from_secs(60 * 60);
/// Maximum number of running jobs listed, all workers together.
const RUNNING_LIMIT: i64 = 200;

/// A worker process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Worker, example = json!({
    "name": "worker-1-7f3a", "queues": ["expiry", "payment-links"], "concurrency": 16, "startedAt": "2026-11-24T08:00:00Z",
    "seenAt": "2026-11-24T09:46:40Z", "running": [{"id": "01a20a8d-47f2-72fe-9743-e55eae145464", "kind": "create_payment_link",
        "queue": "payment-links", "startedAt": "2026-11-24T09:46:43.605Z"}],
}))]
pub struct WorkerStatus {
    /// Name of the process, as in the attempts of jobs.
    pub name: String,
    /// The queues that it serves.
    pub queues: Vec<String>,
    /// Maximum number of jobs that it runs at a time.
    pub concurrency: i32,
    /// Time of its first heartbeat.
    pub started_at: DateTime<Utc>,
    /// Time of its last heartbeat.
    pub seen_at: DateTime<Utc>,
    /// The jobs that it is running, oldest first.
    #[schema(value_type = Vec<RunningJob>)]
    pub running: Json<Vec<RunningJob>>,
}

/// A job that a worker is running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunningJob {
    /// Id of the job.
    #[schema(value_type = uuid::Uuid)]
    pub id: JobId,
    /// Kind of job.
    pub kind: String,
    /// Name of the queue.
    pub queue: String,
    /// Time at which the attempt started.
    #[schema(required)]
    pub started_at: Option<DateTime<Utc>>,
}

/// The live workers, the longest-running first.
pub async fn workers(conn: &mut Connection) -> sqlx::Result<Vec<WorkerStatus>> {
    sqlx::query_as!(
        WorkerStatus,
        r#"
        with running as materialized (
            select id, kind, queue, worker, started_at from jobs where state = 'running' limit $2
        )
        select name, queues, concurrency, workers.started_at, seen_at,
               coalesce((
                   select jsonb_agg(jsonb_build_object('id', id, 'kind', kind, 'queue', queue, 'startedAt', running.started_at)
                                    order by running.started_at, id)
                   from running where running.worker = workers.name
               ), '[]') as "running!: Json<Vec<RunningJob>>"
        from workers
        where seen_at > now() - $1::interval
        order by workers.started_at, name
        "#,
        sql::interval(SILENCE),
        RUNNING_LIMIT,
    )
    .fetch_all(conn)
    .await
}

/// Writes the row of this process.
pub(crate) async fn beat(conn: &mut Connection, shared: &Shared) -> sqlx::Result<()> {
    let queues: BTreeSet<&str> = shared.accepting_sinks().iter().map(|sink| sink.queue()).collect();
    let queues: Vec<String> = queues.into_iter().map(str::to_owned).collect();
    sqlx::query!(
        r#"
        with gone as (
            delete from workers where name = any (array(
                select name from workers where seen_at < now() - $4::interval for update skip locked))
        )
        insert into workers (name, queues, concurrency) values ($1, $2, $3)
        on conflict (name) do update set queues = excluded.queues, seen_at = now()
        "#,
        shared.config.worker,
        &queues,
        i32::try_from(shared.config.concurrency).unwrap_or(i32::MAX),
        sql::interval(KEPT),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Deletes the row of this process.
pub(crate) async fn leave(shared: &Shared) {
    let delete = async {
        let mut conn = shared.database.acquire().await?;
        sqlx::query!("delete from workers where name = $1", shared.config.worker).execute(&mut conn).await?;
        conn.commit().await
    };
    if let Err(error) = with_timeout(EVERY, delete).await {
        tracing::debug!(%error, "could not remove the heartbeat"); // it expires anyway
    }
}
