//! Giving up carts that are too old.

use chrono::{DateTime, Utc};

use crate::{
    db::{Connection, Database},
    payment_links, timeline,
};

/// Carts a transaction: long enough to be fast, short enough to keep nobody waiting.
const BATCH: i64 = 1_500;

/// Expires every cart that was abandoned before `cutoff`, oldest first, and
/// closes their sessions. Answers how many expired. Several workers that do
/// this at once share the work: each skips what another has locked.
///
/// Spared: carts whose recovery link is still good, and those whose payment is under way.
pub async fn expire_older_than(database: &Database, cutoff: DateTime<Utc>, now: DateTime<Utc>) -> sqlx::Result<usize> {
    let mut expired = 0;
    loop {
        let of_pass = pass(database, cutoff, now).await?;
        expired += of_pass;
        // Once more from the start, for carts that were locked or spared when
        // the last pass came by; what nobody could expire waits for the next slot.
        if of_pass == 0 {
            timeline::note_not_expired(database, cutoff, now).await?;
            return Ok(expired);
        }
    }
}

/// Whether more carts are due than one batch takes: worth another worker's while.
pub async fn is_backlog(conn: &mut Connection, cutoff: DateTime<Utc>, now: DateTime<Utc>) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"
        select exists (
            select from carts
            where status = 'abandoned' and abandoned_at < $1
              and not exists (select from recovery_links where cart_id = carts.id and expires_at > $3)
              and not exists (select from payment_links where cart_id = carts.id and status = 'processing')
            order by abandoned_at offset $2 limit 1
        ) as "more!"
        "#,
        cutoff,
        BATCH,
        now,
    )
    .fetch_one(conn)
    .await
}

/// From the oldest cart to `cutoff` once.
async fn pass(database: &Database, cutoff: DateTime<Utc>, now: DateTime<Utc>) -> sqlx::Result<usize> {
    let mut expired = 0;
    // Each batch starts where the one before ended. Starting from the oldest it
    // would walk over the index entries of all that expired before, which stay
    // until a vacuum: a backlog would take time by the square of its size.
    let mut from = None;
    loop {
        let mut tx = database.begin().await?;
        // The commit does not wait for the disk: carts whose expiry a crash of
        // Postgres forgets are still due, and expire at the next slot.
        sqlx::query!("select set_config('synchronous_commit', 'off', true) as lightly").fetch_one(&mut tx).await?;
        let batch = expire_batch(&mut tx, from, cutoff, now).await?;
        tx.commit().await?;
        expired += batch.expired;
        if !batch.full || batch.expired == 0 {
            return Ok(expired);
        }
        from = batch.newest;
    }
}

/// What one batch came to.
struct Batch {
    /// Whether there may be more.
    full: bool,
    /// When the last cart it looked at was abandoned. Others may have been
    /// abandoned in the same moment.
    newest: Option<DateTime<Utc>>,
    expired: usize,
}

async fn expire_batch(
    conn: &mut Connection,
    from: Option<DateTime<Utc>>,
    cutoff: DateTime<Utc>,
    now: DateTime<Utc>,
) -> sqlx::Result<Batch> {
    let looked_at = sqlx::query!(
        r#"
        select ctid::text as "place!", abandoned_at from carts
        where status = 'abandoned' and abandoned_at >= coalesce($1::timestamptz, '-infinity') and abandoned_at < $2
          and not exists (select from recovery_links where cart_id = carts.id and expires_at > $4)
          and not exists (select from payment_links where cart_id = carts.id and status = 'processing')
        order by abandoned_at
        limit $3
        for no key update skip locked
        "#,
        from,
        cutoff,
        BATCH,
        now,
    )
    .fetch_all(&mut *conn)
    .await?;
    let newest = looked_at.last().map(|cart| cart.abandoned_at);
    let locked: Vec<String> = looked_at.into_iter().map(|cart| cart.place).collect();
    Ok(Batch {
        full: i64::try_from(locked.len()) == Ok(BATCH),
        newest,
        expired: expire_locked(conn, &locked, cutoff, now).await?,
    })
}

/// Expires those of the locked carts that are due, and closes their sessions.
async fn expire_locked(
    conn: &mut Connection,
    locked: &[String],
    cutoff: DateTime<Utc>,
    now: DateTime<Utc>,
) -> sqlx::Result<usize> {
    if locked.is_empty() {
        return Ok(0);
    }
    // Found by their place in the table, where a row that we hold stays. Asked
    // again under the lock, by a statement with a snapshot of its own: a link may
    // have been asked for between the first look and the lock. Under the lock
    // nobody asks for one, so the same snapshot has every link there is to close;
    // few carts have any.
    let outcome = sqlx::query!(
        r#"
        with expired as (
            update carts set status = 'expired', expired_at = $3, updated_at = $3, status_reason = 'age'
            where ctid = any ($1::text[]::tid[]) and status = 'abandoned' and abandoned_at < $2
              and not exists (select from recovery_links where cart_id = carts.id and expires_at > $3)
              and not exists (select from payment_links where cart_id = carts.id and status = 'processing')
            returning id
        )
        select count(*) as "expired!",
               array_agg(id) filter (
                   where exists (select from payment_links where cart_id = expired.id and status = 'open')
                      or exists (select from payment_links where cart_id = expired.id and status = 'pending')
               ) as linked
        from expired
        "#,
        locked,
        cutoff,
        now,
    )
    .fetch_one(&mut *conn)
    .await?;
    if let Some(linked) = outcome.linked {
        payment_links::close_all(conn, &linked, now).await?;
    }
    Ok(usize::try_from(outcome.expired).unwrap_or_default())
}
