//! Rebuilds the list counts: carts by the hour of their creation, by which pages are located.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use crate::db::Connection;

/// Carts created in an hour, by status: abandoned, recovered, expired.
pub(super) type Hours = HashMap<DateTime<Utc>, [i64; 3]>;

/// Adds the carts in these table blocks to `hours`.
pub(super) async fn count_blocks(tx: &mut Connection, from: i64, to: i64, hours: &mut Hours) -> sqlx::Result<()> {
    let rows = sqlx::query!(
        r#"
        select date_trunc('hour', created_at, 'UTC') as "period!",
               count(*) filter (where status = 'abandoned') as "abandoned!",
               count(*) filter (where status = 'recovered') as "recovered!",
               count(*) filter (where status = 'expired') as "expired!"
        from carts
        where ctid >= format('(%s,0)', $1::bigint)::tid and ctid < format('(%s,0)', $2::bigint)::tid
        group by 1
        "#,
        from,
        to,
    )
    .fetch_all(tx)
    .await?;
    for row in rows {
        let counts = hours.entry(row.period).or_default();
        for (sum, more) in counts.iter_mut().zip([row.abandoned, row.recovered, row.expired]) {
            *sum += more;
        }
    }
    Ok(())
}

/// Sets the compacted hours to the counted values minus the uncompacted rows, and days and months
/// to the sums of their hours. Returns how many rows were wrong.
pub(super) async fn write(tx: &mut Connection, hours: &Hours) -> sqlx::Result<usize> {
    let (periods, counts): (Vec<DateTime<Utc>>, Vec<[i64; 3]>) = hours.iter().unzip();
    let column = |status: usize| -> Vec<i64> { counts.iter().map(|counts| counts[status]).collect() };
    let corrected = sqlx::query_scalar!(
        r#"
        with counted as (
            select * from unnest($1::timestamptz[], $2::bigint[], $3::bigint[], $4::bigint[])
                as counted (period, abandoned, recovered, expired)
        ), unfolded as (
            select period, sum(abandoned) abandoned, sum(recovered) recovered, sum(expired) expired
            from cart_list_counts where slot <> 0 group by period
        ), hours as (
            select period, coalesce(counted.abandoned, 0) - coalesce(unfolded.abandoned, 0) as abandoned,
                   coalesce(counted.recovered, 0) - coalesce(unfolded.recovered, 0) as recovered,
                   coalesce(counted.expired, 0) - coalesce(unfolded.expired, 0) as expired
            from counted full join unfolded using (period)
        ), wanted as (
            select level, date_trunc(unit, period, 'UTC') as period,
                   sum(abandoned)::bigint as abandoned, sum(recovered)::bigint as recovered, sum(expired)::bigint as expired
            from hours, (values (0, 'hour'), (1, 'day'), (2, 'month')) levels (level, unit)
            group by 1, 2
        ), gone as (
            delete from cart_list_counts old where slot = 0
              and not exists (select from wanted where wanted.level = old.level and wanted.period = old.period)
            returning (abandoned, recovered, expired) <> (0, 0, 0) as wrong
        ), written as (
            insert into cart_list_counts as old (level, period, slot, abandoned, recovered, expired)
            select level, period, 0, abandoned, recovered, expired from wanted
            where (abandoned, recovered, expired) <> (0, 0, 0)
               or exists (select from cart_list_counts folded
                          where folded.slot = 0 and folded.level = wanted.level and folded.period = wanted.period)
            on conflict (level, period, slot) do update
                set abandoned = excluded.abandoned, recovered = excluded.recovered, expired = excluded.expired
                where (old.abandoned, old.recovered, old.expired) <> (excluded.abandoned, excluded.recovered, excluded.expired)
            returning 1
        )
        select (select count(*) from written) + (select count(*) from gone where wrong) as "corrected!"
        "#,
        &periods,
        &column(0),
        &column(1),
        &column(2),
    )
    .fetch_one(tx)
    .await?;
    Ok(usize::try_from(corrected).unwrap_or(usize::MAX))
}
