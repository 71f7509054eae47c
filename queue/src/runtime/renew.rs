//! Renews the leases of this process.

use std::{collections::HashSet, sync::Arc};

use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

use super::{lease::Held, state::Shared};
use crate::{job::JobId, sql};

/// Renews all held leases in one statement, on its own timer. Drops the runs of leases that this
/// process no longer has, or that expired because renewing failed.
pub(crate) async fn renew(shared: Arc<Shared>) {
    let mut ticks = interval(shared.config.renew_every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.closing.cancelled() => return,
        }
        let held = shared.held();
        if held.is_empty() {
            continue;
        }
        let until = Instant::now() + shared.config.lease;
        // Without a timeout, an unresponsive Postgres would delay the detection of expired leases.
        let renewal = tokio::time::timeout(shared.config.renew_every, renew_once(&shared, &held)).await;
        match renewal.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
            Ok(ours) => {
                shared.renewed(&ours, until);
                let ours: HashSet<JobId> = ours.into_iter().collect();
                for held in held.iter().filter(|held| !ours.contains(&held.lease.id)) {
                    shared.lose(&held.lease);
                }
            }
            Err(error) => {
                tracing::warn!(%error, jobs = held.len(), "could not renew leases");
                for held in held.iter().filter(|held| held.until <= Instant::now()) {
                    shared.lose(&held.lease);
                }
            }
        }
    }
}

/// Returns the ids of the jobs in `held` whose lease this process still has. A locked row is not
/// renewed: its outcome is being written or it is being taken, and the next round sees the result.
async fn renew_once(shared: &Shared, held: &[Held]) -> sqlx::Result<Vec<JobId>> {
    let ids: Vec<Uuid> = held.iter().map(|held| held.lease.id).collect();
    let tokens: Vec<Uuid> = held.iter().map(|held| held.lease.token).collect();
    let mut conn = shared.database.acquire().await?;
    let ours = sqlx::query_scalar!(
        r#"
        with ours as (
            select jobs.id from unnest($1::uuid[], $2::uuid[]) as held (id, token)
            join jobs on jobs.id = held.id and jobs.lease_token = held.token
        ), free as (
            select jobs.id from jobs where id = any (array(select id from ours)) order by id for update skip locked
        ), renewed as (
            update jobs set lease_until = now() + $3 where id = any (array(select id from free)) and lease_token = any ($2)
        )
        select id from ours
        "#,
        &ids,
        &tokens,
        sql::interval(shared.config.lease),
    )
    .fetch_all(&mut conn)
    .await?;
    conn.commit().await?;
    Ok(ours)
}
