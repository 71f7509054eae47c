//! How queues stand, as often as anybody asks: nothing here counts what is big.

use crate::db::Connection;

/// The most dead jobs that are counted, those of all queues together: the newest.
pub const DEAD_LIMIT: i64 = 1_000;

/// How a queue stands.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueHealth {
    /// Which.
    pub queue: String,
    /// Whether workers leave it alone.
    pub paused: bool,
    /// For how many seconds the oldest ready job has waited; 0 where none does.
    pub oldest_ready_age_seconds: f64,
    /// Its share of the newest [`DEAD_LIMIT`] dead jobs.
    pub dead: i32,
}

/// The named queues, in their order. The oldest ready job is the first entry of
/// a queue in the index of pending jobs, however many wait.
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
