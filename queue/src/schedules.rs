//! Schedules: every process proposes the slot that is due, the ledger lets it in once.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{PgPool, Postgres, Transaction};

use crate::{
    enqueue::{EnqueueOptions, enqueue_with},
    job::Job,
};

/// When a schedule fires: a cron expression with seconds, in UTC.
pub type Schedule = cron::Schedule;

/// The last slot at or before `now`.
pub fn latest_slot(schedule: &Schedule, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    // The iterator is exclusive, and slots are whole seconds.
    schedule.after(&(now + TimeDelta::milliseconds(1))).next_back()
}

/// The first slot after `now`.
pub fn next_slot(schedule: &Schedule, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    schedule.after(&now).next()
}

/// Queues `job` for the latest slot that is due by Postgres' clock, unless
/// somebody has. Answers how long to wait before it is worth asking again.
pub async fn propose<J: Job>(pool: &PgPool, name: &str, schedule: &Schedule, job: &J) -> sqlx::Result<TimeDelta> {
    let mut tx = pool.begin().await?;
    let now = now(&mut tx).await?;
    if let Some(slot) = latest_slot(schedule, now) {
        let admitted = sqlx::query!(
            "insert into schedule_slots (schedule, slot) values ($1, $2) on conflict do nothing",
            name,
            slot,
        )
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if admitted == 1 {
            enqueue_with(&mut tx, job, EnqueueOptions { slot: Some(slot), ..EnqueueOptions::default() }).await?;
        }
    }
    tx.commit().await?;
    let next = next_slot(schedule, now).map_or(TimeDelta::minutes(1), |next| next - now);
    Ok(next.min(TimeDelta::minutes(1)))
}

async fn now(tx: &mut Transaction<'_, Postgres>) -> sqlx::Result<DateTime<Utc>> {
    sqlx::query_scalar!(r#"select now() as "now!""#).fetch_one(&mut **tx).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_slot_is_due_from_its_own_second_on() {
        let schedule: Schedule = "0 */5 * * * *".parse().unwrap();
        assert_eq!(latest_slot(&schedule, at("2026-03-01T10:04:59.999Z")), Some(at("2026-03-01T10:00:00Z")));
        assert_eq!(latest_slot(&schedule, at("2026-03-01T10:05:00Z")), Some(at("2026-03-01T10:05:00Z")));
        assert_eq!(next_slot(&schedule, at("2026-03-01T10:05:00Z")), Some(at("2026-03-01T10:10:00Z")));
    }
}
