//! How long old carts keep their shoppers.
//!
//! A cart that is recovered or expired, and has been so for long enough, loses
//! what is personal and stays: what was abandoned and won back still counts.
//!
//! No index tells which carts those are, because it would cost every cart that
//! is stored. The table is walked once, a stretch of blocks at a time: some
//! seconds in a day for ten million carts.

use std::ops::Range;

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;

use super::{erasure::blank_around_carts, fields::ERASED_EMAIL, statements};
use crate::db::Connection;

/// Blocks of 8 kB that are looked at together; a cart takes some 400 bytes.
pub const BLOCKS: i64 = 256;

/// The most carts that one transaction holds.
const BATCH: i64 = 500;

/// How many blocks the carts fill.
pub async fn blocks(conn: &mut Connection) -> sqlx::Result<i64> {
    sqlx::query_scalar!(r#"select pg_relation_size('carts') / current_setting('block_size')::bigint as "blocks!""#)
        .fetch_one(conn)
        .await
}

/// Takes what is personal out of at most 500 carts in these blocks that are
/// recovered or expired and have not changed since `before`. Within a
/// transaction; `false`: there were no more. A cart that somebody holds, or of
/// which money is under way, is left for another day.
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
          and status <> 'abandoned' and updated_at < $3 and customer_email <> $4
          and not exists (select from payment_links where cart_id = carts.id and status = 'processing')
        limit $5
        for no key update skip locked
        "#,
        format!("({},0)", blocks.start),
        format!("({},0)", blocks.end),
        before,
        ERASED_EMAIL,
        BATCH,
    )
    .fetch_all(&mut *conn)
    .await?;
    if ids.is_empty() {
        return Ok((0, false));
    }
    blank_around_carts(conn, &ids, now).await?;
    // Neither the status nor updated_at is touched: the timeline tells by them what happened when.
    let statement = sqlx::query(AssertSqlSafe(statements::anonymize())).bind(&ids);
    let anonymized = statement.execute(conn).await?.rows_affected();
    Ok((anonymized, anonymized == BATCH.unsigned_abs()))
}
