//! Expires carts that are too old.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use crate::{
    db::{Connection, Database},
    payment_links, timeline,
};

/// Carts in one transaction: enough to be efficient, few enough to hold locks only briefly.
const BATCH: i64 = 1_500;

/// Expires every cart that was abandoned before `cutoff`, oldest first, and closes its sessions.
/// Returns the number of expired carts. Several workers can run this at once; each skips the carts
/// that another has locked.
///
/// Carts with a recovery link that still works and carts with a payment in progress are spared.
pub async fn expire_older_than(database: &Database, cutoff: DateTime<Utc>, now: DateTime<Utc>) -> sqlx::Result<i64> {
    let mut expired = 0;
    loop {
        let of_pass = pass(database, cutoff, now).await?;
        expired += of_pass;
        // Start over, for carts that were locked or spared during the last pass. Carts that still
        // can't expire are tried again in the next run of the job.
        if of_pass == 0 {
            note_spared(database, cutoff, now).await?;
            return Ok(expired);
        }
    }
}

/// Whether more than one batch of carts is due, so that a second worker would help.
///
/// `tx` must be a transaction; its planner settings change until it ends.
pub async fn is_backlog(tx: &mut Connection, cutoff: DateTime<Utc>, now: DateTime<Utc>) -> sqlx::Result<bool> {
    walk_by_age(tx).await?;
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
    .fetch_one(tx)
    .await
}

/// Forces index scans for this transaction: the planner misjudges the LIMIT and would sometimes
/// collect and sort all due carts to return one batch, which takes most of a second of CPU time.
async fn walk_by_age(tx: &mut Connection) -> sqlx::Result<()> {
    sqlx::query!(
        "select set_config(name, value, true) from (values
             ('plan_cache_mode', 'force_generic_plan'), ('jit', 'off'), ('enable_sort', 'off'), ('enable_seqscan', 'off'),
             ('enable_bitmapscan', 'off'), ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off')) settings (name, value)"
    )
    .fetch_all(tx)
    .await?;
    Ok(())
}

/// Records in the timeline why due carts did not expire. Only few due carts are left by now.
async fn note_spared(database: &Database, cutoff: DateTime<Utc>, now: DateTime<Utc>) -> sqlx::Result<()> {
    loop {
        let mut tx = database.begin().await?;
        walk_by_age(&mut tx).await?;
        let more = timeline::note_not_expired(&mut tx, cutoff, now).await?;
        tx.commit().await?;
        if !more {
            return Ok(());
        }
    }
}

/// One pass, from the oldest cart to `cutoff`.
async fn pass(database: &Database, cutoff: DateTime<Utc>, now: DateTime<Utc>) -> sqlx::Result<i64> {
    let mut expired = 0;
    // Each batch starts where the previous one ended. Starting from the oldest cart would scan the
    // index entries of all carts that expired before, which stay until a vacuum: quadratic in the
    // size of the backlog.
    let mut from = None;
    // Usually few carts are spared. Locking those as well is then cheaper than checking the links
    // of every cart twice.
    let mut lock = Lock::Due;
    loop {
        let mut tx = database.begin().await?;
        walk_by_age(&mut tx).await?;
        // Don't wait for the disk. If a crash of Postgres loses the commit, the carts are still due
        // and expire in the next run.
        sqlx::query!("select set_config('synchronous_commit', 'off', true) as lightly").fetch_one(&mut tx).await?;
        let batch = expire_batch(&mut tx, lock, from, cutoff, now).await?;
        tx.commit().await?;
        expired += batch.expired;
        if batch.locked < BATCH || (batch.expired == 0 && lock == Lock::Expiring && batch.newest == from) {
            return Ok(expired);
        }
        // Locking only carts that will expire keeps spared carts from filling the batches, even if
        // a whole batch of them was abandoned at the same instant.
        if batch.expired < batch.locked / 2 {
            lock = Lock::Expiring;
        }
        from = batch.newest;
    }
}

/// Which carts a batch locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lock {
    /// All that are old enough.
    Due,
    /// Only those that are not spared.
    Expiring,
}

/// The result of one batch.
struct Batch {
    /// The number of locked carts; fewer than [`BATCH`] means that this was the last batch.
    locked: i64,
    /// When the last of them was abandoned. Other carts may have the same time.
    newest: Option<DateTime<Utc>>,
    expired: i64,
}

