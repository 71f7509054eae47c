//! Rebuilds the stored counts from the carts, for example after a restore without triggers.
//!
//! The rebuild runs in one snapshot, so it is exact while others keep writing. An interrupted
//! rebuild changes nothing and can be started again.

mod list;

use std::{collections::HashMap, ops::AddAssign};

use chrono::NaiveDate;
use rust_decimal::Decimal;

use crate::db::{Connection, Database};

/// The number of table blocks that one statement counts: about 128 MiB, some tenths of a second.
const BLOCKS: i64 = 16_384;

/// The progress of a rebuild.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Table blocks counted so far.
    pub blocks: i64,
    /// All blocks of the table.
    pub of: i64,
    /// Carts counted so far.
    pub carts: i64,
}

/// The result of a rebuild.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilt {
    /// The number of carts.
    pub carts: i64,
    /// The number of day counts, one for each day and currency.
    pub days: usize,
    /// The number of day counts that were wrong before.
    pub corrected: usize,
    /// Whether the totals by status were wrong before.
    pub totals_corrected: bool,
    /// The number of hour, day and month counts of the list that were wrong before.
    pub periods_corrected: usize,
}

/// The stored counts of one day and currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct DayCounts {
    abandoned: i64,
    abandoned_minor: Decimal,
    recovered: i64,
    recovered_minor: Decimal,
    by_status: [i64; 3],
}

impl AddAssign for DayCounts {
    fn add_assign(&mut self, other: Self) {
        self.abandoned += other.abandoned;
        self.abandoned_minor += other.abandoned_minor;
        self.recovered += other.recovered;
        self.recovered_minor += other.recovered_minor;
        for (sum, more) in self.by_status.iter_mut().zip(other.by_status) {
            *sum += more;
        }
    }
}

type Ledger = HashMap<(NaiveDate, String), DayCounts>;

/// Counts all carts and corrects the stored counts; calls `progress` after each part of the table.
pub async fn rebuild(database: &Database, mut progress: impl FnMut(Progress)) -> sqlx::Result<Rebuilt> {
    let mut tx = database.begin().await?;
    // The lock excludes compaction, and must be taken before the snapshot: a compaction that the
    // snapshot does not see would be undone.
    sqlx::raw_sql(
        "set transaction isolation level repeatable read;
         lock table cart_status_counts in share row exclusive mode",
    )
    .execute(&mut tx)
    .await?;
    let of =
        sqlx::query_scalar!(r#"select pg_relation_size('carts') / current_setting('block_size')::bigint as "blocks!""#)
            .fetch_one(&mut tx)
            .await?;
    let (mut counted, mut hours, mut carts) = (Ledger::new(), list::Hours::new(), 0);
    for from in (0..of).step_by(usize::try_from(BLOCKS).unwrap_or(usize::MAX)) {
        let to = (from + BLOCKS).min(of);
        for (day, counts) in count_blocks(&mut tx, from, to).await? {
            carts += counts.by_status.iter().sum::<i64>();
            *counted.entry(day).or_default() += counts;
        }
        list::count_blocks(&mut tx, from, to, &mut hours).await?;
        progress(Progress { blocks: to, of, carts });
    }
    let written = write(&mut tx, &counted).await?;
    let periods_corrected = list::write(&mut tx, &hours).await?;
    tx.commit().await?;
    Ok(Rebuilt { carts, days: counted.len(), periods_corrected, ..written })
}

async fn count_blocks(tx: &mut Connection, from: i64, to: i64) -> sqlx::Result<Vec<((NaiveDate, String), DayCounts)>> {
    let rows = sqlx::query!(
        r#"
        with part as materialized (
            select (abandoned_at at time zone 'UTC')::date as abandoned_on, (recovered_at at time zone 'UTC')::date as recovered_on,
                   currency, status, total_minor
            from carts
            where ctid >= format('(%s,0)', $1::bigint)::tid and ctid < format('(%s,0)', $2::bigint)::tid
        )
        select day as "day!", currency as "currency!", sum(abandoned)::bigint as "abandoned!",
               sum(abandoned_minor) as "abandoned_minor!", sum(recovered)::bigint as "recovered!",
               sum(recovered_minor) as "recovered_minor!", sum(now_abandoned)::bigint as "now_abandoned!",
               sum(now_recovered)::bigint as "now_recovered!", sum(now_expired)::bigint as "now_expired!"
        from (
            select abandoned_on as day, currency, count(*) as abandoned, sum(total_minor) as abandoned_minor,
                   0 as recovered, 0 as recovered_minor,
                   count(*) filter (where status = 'abandoned') as now_abandoned,
                   count(*) filter (where status = 'recovered') as now_recovered,
                   count(*) filter (where status = 'expired') as now_expired
            from part group by 1, 2
            union all
            select recovered_on, currency, 0, 0, count(*), sum(total_minor), 0, 0, 0
            from part where recovered_on is not null group by 1, 2
        ) line
        group by day, currency
        "#,
        from,
        to,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let counts = DayCounts {
                abandoned: row.abandoned,
                abandoned_minor: row.abandoned_minor,
                recovered: row.recovered,
                recovered_minor: row.recovered_minor,
                by_status: [row.now_abandoned, row.now_recovered, row.now_expired],
            };
            ((row.day, row.currency), counts)
        })
        .collect())
}

