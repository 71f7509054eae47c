//! Deletes records after their retention, in small batches. Rows that another session has locked
//! stay until the next run.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;

use crate::{
    config::{DURATION, parse_duration, value},
    db::Connection,
};

const BATCH: i64 = 1_000;

/// How long an `Idempotency-Key` is valid.
pub const IDEMPOTENCY_KEY_LIFE: TimeDelta = TimeDelta::hours(24);
/// How long the recovery link of a deleted cart returns "gone" instead of "unknown".
const RETIRED_LINK_LIFE: TimeDelta = TimeDelta::days(30);
/// How long final payment links are kept. Those of an existing cart stay if they are its newest or
/// were paid.
const FINAL_LINK_LIFE: TimeDelta = TimeDelta::days(30);

/// How long a refund or dispute waits for a payment link with its PaymentIntent. A link has it at the
/// latest once its session, which lives for a day, has ended and was requested from Stripe. Most of
/// those that wait are of payments that the product did not make.
const UNMATCHED_REVERSAL_LIFE: TimeDelta = TimeDelta::days(7);

/// The minimum for Stripe's events: Stripe resends an event for three days, and one that was deleted
/// before would count twice in the log.
const MIN_EVENTS: Duration = Duration::from_secs(3 * 24 * 60 * 60);
/// The minimum for idempotency keys: the time for which the API guarantees that a key is valid.
const MIN_KEYS: Duration = Duration::from_secs(24 * 60 * 60);

/// How long records are kept.
#[derive(Debug, Clone, Copy, Args)]
pub struct RecordRetention {
    /// How long Stripe's events are kept
    #[arg(long, env = "RETAIN_EVENTS", default_value = "30d")]
    #[arg(value_name = "a duration of at least 3d, for which Stripe may repeat an event")]
    #[arg(value_parser = value(|text| parse_duration(text).filter(|kept| *kept >= MIN_EVENTS)))]
    pub events: Duration,
    /// How long idempotency keys are kept
    #[arg(long, env = "RETAIN_IDEMPOTENCY_KEYS", default_value = "1d")]
    #[arg(value_name = "a duration of at least 24h, for which a key is promised to work")]
    #[arg(value_parser = value(|text| parse_duration(text).filter(|kept| *kept >= MIN_KEYS)))]
    pub idempotency_keys: Duration,
    /// How long the runs of schedules are kept
    #[arg(long, env = "RETAIN_SLOTS", default_value = "30d", value_name = DURATION)]
    #[arg(value_parser = value(parse_duration))]
    pub slots: Duration,
    /// How long the audit log is kept
    #[arg(long, env = "RETAIN_AUDIT", default_value = "365d", value_name = DURATION)]
    #[arg(value_parser = value(parse_duration))]
    pub audit: Duration,
}

fn before(now: DateTime<Utc>, age: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(age).ok().and_then(|age| now.checked_sub_signed(age)).unwrap_or(DateTime::UNIX_EPOCH)
}

/// Deletes one batch of each kind. `false` if there was nothing to delete.
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
    // The newest run of a schedule stays as evidence that the schedule ran.
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
    let audit = sqlx::query!(
        r#"
        delete from audit_log where ctid = any (array(
            select ctid from audit_log where at < $1 order by at limit $2 for update skip locked))
        "#,
        before(now, retention.audit),
        BATCH,
    )
    .execute(&mut *conn)
    .await?;
    let deleted = [keys, events, slots, audit].map(|result| result.rows_affected());
    let links = delete_links(conn, now).await?;
    Ok(links || deleted.iter().any(|rows| *rows > 0))
}

/// Deletes one batch each of links and of what Stripe reported of their payments.
async fn delete_links(conn: &mut Connection, now: DateTime<Utc>) -> sqlx::Result<bool> {
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
    // The newest link of an existing cart stays, because the next version counts from it. A paid one
    // stays, because refunds and disputes may follow for months; so does one that SQL ended by hand,
    // without a time.
    let payment_links = sqlx::query!(
        r#"
        delete from payment_links where ctid = any (array(
            select ctid from payment_links old
            where status in ('paid', 'payment_failed', 'closed', 'failed') and ended_at < $1
              and (not exists (select from carts where carts.id = old.cart_id)
                   or status <> 'paid' and exists (
                       select from payment_links newer where newer.cart_id = old.cart_id and newer.version > old.version))
            limit $2
            for update of old skip locked))
        "#,
        now - FINAL_LINK_LIFE,
        BATCH,
    )
    .execute(&mut *conn)
    .await?;
    let reversals = sqlx::query!(
        r#"
        delete from payment_reversals where ctid = any (array(
            select ctid from payment_reversals old
            where case when cart_id is null then received_at < $1
                       else not exists (select from payment_links link where link.cart_id = old.cart_id and link.version = old.link) end
            limit $2
            for update of old skip locked))
        "#,
        now - UNMATCHED_REVERSAL_LIFE,
        BATCH,
    )
    .execute(&mut *conn)
    .await?;
    let deleted = [recovery_links, payment_links, reversals].map(|result| result.rows_affected());
    Ok(deleted.iter().any(|rows| *rows > 0))
}
