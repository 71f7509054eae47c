//! Queue health that is cheap enough to poll: every count is bounded.

use crate::db::Connection;

/// Maximum number of dead jobs counted, the newest of all queues together.
pub const DEAD_LIMIT: i64 = 1_000;

/// Health of a queue.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueHealth {
    /// Name of the queue.
    pub queue: String,
    /// Whether the queue is paused.
    pub paused: bool,
    /// Seconds that the oldest ready job has waited; 0 if none is ready.
    pub oldest_ready_age_seconds: f64,
    /// Number of its jobs among the newest [`DEAD_LIMIT`] dead jobs.
    pub dead: i32,
}

/// Health of the named queues, in the order of `names`. The oldest ready job is found by one index
/// lookup per queue, however many jobs wait.
pub async fn queue_health(conn: &mut Connection, names: &[&str]) -> sqlx::Result<Vec<QueueHealth>> {
    sqlx::query_as!(
        QueueHealth,
        r#"
        with dead as materialized (
            select queue from jobs where state = 'dead' order by finished_at desc limit $2
        )
        select named.name as "queue!", queues.paused_at is not null as "paused!",
               coalesce(greatest(extract(epoch from clock_timestamp() - oldest.run_at)::float8, 0), 0)
                   as "oldest_ready_age_seconds!",
               (select count(*) from dead where dead.queue = named.name)::int as "dead!"
        from unnest($1::text[]) with ordinality as named (name, place)
        left join queues on queues.name = named.name
        left join lateral (
            select run_at from jobs
            where jobs.queue = named.name and state = 'pending' and run_at <= now()
            order by run_at
            limit 1
        ) oldest on true
        order by named.place
        "#,
        names as &[&str],
        DEAD_LIMIT,
    )
    .fetch_all(conn)
    .await
}
