//! Deleting what has been kept for long enough, in small batches. A row that another session has
//! locked stays until the next run.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::db::Connection;

const BATCH: i64 = 1_000;

/// How long an `Idempotency-Key` is remembered.
pub const IDEMPOTENCY_KEY_LIFE: TimeDelta = TimeDelta::hours(24);
/// How long a deleted cart's recovery link answers "gone" instead of "unknown".
const RETIRED_LINK_LIFE: TimeDelta = TimeDelta::days(30);
/// Final links, unless their cart still shows them.
const FINAL_LINK_LIFE: TimeDelta = TimeDelta::days(30);

/// How long records are kept.
#[derive(Debug, Clone, Copy)]
pub struct RecordRetention {
    /// Stripe's events. Stripe repeats one for three days at most.
    pub events: Duration,
    /// Idempotency keys, which work for [`IDEMPOTENCY_KEY_LIFE`].
    pub idempotency_keys: Duration,
    /// Slots of schedules that ran.
    pub slots: Duration,
}

impl RecordRetention {
    /// Stripe goes on repeating an event for so long: forgotten before, it would count twice in the log.
    pub const SHORTEST_EVENTS: Duration = Duration::from_secs(3 * 24 * 60 * 60);
    /// A key is promised to work for so long.
    pub const SHORTEST_KEYS: Duration = Duration::from_secs(24 * 60 * 60);
}

fn before(now: DateTime<Utc>, age: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(age).ok().and_then(|age| now.checked_sub_signed(age)).unwrap_or(DateTime::UNIX_EPOCH)
}

/// Deletes one batch of each kind; `false`: there was nothing left to delete.
pub async fn delete_batch(
    conn: &mut Connection,
    retention: &RecordRetention,
    now: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let keys = sqlx::query!(
        r#"
        delete from idempotency_keys where ctid = any (array(
            select ctid from idempotency_keys where created_at < $1 limit $2 for update skip locked))
        "#,
        before(now, retention.idempotency_keys),
        BATCH,
    )
    .execute(&mut *conn)
    .await?;
    let recovery_links = sqlx::query!(
        r#"
        delete from recovery_links where ctid = any (array(
            select ctid from recovery_links where retired_at < $1 limit $2 for update skip locked))
        "#,
        now - RETIRED_LINK_LIFE,
        BATCH,
    )
    .execute(&mut *conn)
    .await?;
    let events = sqlx::query!(
        r#"
        delete from stripe_events where ctid = any (array(
            select ctid from stripe_events where received_at < $1 limit $2 for update skip locked))
        "#,
        before(now, retention.events),
        BATCH,
    )
    .execute(&mut *conn)
    .await?;
    // The newest link of a living cart stays: the next version counts from it.
    let payment_links = sqlx::query!(
        r#"
        delete from payment_links where ctid = any (array(
            select ctid from payment_links old
            where status in ('paid', 'payment_failed', 'closed', 'failed') and updated_at < $1
              and (not exists (select from carts where carts.id = old.cart_id)
                   or exists (select from payment_links newer where newer.cart_id = old.cart_id and newer.version > old.version))
            limit $2
            for update of old skip locked))
        "#,
        now - FINAL_LINK_LIFE,
        BATCH,
    )
    .execute(&mut *conn)
    .await?;
    // The newest slot of a schedule stays: it says that the schedule ran.
    let slots = sqlx::query!(
        r#"
        delete from schedule_slots where ctid = any (array(
            select ctid from schedule_slots old
            where slot < $1
              and exists (select from schedule_slots newer where newer.schedule = old.schedule and newer.slot > old.slot)
            limit $2
            for update of old skip locked))
        "#,
        before(now, retention.slots),
        BATCH,
    )
    .execute(&mut *conn)
    .await?;
    let deleted = [keys, recovery_links, events, payment_links, slots].map(|result| result.rows_affected());
    Ok(deleted.iter().any(|rows| *rows > 0))
}