/// Sets the compacted rows to the counted values minus the uncompacted rows, which belong to the
/// backends that are writing.
async fn write(tx: &mut Connection, counted: &Ledger) -> sqlx::Result<Rebuilt> {
    let (mut days, mut currencies) = (Vec::new(), Vec::new());
    let (mut abandoned, mut abandoned_minor) = (Vec::new(), Vec::new());
    let (mut recovered, mut recovered_minor) = (Vec::new(), Vec::new());
    let mut totals = [0; 3];
    for ((day, currency), counts) in counted {
        days.push(*day);
        currencies.push(currency.clone());
        abandoned.push(counts.abandoned);
        abandoned_minor.push(counts.abandoned_minor);
        recovered.push(counts.recovered);
        recovered_minor.push(counts.recovered_minor);
        for (total, count) in totals.iter_mut().zip(counts.by_status) {
            *total += count;
        }
    }
    let corrected = sqlx::query!(
        r#"
        with counted as (
            select * from unnest($1::date[], $2::text[], $3::bigint[], $4::numeric[], $5::bigint[], $6::numeric[])
                as counted (day, currency, abandoned, abandoned_minor, recovered, recovered_minor)
        ), unfolded as (
            select day, currency, sum(abandoned) abandoned, sum(abandoned_minor) abandoned_minor,
                   sum(recovered) recovered, sum(recovered_minor) recovered_minor
            from cart_day_counts where slot <> 0 group by day, currency
        ), wanted as (
            select coalesce(counted.day, unfolded.day) as day, coalesce(counted.currency, unfolded.currency) as currency,
                   coalesce(counted.abandoned, 0) - coalesce(unfolded.abandoned, 0) as abandoned,
                   coalesce(counted.abandoned_minor, 0) - coalesce(unfolded.abandoned_minor, 0) as abandoned_minor,
                   coalesce(counted.recovered, 0) - coalesce(unfolded.recovered, 0) as recovered,
                   coalesce(counted.recovered_minor, 0) - coalesce(unfolded.recovered_minor, 0) as recovered_minor
            from counted full join unfolded using (day, currency)
        ), gone as (
            delete from cart_day_counts old where slot = 0
              and not exists (select from wanted where wanted.day = old.day and wanted.currency = old.currency)
            returning (abandoned, abandoned_minor, recovered, recovered_minor) <> (0, 0, 0, 0) as wrong
        ), written as (
            insert into cart_day_counts as old (day, currency, slot, abandoned, abandoned_minor, recovered, recovered_minor)
            select day, currency, 0, abandoned, abandoned_minor, recovered, recovered_minor from wanted
            where exists (select from cart_day_counts folded where folded.slot = 0 and folded.day = wanted.day and folded.currency = wanted.currency)
               or (abandoned, abandoned_minor, recovered, recovered_minor) <> (0, 0, 0, 0)
            on conflict (day, currency, slot) do update set abandoned = excluded.abandoned, recovered = excluded.recovered,
                abandoned_minor = excluded.abandoned_minor, recovered_minor = excluded.recovered_minor
            where (old.abandoned, old.abandoned_minor, old.recovered, old.recovered_minor)
               <> (excluded.abandoned, excluded.abandoned_minor, excluded.recovered, excluded.recovered_minor)
            returning 1
        )
        select (select count(*) from written) + (select count(*) from gone where wrong) as "days!"
        "#,
        &days,
        &currencies,
        &abandoned,
        &abandoned_minor,
        &recovered,
        &recovered_minor,
    )
    .fetch_one(&mut *tx)
    .await?;
    let totals_corrected = write_totals(tx, totals).await?;
    let corrected = usize::try_from(corrected.days).unwrap_or(usize::MAX);
    Ok(Rebuilt { carts: 0, days: 0, corrected, totals_corrected, periods_corrected: 0 })
}

async fn write_totals(tx: &mut Connection, [abandoned, recovered, expired]: [i64; 3]) -> sqlx::Result<bool> {
    let result = sqlx::query!(
        r#"
        update cart_status_counts old set abandoned = wanted.abandoned, recovered = wanted.recovered, expired = wanted.expired
        from (
            select $1 - coalesce(sum(now_abandoned), 0)::bigint as abandoned,
                   $2 - coalesce(sum(now_recovered), 0)::bigint as recovered,
                   $3 - coalesce(sum(now_expired), 0)::bigint as expired
            from cart_day_counts where slot <> 0
        ) wanted
        where (old.abandoned, old.recovered, old.expired) <> (wanted.abandoned, wanted.recovered, wanted.expired)
        "#,
        abandoned,
        recovered,
        expired,
    )
    .execute(tx)
    .await?;
    Ok(result.rows_affected() > 0)
}