async fn expire_batch(
    conn: &mut Connection,
    lock: Lock,
    from: Option<DateTime<Utc>>,
    cutoff: DateTime<Utc>,
    now: DateTime<Utc>,
) -> sqlx::Result<Batch> {
    // Returns the row locations (ctids) as one text: reading a row for each takes longer than
    // locking.
    let locked = sqlx::query!(
        r#"
        select array_agg(place)::text as places, max(abandoned_at) as newest, count(*) as "carts!"
        from (
            select ctid as place, abandoned_at from carts
            where status = 'abandoned' and abandoned_at >= coalesce($1::timestamptz, '-infinity') and abandoned_at < $2
              and ($5 or (not exists (select from recovery_links where cart_id = carts.id and expires_at > $4)
                          and not exists (select from payment_links where cart_id = carts.id and status = 'processing')))
            order by abandoned_at
            limit $3
            for no key update skip locked
        ) locked
        "#,
        from,
        cutoff,
        BATCH,
        now,
        lock == Lock::Due,
    )
    .fetch_one(&mut *conn)
    .await?;
    let expired = match locked.places {
        Some(places) => expire_locked(conn, &places, cutoff, now).await?,
        None => 0,
    };
    Ok(Batch { locked: locked.carts, newest: locked.newest, expired })
}

/// Expires the locked carts that are still due, and closes their sessions. `places` are their
/// ctids.
async fn expire_locked(
    conn: &mut Connection,
    places: &str,
    cutoff: DateTime<Utc>,
    now: DateTime<Utc>,
) -> sqlx::Result<i64> {
    // Carts are found by ctid, which can't change while this transaction holds the row lock. Links
    // are read after locking, in new snapshots, because one may have been requested just before.
    // None can be requested under the lock, so `lock_links` finds every link to close.
    let Links { linked, held } = lock_links(&mut *conn, places).await?;
    let outcome = sqlx::query!(
        r#"
        with expired as (
            update carts set status = 'expired', expired_at = $3, status_changed_at = $3, status_reason = 'age', updated_at = $3
            where ctid = any ($1::text::tid[]) and status = 'abandoned' and abandoned_at < $2
              and not exists (select from recovery_links where cart_id = carts.id and expires_at > $3)
              and not exists (select from payment_links where cart_id = carts.id and status = 'processing')
              and id <> all ($4)
            returning id
        )
        select count(*) as "expired!", array_agg(id) filter (where id = any ($5)) as linked from expired
        "#,
        places,
        cutoff,
        now,
        &held,
        &linked,
    )
    .fetch_one(&mut *conn)
    .await?;
    if let Some(linked) = outcome.linked {
        payment_links::close_all(conn, &linked, now).await?;
    }
    Ok(outcome.expired)
}

/// The locked carts that have links to close.
#[derive(Debug, Default)]
struct Links {
    /// Carts whose links this transaction locked.
    linked: Vec<String>,
    /// Carts of which another transaction holds a link. They are left for later.
    held: Vec<String>,
}

/// Locks the links that expiry would close, and skips locked ones: waiting for one link would keep
/// the whole batch of carts locked.
async fn lock_links(conn: &mut Connection, places: &str) -> sqlx::Result<Links> {
    let rows = sqlx::query!(
        r#"
        with wanted as materialized (
            select link.cart_id, link.version from carts join payment_links link on link.cart_id = carts.id
            where carts.ctid = any ($1::text::tid[]) and link.status in ('open', 'pending')
        ), locked as (
            select link.cart_id
            from wanted join payment_links link on link.cart_id = wanted.cart_id and link.version = wanted.version
            for no key update of link skip locked
        )
        select cart_id as "cart_id!", 1 as "held!" from wanted union all select cart_id, -1 from locked
        "#,
        places,
    )
    .fetch_all(conn)
    .await?;
    // A cart may have an open and a pending link.
    let mut carts: HashMap<String, i32> = HashMap::new();
    for row in rows {
        *carts.entry(row.cart_id).or_default() += row.held;
    }
    let (held, linked): (Vec<_>, Vec<_>) = carts.into_iter().partition(|(_, held)| *held > 0);
    let ids = |carts: Vec<(String, i32)>| carts.into_iter().map(|(id, _)| id).collect();
    Ok(Links { linked: ids(linked), held: ids(held) })
}
