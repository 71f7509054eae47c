//! Giving up carts that are too old.

use std::collections::HashMap;

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
pub async fn expire_older_than(database: &Database, cutoff: DateTime<Utc>, now: DateTime<Utc>) -> sqlx::Result<i64> {
    let mut expired = 0;
    loop {
        let of_pass = pass(database, cutoff, now).await?;
        expired += of_pass;
        // Once more from the start, for carts that were locked or spared when
        // the last pass came by; what nobody could expire waits for the next slot.
        if of_pass == 0 {
            note_spared(database, cutoff, now).await?;
            return Ok(expired);
        }
    }
}

/// Whether more carts are due than one batch takes: worth another worker's while.
///
/// `tx` is a transaction, whose other statements run as they would without this.
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

/// For this transaction, carts are found in the order they were abandoned, and
/// what belongs to them by key. Postgres can't know how few a limit will take of
/// a range it hasn't seen: it would now and then collect and sort every due cart
/// to take one batch, for most of a second and with a core of its own.
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

/// What is due and did not expire is told why. Hardly anything else is due any more.
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

/// From the oldest cart to `cutoff` once.
async fn pass(database: &Database, cutoff: DateTime<Utc>, now: DateTime<Utc>) -> sqlx::Result<i64> {
    let mut expired = 0;
    // Each batch starts where the one before ended. Starting from the oldest it
    // would walk over the index entries of all that expired before, which stay
    // until a vacuum: a backlog would take time by the square of its size.
    let mut from = None;
    // Few carts are spared, as a rule: then it is cheaper to lock those as well
    // than to look for the links of every cart twice.
    let mut lock = Lock::Due;
    loop {
        let mut tx = database.begin().await?;
        walk_by_age(&mut tx).await?;
        // The commit does not wait for the disk: carts whose expiry a crash of
        // Postgres forgets are still due, and expire at the next slot.
        sqlx::query!("select set_config('synchronous_commit', 'off', true) as lightly").fetch_one(&mut tx).await?;
        let batch = expire_batch(&mut tx, lock, from, cutoff, now).await?;
        tx.commit().await?;
        expired += batch.expired;
        if batch.locked < BATCH || (batch.expired == 0 && lock == Lock::Expiring && batch.newest == from) {
            return Ok(expired);
        }
        // With these locked none of the spared are in the way of the rest, even
        // if a batch of them was abandoned in the same moment.
        if batch.expired < batch.locked / 2 {
            lock = Lock::Expiring;
        }
        from = batch.newest;
    }
}

/// Which carts a batch locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lock {
    /// Those that are old enough.
    Due,
    /// Of those, the ones that will expire.
    Expiring,
}

/// What one batch came to.
struct Batch {
    /// The carts it locked; fewer than [`BATCH`] were the last.
    locked: i64,
    /// When the last of them was abandoned. Others may have been abandoned in the same moment.
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
    // A place a cart as text, all in one: a row each would take longer to read than to lock.
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

/// Expires those of the locked carts that are due, and closes their sessions.
async fn expire_locked(
    conn: &mut Connection,
    places: &str,
    cutoff: DateTime<Utc>,
    now: DateTime<Utc>,
) -> sqlx::Result<i64> {
    // Found by their place in the table, where a row that we hold stays. Asked
    // under the lock, by statements with snapshots of their own: a link may have
    // been asked for just before. Under the lock nobody asks for one, so the first
    // finds every link there is to close.
    let Links { linked, held } = lock_links(&mut *conn, places).await?;
    let outcome = sqlx::query!(
        r#"
        with expired as (
            update carts set status = 'expired', expired_at = $3, updated_at = $3, status_reason = 'age'
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

/// Carts that have links to close.
#[derive(Debug, Default)]
struct Links {
    /// Their links are locked.
    linked: Vec<String>,
    /// Others have a link of theirs locked: these carts are left for later.
    held: Vec<String>,
}

/// Locks the links of the locked carts that expiry would close, and waits for none: one
/// that somebody holds must not keep a whole batch of carts locked.
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
    // A cart may have one that is open, and one that is pending.
    let mut carts: HashMap<String, i32> = HashMap::new();
    for row in rows {
        *carts.entry(row.cart_id).or_default() += row.held;
    }
    let (held, linked): (Vec<_>, Vec<_>) = carts.into_iter().partition(|(_, held)| *held > 0);
    let ids = |carts: Vec<(String, i32)>| carts.into_iter().map(|(id, _)| id).collect();
    Ok(Links { linked: ids(linked), held: ids(held) })
}
