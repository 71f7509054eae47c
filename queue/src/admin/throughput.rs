//! How many jobs of a queue finished in each hour, how long they waited and ran, and how many failed.

use chrono::{DateTime, Utc};

use super::actions::CANCELLED;
use crate::db::Connection;

/// The jobs of a queue that finished in an hour, or in all of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Throughput {
    /// Start of the hour; `None` for all hours.
    pub hour: Option<DateTime<Utc>>,
    /// Jobs that succeeded.
    pub done: i64,
    /// Jobs that failed permanently, ran out of attempts, or were cancelled.
    pub dead: i64,
    /// Attempts that failed, were interrupted or cancelled, of all these jobs.
    pub failed_attempts: i64,
    /// Seconds from the time at which a job was due to its last start, of half of the jobs at most.
    /// Cancelled jobs have no times.
    pub median_wait: Option<f64>,
    /// The same, of 95 % of the jobs at most.
    pub long_wait: Option<f64>,
    /// Seconds of the last attempt, of half of the jobs at most.
    pub median_run: Option<f64>,
    /// The same, of 95 % of the jobs at most.
    pub long_run: Option<f64>,
}

/// The hours in which jobs of `queue` finished since `since`, oldest first, and then all of them
/// together. Deleted jobs are not known. Takes time by the number of jobs.
pub async fn throughput(conn: &mut Connection, queue: &str, since: DateTime<Utc>) -> sqlx::Result<Vec<Throughput>> {
    sqlx::query_as!(
        Throughput,
        r#"
        select hour, count(*) filter (where state = 'done') as "done!", count(*) filter (where state = 'dead') as "dead!",
               coalesce(sum(failed), 0)::bigint as "failed_attempts!",
               percentile_cont(0.5) within group (order by waited) as median_wait,
               percentile_cont(0.95) within group (order by waited) as long_wait,
               percentile_cont(0.5) within group (order by ran) as median_run,
               percentile_cont(0.95) within group (order by ran) as long_run
        from (
            select date_trunc('hour', finished_at) as hour, state, jsonb_array_length(attempt_log) as failed,
                   case when has_run then greatest(0, extract(epoch from started_at - run_at))::float8 end as waited,
                   case when has_run then extract(epoch from finished_at - started_at)::float8 end as ran
            from (select *, last_error is distinct from $3 or state = 'done' as has_run from jobs) jobs
            where state in ('done', 'dead') and queue = $1 and finished_at >= $2
        ) job
        group by grouping sets ((hour), ())
        order by hour nulls last
        "#,
        queue,
        since,
        CANCELLED,
    )
    .fetch_all(conn)
    .await
}
