//! A token that changes with the state of jobs, queues, workers and schedules.

use crate::db::Connection;

/// A token that differs after a job or worker changed state, a queue was paused or resumed, or an
/// occurrence of a schedule was admitted. Reads at most 1,000 index entries per job state, so that
/// it can be polled every 2 s.
pub async fn change_token(conn: &mut Connection) -> sqlx::Result<String> {
    sqlx::query_scalar!(
        r#"
        select concat_ws('|',
            (select string_agg(name || ' ' || (paused_at is not null), ',' order by name) from queues),
            (select count(*) || ' ' || coalesce(max(run_at)::text, '') from (select run_at from jobs where state = 'pending' limit 1000) pending),
            (select count(*) || ' ' || coalesce(sum(hashtext(id::text)::bigint), 0)
             from (select id from jobs where state = 'running' limit 1000) running),
            (select max(finished_at) from jobs where state = 'done'),
            (select max(finished_at) from jobs where state = 'dead'),
            (select count(*) from (select from jobs where state = 'dead' limit 1000) dead),
            (select string_agg(name || ' ' || seen, ',' order by name)
             from (select name, (seen_at > now() - interval '30 seconds') as seen from workers) living),
            (select sum(hashtext(name || coalesce((select max(slot) from schedule_slots where schedule = schedules.name)::text, ''))::bigint)
             from schedules)
        ) as "token!"
        "#
    )
    .fetch_one(conn)
    .await
}
