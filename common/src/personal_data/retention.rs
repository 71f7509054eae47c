//! Anonymizes old carts.
//!
//! A cart that has been recovered or expired for long enough loses its personal data and stays, so
//! that totals of abandoned and recovered carts are kept.
//!
//! No index finds these carts, because it would add cost to every insert. Instead the table is
//! scanned once per run, a range of blocks at a time: some seconds a day for ten million carts.

use std::ops::Range;

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;

use super::{erasure::blank_around_carts, statements};
use crate::db::Connection;

/// Blocks of 8 kB that are processed together; a cart takes about 400 bytes.
pub const BLOCKS: i64 = 256;

/// Maximum number of carts in one transaction.
const BATCH: i64 = 500;

/// The number of blocks of the carts table.
pub async fn blocks(conn: &mut Connection) -> sqlx::Result<i64> {
    sqlx::query_scalar!(r#"select pg_relation_size('carts') / current_setting('block_size')::bigint as "blocks!""#)
        .fetch_one(conn)
        .await
}

/// Removes the personal data of at most 500 carts in these blocks that are recovered or expired and
/// have not changed since `before`. Must run in a transaction. Returns the number of carts, and
/// `false` if no more are left. Locked carts and carts with a payment in progress are left for
/// another run.
pub async fn anonymize_batch(
    conn: &mut Connection,
    blocks: &Range<i64>,
    before: DateTime<Utc>,
    now: DateTime<Utc>,
) -> sqlx::Result<(u64, bool)> {
    let ids = sqlx::query_scalar!(
        r#"
        select id from carts
        where ctid >= $1::text::tid and ctid < $2::text::tid
          and status <> 'abandoned' and updated_at < $3 and anonymized_at is null
          and not exists (select from payment_links where cart_id = carts.id and status = 'processing')
        limit $4
        for no key update skip locked
        "#,
        format!("({},0)", blocks.start),
        format!("({},0)", blocks.end),
        before,
        BATCH,
    )
    .fetch_all(&mut *conn)
    .await?;
    if ids.is_empty() {
        return Ok((0, false));
    }
    blank_around_carts(conn, &ids, now).await?;
    let statement = sqlx::query(AssertSqlSafe(statements::anonymize())).bind(&ids).bind(now);
    let anonymized = statement.execute(conn).await?.rows_affected();
    Ok((anonymized, anonymized == BATCH.unsigned_abs()))
}
